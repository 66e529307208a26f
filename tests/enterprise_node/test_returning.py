"""A node whose link, or whose process, went in the middle: what it answers when it is asked again, what it may try."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node import record as record_module
from enterprise_node import settlement
from enterprise_node.answers import KeptReplies, KeptReply, RestsOn
from enterprise_node.line import Line
from enterprise_node.record import Record
from enterprise_node.recovery import close_open_steps
from enterprise_node.session import remove_tree
from enterprise_node.store import NodeStore
from federation.errors import KeyongError
from federation.holdings import Holdings, open_engine
from federation.home import Home
from keyong.backing_up import back_up
from keyong.restoring import restore


async def opened(world: Any, **changes: Any) -> Any:
    plan = world.plan(world.agreement(), **changes)
    assert (await world.open(plan)).permitted
    return plan


def hang(world: Any) -> asyncio.Event:
    """From now on a step does not end before it is killed; the event says that one began."""
    began = asyncio.Event()

    async def forever() -> Any:
        began.set()
        await asyncio.Event().wait()

    world.reply = forever
    return began


def wait_for(world: Any) -> tuple[asyncio.Event, asyncio.Event]:
    """From now on a step waits until the second event is set; the first says that one began."""
    began, go = asyncio.Event(), asyncio.Event()
    good = world.reply

    async def slowly() -> Any:
        began.set()
        await go.wait()
        return await good()

    world.reply = slowly
    return began, go


async def kill_a_step(world: Any, plan: Any, **changes: Any) -> None:
    good = world.reply
    began = hang(world)
    running = asyncio.create_task(world.invoke(plan, **changes))
    await began.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.reply = good
    assert (await world.open(plan)).permitted


def restarted(world: Any) -> None:
    """The node's next process: the same home, none of the memory."""
    world.record.ledger.close()
    for leftover in world.home.folder("sessions").iterdir():
        remove_tree(leftover)
    world.record = Record(world.home.open_ledger())
    world.line = Line(world.home, world.record, world.store, world.holdings, world.runtime, world.clock)


# -- what may be tried again ------------------------------------------------------------------------------------------


async def test_a_step_that_was_killed_may_be_tried_again_under_a_higher_attempt(world: Any) -> None:
    plan = await opened(world)
    await kill_a_step(world, plan)
    receipt, _ = await world.invoke(plan, attempt=2)
    assert (receipt.outcome, receipt.round, receipt.attempt) == ("ok", 1, 2)
    assert world.record.uses(receipt.decision.agreement) == 1
    assert (await world.invoke(plan, 2))[0].outcome == "ok"


@pytest.mark.parametrize("changes", [{"mode": "again"}, {"attempt": 2, "stage": "evaluate"}], ids=["attempt", "stage"])
async def test_nothing_but_the_attempt_may_differ(world: Any, changes: dict[str, Any]) -> None:
    agreement = world.agreement(actions=["fed:train", "fed:evaluate"])
    plan = world.plan(agreement, actions=("fed:train", "fed:evaluate"))
    assert (await world.open(plan)).permitted
    await kill_a_step(world, plan)
    assert (await world.invoke(plan, **changes))[0].code == "replay"


async def test_a_round_is_tried_three_times_at_most(world: Any) -> None:
    plan = await opened(world)
    for attempt in (1, 2, 3):
        await kill_a_step(world, plan, attempt=attempt)
    assert (await world.invoke(plan, attempt=4))[0].code == "replay"
    assert (await world.invoke(plan, 2))[0].outcome == "ok"


async def _again_after(world: Any, outcome: str, content: Any) -> str:
    """Let a step end as ``outcome``, and ask for the round again under a higher attempt; returns what that ends as."""
    plan = await opened(world)
    good = world.reply

    async def bad() -> Any:
        if outcome == "failed":
            raise KeyongError("broken", code="app-exception")
        return content(arrays={"arrays": {"0": np.full(2, np.nan, dtype=np.float32)}})

    if outcome != "ok":
        world.reply = bad
    assert (await world.invoke(plan))[0].outcome == outcome
    world.reply = good
    assert (await world.open(plan)).permitted
    receipt, _ = await world.invoke(plan, attempt=2)
    return str(receipt.code or receipt.outcome)


