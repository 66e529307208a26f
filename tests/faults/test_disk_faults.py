"""inv1, inv2, inv7: a disk that is full, fails or is slow: refused and said so, nothing half-written, then it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import checks, injection
from tests.faults.consortium import ForkedConsortium
from tests.faults.forked import ForkedParty
from tests.faults.injection import RENAME, SYNC, TRUNCATE, WRITE
from tests.integration.parties import Ended, until


@pytest.fixture
def mill(faulty: ForkedConsortium) -> Iterator[ForkedParty]:
    """The mill, serving; the next job runs when the test is over."""
    mill = faulty.mills[0]
    yield mill
    assert mill.service is not None and faulty.institute.service is not None
    mill.service.faults.disarm()
    faulty.institute.service.faults.disarm()
    if mill.service.process.poll() is not None:
        faulty.serve_node(mill)
    again(faulty)


def job(faulty: ForkedConsortium, *more: str) -> Ended:
    """Run a job of one round."""
    return faulty.institute.run(*faulty.request(*more, rounds=1), form="json")


def told(ended: Ended) -> dict[str, Any]:
    """The job's last event."""
    return next((line for line in reversed(ended.lines) if line.get("event") == "end"), {})


def again(faulty: ForkedConsortium) -> None:
    """With a whole disk the next job runs, and everything that must hold holds."""
    mill = faulty.mills[0]
    faulty.attached_again(mill, 0)
    for one in faulty.institute.ok("job", "list").json:
        if one["status"] == "interrupted":  # given up: its nodes keep it open until then
            faulty.institute.ok("job", "cancel", one["job"])
    ended = job(faulty)
    assert ended.code == 0, ended.err + ended.out
    until(lambda: not checks.open_intents(mill.home), f"open: {checks.open_intents(mill.home)}")
    checks.check_settled(mill.home)
    checks.check_uses(mill.home)
    checks.check_no_leftovers(mill.home)
    checks.check_jobs(faulty.institute.home)
    for party in faulty.parties:
        checks.Account(party.home).check()


def no_traceback(party: ForkedParty, ended: Ended) -> None:
    """Nobody reads a traceback."""
    assert party.service is not None
    assert "Traceback" not in ended.err + ended.out
    assert "Traceback" not in party.service.text, party.service.text


FAULTS = {
    "full": injection.no_space("ledger/ledger.db", WRITE | TRUNCATE),
    "failing": injection.io_error("ledger/ledger.db", WRITE),
    "fsync": injection.io_error("ledger/ledger.db", SYNC),
}


@pytest.mark.parametrize("name", FAULTS)
def test_inv1_inv2_nothing_runs_without_a_durable_intent(
    faulty: ForkedConsortium, mill: ForkedParty, name: str
) -> None:
    assert mill.service is not None
    before = len(checks.rows(mill.home / "ledger" / "ledger.db", "SELECT idx FROM entry"))
    mill.service.faults.arm(FAULTS[name])
    ended = job(faulty)
    assert mill.service.faults.hit
    mill.service.faults.disarm()
    assert ended.code == 5, ended.out + ended.err
    assert "ledger-unavailable" in ended.out + ended.err
    no_traceback(mill, ended)
    assert not checks.sessions(mill.home), "rows were laid out without an INTENT"
    after = checks.rows(
        mill.home / "ledger" / "ledger.db", "SELECT idx FROM entry WHERE kind = 'intent' AND idx >= ?", before
    )
    if name != "fsync":
        assert not after
    # What could not be synced may stand all the same. Then it says that nothing came of it.
    until(lambda: not checks.open_intents(mill.home), "the step is not closed when the disk is whole again", 10)
    checks.check_aborted(mill.home, [index for (index,) in after])


def test_inv2_an_outcome_that_cannot_be_written_lets_nothing_leave(faulty: ForkedConsortium, mill: ForkedParty) -> None:
    assert mill.service is not None
    running = faulty.institute.start(*faulty.request(rounds=1))
    until(lambda: checks.open_intents(mill.home), "no step began")
    new = checks.open_intents(mill.home)
    mill.service.faults.arm(injection.io_error("ledger/ledger.db", SYNC))
    assert running.ended() == 5, f"{running.events}\n{running.text}"
    assert mill.service.faults.hit
    assert "round" not in {one["event"] for one in running.events}
    assert "Traceback" not in running.text + mill.service.text
    receipts = list((faulty.institute.home / "jobs").rglob("*.proof.json"))
    account = checks.Account(mill.home)
    for path in receipts:
        account.hold(path.read_bytes())
    assert not any(settled(mill, index) == new[0] for index in account.given), "a receipt left"
    mill.service.faults.disarm()
    until(lambda: not checks.open_intents(mill.home), "the step is not closed when the disk is whole again", 10)
    until(lambda: not checks.sessions(mill.home), "the snapshot stays")


