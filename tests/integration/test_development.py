"""inv8: a consortium without isolation (T0), by commands alone: each word that is missing is asked for, and every record of
the job that then runs on made-up rows says what it ran in."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.statements import Envelope, Receipt
from tests.integration.apps import server_with, write_app
from tests.integration.consortium import PURPOSE, Consortium, write_records
from tests.integration.parties import Party

ALONE = server_with("strategies.FedAvg(min_available_nodes=1, min_train_nodes=1, fraction_evaluate=0.0)")
CLAUSES = ("--purpose", PURPOSE, "--expires", "1d", "--protection", "none", "--min-participants", "1")
USER = 65534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


class Ordinary(Party):
    """A party that is no root, whoever runs the tests."""

    def command(self, *arguments: str | Path, form: str = "text") -> list[str]:
        return [*(AS_USER if os.geteuid() == 0 else []), *super().command(*arguments, form=form)]


@pytest.fixture
def consortium(isolating: None) -> Iterator[Consortium]:
    """Its homes lie where an ordinary user reaches them; a refused T0 of root's has homes of its own."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    folder = Path(tempfile.mkdtemp(prefix="keyong-t0-", dir="/var/tmp"))
    try:
        found = Consortium(folder, ("mill-a",), party=Ordinary)
        found.app = write_app(folder / "alone", server=ALONE)
        if os.geteuid() == 0:
            for place in (folder, *folder.rglob("*")):
                os.chown(place, USER, USER)
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own(path: Path) -> None:
    """What root wrote for a party is the party's."""
    if os.geteuid() == 0:
        for place in (path.parent, path):
            os.chown(place, USER, USER)


def test_a_job_on_made_up_rows_where_nothing_is_isolated(consortium: Consortium) -> None:
    institute, (mill,) = consortium.institute, consortium.mills
    found = ("consortium", "init", "--name", "Mills", "--member", "institute", "--entity", "Institute")
    institute.ok(*found, "--address", consortium.address)
    institute.run("coordinator", "serve", "--development").refused(5, "floor of isolation is T2")
    told = institute.ok("node", "tier", "T0", form="text").err
    assert "isolates nothing" in told and "--simulated" in told
    consortium.fingerprint = institute.ok("whoami").json["consortium"]["fingerprint"]
    try:
        institute.serve("coordinator", "serve", "--development", until="ready")
        mill.ok("join", consortium.invite("mill-a"), "--fingerprint", consortium.fingerprint, "--accept-tier", "T0")
        write_records(consortium.records(mill), 200, seed=1)
        own(consortium.records(mill))
        add = ("node", "dataset", "add", "passes", consortium.records(mill), "--title", "Passes")
        mill.ok(*add)
        mill.serve("node", "serve", "--development", until="attached")
        mill.ok("peers", "accept", "--all")
        assert mill.ok("node", "status").json["tier"] == "T0"

        (offer,) = consortium.agree([mill], *CLAUSES)
        consortium.job().refused(3, "the coordinator serves for development, without isolation (T0)")
        check = ("job", "check", consortium.app, "--dataset", "mill-a/passes", "--development")
        institute.run(*check).refused(3, "isolates nothing (T0)", "demands T2")
        mill.ok("agreement", "revoke", offer["id"])
        tried = institute.ok(*check)
        assert tried.json["ok"] and tried.json["tier"] == "T0"
        assert "DEVELOPMENT" in institute.ok(*check, form="text").err
        (offer,) = consortium.agree([mill], *CLAUSES, "--min-tier", "T0")
        consortium.job().refused(3, "not-made-up")
        refused = [one["fields"]["code"] for one in consortium.entries(mill, "denied")]
        assert refused[-1] == "not-made-up", refused

        mill.ok("node", "dataset", "remove", "passes")
        mill.ok(*add, "--simulated")
        done = consortium.job()
        assert done.code == 0, done.err
        assert done.err.count("DEVELOPMENT") >= 2, "said of the plan, and of the job that ended"
        result = consortium.folder / "result"
        told = institute.ok("job", "result", consortium.job_id(), "-o", result, form="text").err
        assert "DEVELOPMENT" in told
        assert json.loads((result / "summary.json").read_text())["development"] is True
        (path,) = (path for path in (result / "receipts").iterdir() if "proof" not in path.name)
        receipt = Receipt.read(Envelope.from_bytes(path.read_bytes()))
        assert (receipt.outcome, receipt.isolation.tier) == ("ok", "T0")
        assert {one["tier"] for one in institute.ok("consortium", "roster").json["members"]} == {"T0"}
        for party in consortium.parties:
            started = [one for one in consortium.entries(party) if one["fields"].get("event") == "started"]
            assert [one["fields"]["tier"] for one in started] == ["T0"]
            party.ok("verify", party.home, "--root", consortium.fingerprint)
    finally:
        consortium.stop()


def test_inv8_root_serves_no_job_without_isolation(isolating: None, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    alone = Consortium(tmp_path, ())
    found = ("consortium", "init", "--name", "Mills", "--member", "institute", "--entity", "Institute")
    alone.institute.ok(*found, "--address", alone.address, "--accept-tier", "T0")
    alone.institute.run("coordinator", "serve", "--development").refused(5, "job code would be root")
