"""inv8: a whole consortium in containers as they are by default, where T1 alone holds: a job goes from plan to result,
every record of it names the tier, and nothing is done at T1 that was not accepted."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from federation.statements import Envelope, Receipt
from tests.integration.apps import server_with, write_app
from tests.integration.consortium import PURPOSE, Consortium, write_records
from tests.integration.parties import TREE, Party

ALONE = server_with("strategies.FedAvg(min_available_nodes=1, min_train_nodes=1, fraction_evaluate=0.0)")
CLAUSES = ("--purpose", PURPOSE, "--expires", "1d", "--protection", "none", "--min-participants", "1")

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="T1 gives each session a uid of its own, which takes root"),
]


class Contained(Party):
    """A party whose processes run in what Docker gives by default."""

    def command(self, *arguments: str | Path, form: str = "text") -> list[str]:
        return [sys.executable, str(TREE / "tests/integration/contained.py"), *super().command(*arguments, form=form)]


@pytest.fixture
def contained(tmp_path: Path, isolating: None) -> Consortium:
    consortium = Consortium(tmp_path)
    consortium.institute, consortium.mills = Contained(tmp_path, "institute"), [Contained(tmp_path, "mill-a")]
    consortium.app = write_app(tmp_path / "alone", server=ALONE)
    return consortium


def test_a_job_from_plan_to_result_where_t1_alone_holds(contained: Consortium, tmp_path: Path) -> None:
    institute, (mill,) = contained.institute, contained.mills
    found = ("consortium", "init", "--name", "Mills", "--member", "institute", "--entity", "Institute")
    address = ("--address", contained.address)
    institute.run(*found, *address).refused(3, "only T1", "nobody accepted")
    assert not (institute.home / "identity.json").exists()
    institute.ok(*found, *address, "--accept-tier", "T1")
    contained.fingerprint = institute.ok("whoami").json["consortium"]["fingerprint"]
    try:
        contained.serve_coordinator()
        join = ("join", contained.invite("mill-a"), "--fingerprint", contained.fingerprint)
        mill.run(*join).refused(3, "only T1")
        mill.ok(*join, "--accept-tier", "T1")
        write_records(contained.records(mill), 200, seed=1)
        mill.ok("node", "dataset", "add", "passes", contained.records(mill), "--title", "Passes", "--simulated")
        contained.serve_node(mill)
        mill.ok("peers", "accept", "--all")

        contained.agree([mill], *CLAUSES, "--min-tier", "T2")
        contained.job().refused(3, "T1", "T2")
        check = ("job", "check", contained.app, "--dataset", "mill-a/passes")
        institute.run(*check).refused(5)  # never tried more weakly than it would run

        contained.agree([mill], *CLAUSES, "--min-tier", "T1")
        done = contained.job()
        assert done.code == 0, done.err
        institute.ok("job", "result", contained.job_id(), "-o", tmp_path / "result")
        (path,) = (path for path in (tmp_path / "result/receipts").iterdir() if "proof" not in path.name)
        receipt = Receipt.read(Envelope.from_bytes(path.read_bytes()))
        assert (receipt.outcome, receipt.isolation.tier) == ("ok", "T1")
        assert {one["id"]: one["tier"] for one in institute.ok("consortium", "roster").json["members"]} == {
            "institute": "T1",
            "mill-a": "T1",
        }
        for party in contained.parties:
            (started,) = (one for one in contained.entries(party) if one["fields"].get("event") == "started")
            assert started["fields"]["tier"] == "T1", json.dumps(started)
            party.ok("verify", party.home, "--root", contained.fingerprint)
    finally:
        contained.stop()
