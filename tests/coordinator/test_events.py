"""Who follows a job: events come in batches, its end at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator import events
from coordinator.events import EventFeed
from coordinator.migrations import COORDINATOR_STORE
from coordinator.store import CoordinatorStore, JobRow
from federation.stores import open_engine

JOB = "urn:uuid:00000000-0000-4000-8000-000000000001"
LONG = 600.0


@pytest.fixture
async def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventFeed:
    """A feed whose job has told its first event, and whose batches last longer than any test."""
    monkeypatch.setattr(events, "GATHER_SECONDS", LONG)
    store = CoordinatorStore(open_engine(tmp_path / "coordinator.db", COORDINATOR_STORE))
    row = JobRow(
        id=JOB, plan_digest="", requester="institute", purpose="", status="submitted", rounds=1, participants=3,
        protection="fed:masked", submitted="2026-01-01T00:00:00Z", envelope=b"",
    )  # fmt: skip
    store.put_job(row, ["institute"])
    feed = EventFeed(store)
    await feed.tell(JOB, "queued", {})
    return feed


async def following(feed: EventFeed) -> asyncio.Task[list[str]]:
    """The kinds that a follower who knows the first event is told next; it waits for them when this returns."""

    async def follow() -> list[str]:
        return [event.kind for event in (await feed.after(JOB, 1, LONG)).events]

    task = asyncio.create_task(follow())
    while not feed._waiting:
        await asyncio.sleep(0)
    return task


async def test_the_end_of_a_job_is_told_at_once(feed: EventFeed) -> None:
    follower = await following(feed)
    await feed.tell(JOB, "started", {})
    while not feed._ending:  # it gathers
        await asyncio.sleep(0)
    await feed.end(JOB, "done", 1, {})
    async with asyncio.timeout(LONG / 10):
        assert await follower == ["started", "done"]
    assert not feed._ending and not feed._waiting


async def test_an_end_that_follows_nothing_is_told_at_once(feed: EventFeed) -> None:
    follower = await following(feed)
    await feed.end(JOB, "done", 1, {})
    async with asyncio.timeout(LONG / 10):
        assert await follower == ["done"]


async def test_what_is_not_the_end_is_told_together(feed: EventFeed) -> None:
    follower = await following(feed)
    for kind in ("started", "round"):
        await feed.tell(JOB, kind, {})
    done, _ = await asyncio.wait([follower], timeout=0.05)
    assert not done
    await feed.end(JOB, "done", 1, {})
    assert await follower == ["started", "round", "done"]


async def test_what_is_told_at_once_is_kept_in_its_order(feed: EventFeed) -> None:
    """However it is written, in one or in several; each of them is durable when it has been told."""
    told = [feed.tell(JOB, "permitted", {"node": f"mill-{number}"}) for number in range(5)]
    await asyncio.gather(*told)
    events = (await feed.after(JOB, 0, 0)).events
    assert [one.number for one in events] == [1, 2, 3, 4, 5, 6]
    assert [one.data.get("node") for one in events[1:]] == [f"mill-{number}" for number in range(5)]


async def test_an_event_that_cannot_be_kept_is_told_to_whoever_told_it(
    feed: EventFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> list[int]:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(feed._store, "add_events", full)
        found = await asyncio.gather(*(feed.tell(JOB, "round", {}) for _ in range(2)), return_exceptions=True)
    assert [type(one) for one in found] == [OSError, OSError]
    await feed.tell(JOB, "started", {})
    assert [one.kind for one in (await feed.after(JOB, 1, 0)).events] == ["started"]


async def test_an_event_that_cannot_be_kept_takes_no_other_with_it(feed: EventFeed) -> None:
    """What one job's node says is no text; what is told beside it, of other jobs, is kept all the same."""
    told = [feed.tell(JOB, "permitted", {"node": name}) for name in ("mill-a", "mill-b", "\ud800", "mill-c")]
    found = await asyncio.gather(*told, return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [False, False, True, False]
    events = (await feed.after(JOB, 1, 0)).events
    assert [one.data["node"] for one in events] == ["mill-a", "mill-b", "mill-c"]
