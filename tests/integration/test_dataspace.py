"""The Dataspace Protocol by commands between real processes: a node, a coordinator with its gateway, an analyst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.consortium import PURPOSE, Consortium, write_records
from tests.integration.parties import ForkedParty, Party, until


class WithGateway(Consortium):
    def serve_coordinator(self) -> Any:
        return self.institute.serve("coordinator", "serve", "--dataspace", "127.0.0.1:0", until="dataspace")


@pytest.fixture(scope="module")
def served(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithGateway]:
    consortium = WithGateway(tmp_path_factory.mktemp("dataspace"), ["mill-a"], party=ForkedParty)
    lab = ForkedParty(consortium.folder, "lab")
    try:
        consortium.found()
        (mill,) = consortium.mills
        consortium.join(mill)
        lab.ok(
            "join", consortium.invite("lab", "Lab Ltd", "--role", "analyst"), "--fingerprint", consortium.fingerprint
        )
        write_records(consortium.records(mill), 50, seed=0)
        mill.ok("node", "dataset", "add", "passes", consortium.records(mill), "--title", "Passes", "--simulated")
        consortium.serve_node(mill)
        lab.serve("dataspace", "serve", until="attached")
        consortium.lab = lab  # type: ignore[attr-defined]
        yield consortium
    finally:
        if lab.service is not None:
            lab.service.stop()
        consortium.stop()


def state(party: Party, what: str, pid: str) -> str:
    """How a process stands at a party; empty where it does not know it."""
    listed = party.ok(what, "list", "--all").json
    return next((str(one["state"]) for one in listed if one["id"] == pid), "")


def usable(party: Party, agreement: str) -> str:
    """How an agreement stands at a party."""
    listed = party.ok("agreement", "list", "--all").json
    return next(str(one["state"]) for one in listed if one["digest"] == agreement)


def test_from_an_offer_in_a_catalog_to_a_live_grant_and_its_end(served: WithGateway) -> None:
    """Both the coordinator's own member and an analyst without a node negotiate with a node that decides by itself."""
    (mill,), lab, institute = served.mills, served.lab, served.institute  # type: ignore[attr-defined]
    clauses = ("--purpose", PURPOSE, "--expires", "30d", "--set", "count=3", "--set", "protection=none")
    offer = mill.ok("dataspace", "publish", "passes", *clauses, "--automatic").json
    for consumer in (lab, institute):
        (dataset,) = consumer.ok("dataspace", "catalog", "mill-a").json["dataset"]
        assert [one["@id"] for one in dataset["hasPolicy"]] == [offer["id"]]
        pid = consumer.ok("negotiation", "request", "mill-a/passes").json["id"]
        until(lambda: state(consumer, "negotiation", pid) == "FINALIZED", "the negotiation did not end in agreement")
        done = next(one for one in consumer.ok("negotiation", "list", "--all").json if one["id"] == pid)
        assert usable(consumer, done["agreement"]) == "suspended"

        grant = consumer.ok("transfer", "request", done["agreement"].removeprefix("sha256:")[:12]).json["id"]
        until(lambda: state(consumer, "transfer", grant) == "STARTED", "the grant was not started")
        for party in (consumer, mill):
            until(lambda party=party: usable(party, done["agreement"]) == "in-force", "the agreement is not usable")

        theirs = next(one for one in mill.ok("transfer", "list").json if one["their-id"] == grant)["id"]
        mill.ok("transfer", "suspend", theirs, "--reason", "maintenance")
        assert state(consumer, "transfer", grant) == "SUSPENDED"
        refused = consumer.run("transfer", "start", grant, form="json")
        assert refused.code == 2 and "mill-a" in refused.error["message"]
        mill.ok("transfer", "start", theirs)
        consumer.ok("transfer", "terminate", grant)
        assert [usable(party, done["agreement"]) for party in (consumer, mill)] == ["suspended", "suspended"]
        kinds = {one["kind"] for one in served.entries(consumer)}
        assert {"agreement", "negotiation", "suspension", "transfer"} <= kinds
    mill.ok("dataspace", "withdraw", offer["id"])
    assert "dataset" not in lab.ok("dataspace", "catalog", "mill-a").json