@pytest.mark.parametrize("outcome", ["ok", "denied", "failed"])
async def test_inv3_a_step_that_was_not_killed_is_never_taken_again(world: Any, content: Any, outcome: str) -> None:
    assert await _again_after(world, outcome, content) == "replay"


async def test_inv3_without_that_check_one_round_would_leave_twice(
    world: Any, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "check_new", lambda *_: None)
    assert await _again_after(world, "ok", content) == "ok"


async def test_tries_of_a_round_count_as_one_round_of_the_plan(world: Any) -> None:
    plan = await opened(world, rounds=1)
    await kill_a_step(world, plan)
    assert (await world.invoke(plan, attempt=2))[0].outcome == "ok"
    assert (await world.invoke(plan, 2))[0].code == "rounds-exceeded"


# -- what is answered again -------------------------------------------------------------------------------------------


async def test_a_lost_link_does_not_stop_a_step_and_its_answer_waits(world: Any) -> None:
    plan = await opened(world)
    step = world.step(plan)
    began, go = wait_for(world)
    first = asyncio.create_task(world.line.invoke(plan.digest, *step, lost=lambda: True))
    await began.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    again = asyncio.create_task(world.line.invoke(plan.digest, *step))
    go.set()
    answer = await again
    assert world.receipt(answer).outcome == "ok"
    assert await world.line.invoke(plan.digest, *step) is answer
    assert world.calls == 1 and len(world.entries("intent")) == 1


async def _asked_after_a_restart(world: Any, *, in_order: bool) -> Any:
    """Answer a step, restart, open again, ask for the same step; returns the receipt it then gives."""
    plan = await opened(world)
    step = world.step(plan)
    before = await world.line.invoke(plan.digest, *step)
    if in_order:
        await world.line.close()
    restarted(world)
    assert (await world.open(plan)).permitted
    answer = await world.line.invoke(plan.digest, *step)
    assert world.calls == 1
    receipt = world.receipt(answer)
    if receipt.outcome == "ok":
        assert receipt == world.receipt(before)
        assert b"".join(map(bytes, answer.body)) == b"".join(map(bytes, before.body)) != b""
    assert (await world.invoke(plan, 2))[0].outcome == "ok", "the job does not go on"
    return receipt


async def test_an_answer_outlives_a_killed_process(world: Any) -> None:
    assert (await _asked_after_a_restart(world, in_order=False)).outcome == "ok"


async def test_a_large_answer_outlives_a_process_that_stops_in_order(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "SMALL_BYTES", 0)
    assert (await _asked_after_a_restart(world, in_order=True)).outcome == "ok"
    assert not list(world.home.folder("answers").iterdir()), "the next step left it behind"


async def test_a_large_answer_is_lost_with_a_killed_process_and_not_computed_again(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "SMALL_BYTES", 0)
    receipt = await _asked_after_a_restart(world, in_order=False)
    assert (receipt.outcome, receipt.code) == ("denied", "replay")


async def test_a_step_that_a_crash_cut_short_is_told_as_killed_when_it_is_asked_for_again(world: Any) -> None:
    plan = await opened(world)
    step = world.step(plan)
    began = hang(world)
    running = asyncio.create_task(world.line.invoke(plan.digest, *step))
    await began.wait()
    record = Record(world.home.open_ledger())
    assert await close_open_steps(record, world.home.key("statement"), "mill", world.clock()) == 1
    record.ledger.close()
    await world.line.close()
    await asyncio.gather(running, return_exceptions=True)
    restarted(world)
    assert (await world.open(plan)).permitted
    receipt = world.receipt(await world.line.invoke(plan.digest, *step))
    assert (receipt.outcome, receipt.code) == ("killed", "aborted")


async def _asked_with_a_changed_file(world: Any) -> str:
    plan = await opened(world)
    step = world.step(plan)
    await world.line.invoke(plan.digest, *step)
    (path,) = world.home.folder("answers").iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    restarted(world)
    assert (await world.open(plan)).permitted
    receipt = world.receipt(await world.line.invoke(plan.digest, *step))
    return str(receipt.code or receipt.outcome)


async def test_inv3_a_kept_reply_that_its_receipt_does_not_name_does_not_leave(world: Any) -> None:
    assert await _asked_with_a_changed_file(world) == "replay"


