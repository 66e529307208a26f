"""Jobs in a list, of which several may have begun in one second."""

from __future__ import annotations

from pathlib import Path

from coordinator.migrations import COORDINATOR_STORE
from coordinator.store import CoordinatorStore, JobRow
from federation.stores import open_engine


def _row(job: str, submitted: str) -> JobRow:
    return JobRow(
        id=job, plan_digest=f"sha256:{job}", requester="institute", purpose="", status="done", rounds=1, participants=1,
        protection="", submitted=submitted, envelope=b"",
    )  # fmt: skip


def test_the_newest_job_is_first_also_where_the_one_before_took_less_than_a_second(tmp_path: Path) -> None:
    store = CoordinatorStore(open_engine(tmp_path / "coordinator.db", COORDINATOR_STORE))
    for job in ("m", "z", "a", "k"):  # neither in the order of their names nor against it
        assert store.put_job(_row(job, "2026-11-23T07:00:00Z"), ["institute", "mill-a"])
    store.put_job(_row("n", "2026-11-23T06:59:59Z"), ["institute", "mill-a"])
    assert [row.id for row in store.jobs("mill-a", 10)] == ["k", "a", "z", "m", "n"]
    assert [row.id for row in store.jobs("mill-a", 1)] == ["k"]
