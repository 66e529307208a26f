"""A disk that is full while a job is taken on, or gone on with: nothing stays half, and it is put right by itself."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from federation.errors import UnavailableError
from federation.ledger import Ledger, LedgerUnavailableError
from federation.wire import messages as m
from tests.coordinator.parties import FEDAVG, Consortium
from tests.coordinator.test_coordinator_resume import ROUNDS, SEEDED, interrupted


class FullDisk:
    """The ledger takes nothing for jobs, and the store no end of one, until there is room."""

    def __init__(self, live: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = False
        self.refused = 0
        service = live.service
        assert service is not None
        store, end = service.desk._store, service.desk._store.end_job
        submit = Ledger.submit

        def full_ledger(ledger: Ledger, kind: str, *arguments: Any, **named: Any) -> Any:
            if kind == "job" and not self.room:
                raise LedgerUnavailableError("the ledger cannot write")
            return submit(ledger, kind, *arguments, **named)

        def full_store(*arguments: Any) -> None:
            if not self.room:
                self.refused += 1
                raise OSError(errno.ENOSPC, "full")
            end(*arguments)

        monkeypatch.setattr(Ledger, "submit", full_ledger)
        monkeypatch.setattr(store, "end_job", full_store)
        monkeypatch.setattr("coordinator.scheduler.AGAIN_SECONDS", 0.05)

    async def made(self) -> None:
        """Wait until an end was refused more than once, then make room."""
        async with asyncio.timeout(20):
            while self.refused < 2:
                await asyncio.sleep(0.01)
        self.room = True


async def test_a_job_that_could_not_be_recorded_ends_once_there_is_room(live: Consortium, app: Any, monkeypatch: Any):
    async with live.serving():
        disk = FullDisk(live, monkeypatch)
        with pytest.raises(UnavailableError, match="cannot write"):
            await live.submit(live.plan(app(FEDAVG)), app(FEDAVG))
        (row,) = live.store.jobs("institute", 10)
        assert row.status == "submitted", "there was room for its end, and the test shows nothing"
        await disk.made()
        last = (await live.follow(row.id))[-1]
        assert (last.kind, last.data["code"]) == ("failed", "not-taken")
        assert live.store.job(row.id).status == "failed"


async def test_a_job_that_could_not_be_recorded_as_resumed_can_be_resumed_later(
    live: Consortium, app: Any, monkeypatch: Any
):
    job = await interrupted(live, app(SEEDED), 2)
    async with live.serving():
        disk = FullDisk(live, monkeypatch)
        with pytest.raises(UnavailableError, match="cannot write"):
            await live.call("job.resume", m.JobRef(job=job))
        assert live.store.job(job).status == "submitted", "there was room, and the test shows nothing"
        await disk.made()
        async with asyncio.timeout(20):
            while live.store.job(job).status != "interrupted":
                await asyncio.sleep(0.01)
        await live.call("job.resume", m.JobRef(job=job))
        last = (await live.follow(job))[-1]
    assert last.kind == "done", last.data
    assert [len(node.asked) for node in live.nodes[:2]] == [2 * ROUNDS] * 2
