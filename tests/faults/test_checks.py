"""The checks themselves: each finds the fault that it is there for, planted in a copy of a home at rest."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.ledger import LedgerError
from tests.faults import checks, consortium
from tests.faults.checks import Account, BrokenPromiseError


@pytest.fixture(scope="module")
def rested(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, list[bytes]]]:
    """Homes of a mill and of the institute after a job, and the bundles that the mill gave."""
    with consortium.running(tmp_path_factory.mktemp("rested"), ("mill-a",)) as parties:
        parties.institute.ok(*parties.request())
        mill, institute = parties.mills[0].home, parties.institute.home
        bundles = [path.read_bytes() for path in institute.glob("jobs/*/receipts/*.proof.json")]
    assert len(bundles) == 3
    yield mill, institute, bundles


@pytest.fixture
def mill(rested: tuple[Path, Path, list[bytes]], tmp_path: Path) -> Path:
    """A copy of the mill's home, to be spoiled."""
    copy = shutil.copytree(rested[0], tmp_path / "mill-a")
    checks.check_settled(copy)
    checks.check_uses(copy)
    checks.check_no_leftovers(copy)
    return copy


@pytest.fixture
def institute(rested: tuple[Path, Path, list[bytes]], tmp_path: Path) -> Path:
    """A copy of the coordinator's home, to be spoiled."""
    copy = shutil.copytree(rested[1], tmp_path / "institute")
    assert list(checks.check_jobs(copy).values()) == ["done"]
    return copy


def change(database: Path, *statements: str) -> None:
    """Change a store behind its owner's back."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


LAST = "(SELECT max(idx) FROM entry)"


def test_an_acknowledged_entry_that_is_gone(mill: Path, rested: tuple[Path, Path, list[bytes]]) -> None:
    account = Account(mill)
    for bundle in rested[2]:
        account.hold(bundle)
    account.check()
    database = mill / "ledger" / "ledger.db"
    newest = max(account.given)
    change(database, f"DELETE FROM entry WHERE idx >= {newest}")
    with pytest.raises(BrokenPromiseError, match="gone"):
        account.check(whole=False)
    with pytest.raises(BrokenPromiseError, match="gone"):
        Account(mill, given=account.given).check(whole=False)


def test_an_entry_that_was_exchanged(mill: Path) -> None:
    account = Account(mill)
    account.check()
    change(mill / "ledger" / "ledger.db", f"UPDATE entry SET leaf = zeroblob(32) WHERE idx = {LAST}")
    with pytest.raises(BrokenPromiseError, match="gone"):
        account.check(whole=False)
    with pytest.raises(LedgerError):
        Account(mill).check()


def test_an_intent_left_open(mill: Path) -> None:
    database = mill / "ledger" / "ledger.db"
    (intent,) = checks.rows(database, "SELECT max(idx) FROM entry WHERE kind = 'intent'")[0]
    change(database, f"DELETE FROM entry WHERE kind = 'outcome' AND ref = {intent}")
    assert checks.open_intents(mill) == [intent]
    with pytest.raises(BrokenPromiseError, match="without an OUTCOME"):
        checks.check_settled(mill)
    with pytest.raises(BrokenPromiseError, match="has 0 outcomes"):
        checks.check_aborted(mill, [intent])
    with pytest.raises(BrokenPromiseError, match="disagree on what is open"):
        checks.check_uses(mill)


def test_a_step_that_did_not_end_as_aborted(mill: Path) -> None:
    (intent,) = checks.rows(mill / "ledger" / "ledger.db", "SELECT max(idx) FROM entry WHERE kind = 'intent'")[0]
    with pytest.raises(BrokenPromiseError, match="ended as ok"):
        checks.check_aborted(mill, [intent])


def test_two_outcomes(mill: Path) -> None:
    database = mill / "ledger" / "ledger.db"
    change(database, "UPDATE entry SET ref = (SELECT max(idx) FROM entry WHERE kind = 'intent') WHERE kind = 'outcome'")
    with pytest.raises(BrokenPromiseError):
        checks.check_settled(mill)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM plan_use", "INSERT INTO plan_use (agreement, plan) VALUES ('a', 'b')"]
)
def test_a_use_too_few_or_too_many(mill: Path, statement: str) -> None:
    change(mill / "ledger" / "ledger.db", statement)
    with pytest.raises(BrokenPromiseError, match="uses are reserved"):
        checks.check_uses(mill)


@pytest.mark.parametrize("place", ["sessions/0123/data", "spool/x", "keys/.a.key.0123.tmp", ".keyong-work-1"])
def test_something_left_behind(mill: Path, place: str) -> None:
    (mill / place).mkdir(parents=True)
    with pytest.raises(BrokenPromiseError, match="left behind"):
        checks.check_no_leftovers(mill)


def test_a_session_that_may_stay(mill: Path) -> None:
    (mill / "sessions" / "0123").mkdir(parents=True)
    checks.check_no_leftovers(mill, ["sha256:0123"])


def test_a_process_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount something")
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(checks, "SESSION_END_SECONDS", 0.1)
    checks.check_no_processes(tmp_path)
    script = f'mount --bind "{tmp_path}/data" /mnt && echo up && exec cat'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with pytest.raises(BrokenPromiseError, match="live on"):
            checks.check_no_processes(tmp_path)
        process.kill()


@pytest.mark.parametrize(
    "name", ["summary.json", "model.safetensors", "receipts/*.receipt.json", "receipts/*.proof.json"]
)
def test_half_a_file_in_a_result(institute: Path, name: str) -> None:
    path = next(institute.glob(f"jobs/*/{name}"))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BrokenPromiseError, match="half a file"):
        checks.check_jobs(institute)


def test_a_summary_that_says_something_else(institute: Path) -> None:
    path = next(institute.glob("jobs/*/summary.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    with pytest.raises(BrokenPromiseError, match="the summary says failed"):
        checks.check_jobs(institute)


def test_a_job_that_nobody_runs(institute: Path) -> None:
    change(institute / "coordinator.db", "UPDATE job SET status = 'running'")
    with pytest.raises(BrokenPromiseError, match="are open"):
        checks.check_jobs(institute)


def test_a_result_that_is_gone(institute: Path) -> None:
    next(institute.glob("jobs/*/model.safetensors")).unlink()
    with pytest.raises(BrokenPromiseError, match="without its result"):
        checks.check_jobs(institute)