async def test_inv3_without_that_check_it_would_leave(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptReply, "check", lambda *_: None)
    assert await _asked_with_a_changed_file(world) == "ok"


@pytest.mark.parametrize("end", ["closed", "revoked"])
async def test_a_job_that_is_over_leaves_no_reply_behind(world: Any, end: str) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    await world.invoke(plan)
    folder = world.home.folder("answers")
    assert len(list(folder.iterdir())) == 1
    await (world.line.close_job(plan.digest) if end == "closed" else world.line.revoke(agreement.digest))
    assert not list(folder.iterdir())


@pytest.mark.parametrize("end", ["revoked", "plan expired", "agreement expired"])
async def test_a_kept_reply_goes_with_what_it_rests_on_though_no_job_is_open(world: Any, end: str) -> None:
    ends = {"plan expired": timedelta(hours=7), "agreement expired": timedelta(hours=2)}.get(end, timedelta())
    hours = 1 if end == "agreement expired" else 24
    agreement = world.agreement(expires=world.clock() + timedelta(hours=hours))
    plan = world.plan(agreement)
    assert (await world.open(plan)).permitted
    assert (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()
    folder = world.home.folder("answers")
    (folder / "torn.partial").write_bytes(b"half")
    restarted(world)
    await world.line.sweep()
    assert [path.name for path in folder.iterdir()] == [plan.digest.removeprefix("sha256:")]
    if end == "revoked":
        world.holdings.move(agreement.digest, "revoked")
    world.clock.ahead = ends
    await world.line.sweep()
    assert not list(folder.iterdir())


def test_kept_replies_take_bounded_room_and_the_oldest_goes_first(tmp_path: Path) -> None:
    kept = KeptReplies(tmp_path, limit=3000)
    rests = RestsOn("sha256:a", datetime(2030, 1, 1, tzinfo=UTC))
    for number in range(4):
        kept.keep(f"sha256:{number}", "i", KeptReply("", (bytes(800),)), rests)
        os.utime(tmp_path / str(number), (number, number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3"]
    assert kept.find("sha256:0", "i") is None and kept.find("sha256:3", "i") is not None
    kept.keep("sha256:3", "j", KeptReply("", (bytes(4000),)), rests)
    assert not (tmp_path / "3").exists(), "an older step's reply is no answer any more"


# -- stopping in order ------------------------------------------------------------------------------------------------


async def test_a_node_that_drains_takes_no_new_step_and_lets_the_running_one_end(world: Any) -> None:
    plan = await opened(world)
    began, go = wait_for(world)
    running = asyncio.create_task(world.invoke(plan))
    await began.wait()
    draining = asyncio.create_task(world.line.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(KeyongError, match="stopping"):
        await world.invoke(plan, 2)
    go.set()
    await draining
    assert (await running)[0].outcome == "ok"


# -- a home that was restored -----------------------------------------------------------------------------------------


async def _asked_after_a_restore(world: Any, tmp_path: Path) -> tuple[Any, Any]:
    """What a node that was restored from a backup answers: to a plan that took its step since, and to a new one."""
    plan = world.plan(agreement := world.agreement(), issued=world.clock() - timedelta(seconds=5))
    back_up(world.home, tmp_path / "copy")
    assert (await world.open(plan)).permitted
    assert (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()
    old = world.home.path
    world.home = restore(tmp_path / "copy", tmp_path / "again").home
    shutil.copytree(old / "keys", world.home.path / "keys")
    engine = open_engine(world.home.path / "store.db")
    world.store, world.holdings = NodeStore(engine), Holdings(engine)
    restarted(world)
    return await world.open(plan), await world.open(world.plan(agreement))


async def test_inv1_a_restored_node_takes_no_plan_from_before(world: Any, tmp_path: Path) -> None:
    before, after = await _asked_after_a_restore(world, tmp_path)
    assert (before.permitted, before.code) == (False, "restored") and after.permitted


async def test_inv1_without_that_it_would_take_steps_again_that_it_forgot(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Home, "mark_restored", lambda home: None)
    before, _ = await _asked_after_a_restore(world, tmp_path)
    assert before.permitted
