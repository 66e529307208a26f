"""What was negotiated by the Dataspace Protocol is used: a job and a query over three companies, each under its own grant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.integration.consortium import PURPOSE, Consortium, at_once, write_records
from tests.integration.parties import ForkedParty, Party, until
from tests.integration.test_query import write_passes

ROWS = {"mill-a": 400, "mill-b": 500, "mill-c": 600}
pytestmark = pytest.mark.long


class Negotiated(Consortium):
    """Three mills whose offers stand in their catalogs, and an institute that has agreed on nothing yet."""

    def serve_coordinator(self) -> Any:
        return self.institute.serve("coordinator", "serve", "--dataspace", "127.0.0.1:0", until="dataspace")

    def granted(self, mill: Party, dataset: str, offer: str) -> tuple[str, str]:
        """The institute takes an offer and asks for the grant; the agreement's digest and the grant's id, once it is live."""
        asked = self.institute.ok("negotiation", "request", f"{mill.name}/{dataset}", "--offer", offer).json["id"]
        until(partial(self._stands, "negotiation", asked, "FINALIZED"), "the negotiation did not end in agreement")
        done = next(one for one in self.institute.ok("negotiation", "list", "--all").json if one["id"] == asked)
        agreement = str(done["agreement"])
        grant = self.institute.ok("transfer", "request", agreement.removeprefix("sha256:")[:12]).json["id"]
        until(partial(self._stands, "transfer", grant, "STARTED"), "the grant was not started")
        for party in (self.institute, mill):
            until(partial(self._holds_live, party, agreement), f"{party.name} does not hold it in force")
        return agreement, str(grant)

    def _stands(self, what: str, pid: str, state: str) -> bool:
        return any(one["id"] == pid and one["state"] == state for one in self.institute.ok(what, "list", "--all").json)

    def _holds_live(self, party: Party, digest: str) -> bool:
        listed = party.ok("agreement", "list", "--all").json
        return any(one["digest"] == digest and one["state"] == "in-force" for one in listed)


@pytest.fixture(scope="module")
def mills(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Negotiated]:
    one = Negotiated(tmp_path_factory.mktemp("negotiated"), party=ForkedParty)
    try:
        one.found()
        for mill in one.mills:
            one.join(mill)

        def serve(mill: Party) -> None:
            write_passes(one.records(mill), ROWS[mill.name], 1 + one.mills.index(mill))
            mill.ok(
                "node", "dataset", "add", "passes", one.records(mill), "--title", "Passes", "--simulated",
                "--column", "alloy:text=mild|hard|rare", "--column", "force:number=0..60",
            )  # fmt: skip
            records = one.folder / "records" / f"{mill.name}-rolls.csv"
            write_records(records, 50, seed=one.mills.index(mill))
            mill.ok("node", "dataset", "add", "rolls", records, "--title", "Rolls", "--simulated")
            one.serve_node(mill)

        at_once(serve, one.mills)
        at_once(lambda mill: mill.ok("peers", "accept", "--all"), one.mills)
        yield one
    finally:
        one.stop()


def publish(mill: Party, dataset: str, *clauses: str) -> str:
    return str(mill.ok("dataspace", "publish", dataset, "--expires", "30d", *clauses, "--automatic").json["id"])


def test_a_job_runs_under_grants_and_stops_with_one(mills: Negotiated) -> None:
    """Nothing is permitted before the grant; a masked job ends well under it; a provider's suspension denies the next."""
    offers = {mill.name: publish(mill, "rolls", "--purpose", PURPOSE, "--set", "count=3") for mill in mills.mills}
    assert mills.job().code == 3, "no agreement yet"
    grants = {mill.name: mills.granted(mill, "rolls", offers[mill.name]) for mill in mills.mills}
    ended = mills.job()
    assert ended.code == 0, ended.err
    for mill in mills.mills:
        outcomes = [one["fields"] for one in mills.entries(mill, "outcome")]
        assert outcomes and {one["outcome"] for one in outcomes} == {"ok"}
        (agreement, _) = grants[mill.name]
        assert {one["fields"]["agreement"] for one in mills.entries(mill, "intent")} == {agreement}
    mill = mills.mill("a")
    theirs = next(one for one in mill.ok("transfer", "list").json if one["their-id"] == grants["mill-a"][1])["id"]
    mill.ok("transfer", "suspend", theirs, "--reason", "maintenance")
    assert mills.job().code == 3, "two companies are too few, and the third's grant is suspended"
    mill.ok("transfer", "start", theirs)
    (agreement, _) = grants["mill-a"]
    name = agreement.removeprefix("sha256:")[:12]
    mills.institute.ok("agreement", "suspend", name, "--reason", "the consumer may, too")
    until(lambda: not mills._holds_live(mill, agreement), "the consumer's suspension did not reach the provider")
    assert mills.job().code == 3
    mills.institute.ok("agreement", "resume", name)
    until(lambda: mills._holds_live(mill, agreement), "nor did its end")
    ended = mills.job()
    assert ended.code == 0, ended.err


def test_a_query_is_answered_under_grants(mills: Negotiated) -> None:
    """The clauses travel through the negotiation: the smallest group that a provider put into its offer binds the answer."""
    clauses = ("--purpose", "fed:Benchmarking", "--set", "action=aggregateQuery", "--set", "group-size=230")
    for mill in mills.mills:
        mills.granted(mill, "passes", publish(mill, "passes", *clauses))
    ask = ("query", "--purpose", "fed:Benchmarking", "--yes")
    (row,) = mills.institute.ok(*ask, "SELECT COUNT(*) AS n FROM passes").json["rows"]
    assert (row["n"], row["contributing"]) == (sum(ROWS.values()), 3)
    rows = mills.institute.ok(*ask, "SELECT alloy, COUNT(*) AS n FROM passes GROUP BY alloy").json["rows"]
    assert all(one["suppressed"] for one in rows), "an alloy has fewer than 230 passes at mill-a"