def settled(mill: ForkedParty, index: int) -> int | None:
    """The entry that an entry settles."""
    found = checks.rows(mill.home / "ledger" / "ledger.db", "SELECT ref FROM entry WHERE idx = ?", index)
    return found[0][0] if found else None


def test_inv2_after_a_failed_fsync_nothing_is_acknowledged_that_is_not_durable(
    faulty: ForkedConsortium, mill: ForkedParty
) -> None:
    """The log's sync fails, and every sync of the database: what stands in the page cache may never reach the disk."""
    assert mill.service is not None
    mill.service.faults.arm(injection.io_error("ledger/ledger.db", SYNC))
    ended = job(faulty)
    assert ended.code == 5, ended.out
    receipts = [line for line in ended.lines if line.get("event") == "round"]
    assert not receipts
    mill.service.kill()
    kept = checks.Account(mill.home)
    kept.check()
    faulty.serve_node(mill)
    kept.check()


def test_inv2_a_full_disk_elsewhere_in_the_home_ends_the_step_and_leaves_nothing(
    faulty: ForkedConsortium, mill: ForkedParty
) -> None:
    """No room for the snapshot of the rows: the step fails on record, and no half of it stays."""
    assert mill.service is not None
    mill.service.faults.arm(injection.no_space("/sessions/", WRITE | injection.MKDIR))
    ended = job(faulty)
    assert mill.service.faults.hit
    assert ended.code == 5, ended.out + ended.err
    no_traceback(mill, ended)
    assert not checks.sessions(mill.home)
    assert not checks.open_intents(mill.home)


def test_inv1_a_disk_that_is_really_full(faulty: ForkedConsortium, mill: ForkedParty) -> None:
    if not mill.home.is_mount():
        pytest.skip("needs the right to mount a small file system")
    assert mill.service is not None
    filler = mill.home / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    ended = job(faulty)
    assert ended.code == 5, ended.out + ended.err
    no_traceback(mill, ended)
    assert not checks.sessions(mill.home) and not checks.open_intents(mill.home)
    filler.unlink()


def test_a_slow_disk_only_slows(faulty: ForkedConsortium, mill: ForkedParty) -> None:
    assert mill.service is not None
    mill.service.faults.arm(injection.slow("mill-a/", 200))
    ended = job(faulty)
    assert mill.service.faults.hit >= 4
    assert ended.code == 0, ended.out + ended.err


COORDINATOR = {
    "store-full": injection.no_space("coordinator.db", WRITE | TRUNCATE),
    "store-fsync": injection.io_error("coordinator.db", SYNC),
    "result-full": injection.no_space("/partial/", WRITE, nth=4),
    "result-fails": injection.io_error("/jobs/", WRITE | RENAME, nth=2),
    "ledger-fsync": injection.io_error("ledger/ledger.db", SYNC),
}


@pytest.mark.parametrize("name", COORDINATOR)
def test_the_coordinators_disk(faulty: ForkedConsortium, mill: ForkedParty, name: str) -> None:
    """Its job ends with a clear error, or is interrupted by the next start; never half-done."""
    institute = faulty.institute
    assert institute.service is not None
    service = institute.service
    running = institute.start(*faulty.request(rounds=30))
    running.wait_for("round")
    service.faults.arm(COORDINATOR[name])
    until(lambda: service.faults.hit, "the fault is not met")
    if name.startswith("store"):  # nobody can be told before it has room again
        until(lambda: "job-not-ended" in service.text, "the job goes on")
        service.faults.disarm()
    code = running.ended()
    service.faults.disarm()
    assert code in (1, 5), f"{code}\n{running.events}\n{running.text}"
    assert "Traceback" not in running.text
    until(lambda: not checks.open_intents(mill.home), "the node goes on")
    marks = len(mill.service.events) if mill.service else 0
    if service.process.poll() is None and any(
        status in checks.OPEN for status in checks.check_jobs(institute.home, at_rest=False).values()
    ):
        service.kill()
        faulty.serve_coordinator()
        faulty.attached_again(mill, marks)
    statuses = checks.check_jobs(institute.home)
    assert list(statuses.values())[-1] in ("failed", "interrupted"), statuses
