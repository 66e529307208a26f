"""Masked rounds, nodes and coordinator together: exact whoever vanishes when, and nothing opened where too few are left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.exchange import RoundFailedError
from federation.jobs.codec import Content
from tests.masked import MaskedWorld, masked_world, trained


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    with masked_world(tmp_path, monkeypatch) as world:
        yield world


def close(got: Any, expected: Any) -> bool:
    """Equal to what the fixed-point encoding keeps."""
    return bool(np.allclose(got, expected, atol=1e-6, rtol=0))


async def test_a_masked_round_gives_the_mean_and_says_nothing_else(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    sent = world.model()
    done = await job.exchange(sent)
    assert done.aggregate is not None
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(world.mills, sent))
    assert (done.aggregate.count, done.aggregate.total_weight) == (4, 12)
    assert sorted(done.contributed) == world.mills and not done.fallen
    receipts = [answer.receipt for answer in done.answers]
    assert [one.outcome for one in receipts] == ["ok"] * 4
    assert {(one.weight, one.saturated, one.normalised, one.exception) for one in receipts} == {(0, 0, 0, "")}
    for mill in world.mills:
        kinds = [len(world.entries(mill, kind)) for kind in ("intent", "stage", "outcome")]
        assert kinds == [1, 1, 1]


def methods(job: Any, method: str) -> list[str]:
    """The nodes to which a message was sent, in order."""
    return [call.node for call in job.links.calls if call.method == method]


async def test_keys_are_shared_once_for_many_rounds_and_both_stages(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    sent = world.model()
    for stage in ("train", "evaluate", "train"):
        world.reply = lambda node, content, stage=stage: (
            trained(node, content) if stage == "train" else Content(metrics=trained(node, content).metrics)
        )
        done = await job.exchange(sent, stage)
        assert done.aggregate is not None and done.aggregate.count == 4
        sent = world.model(float(done.round))
    assert sorted(methods(job, "mask.keys")) == sorted(methods(job, "mask.shares")) == world.mills
    assert len(methods(job, "job.invoke")) == len(methods(job, "mask.open")) == 12


LOST: dict[str, tuple[str, str, bool]] = {
    "before it announces keys": ("mask.keys", "loses", False),
    "before it shares them": ("mask.shares", "loses", False),
    "before its step": ("job.invoke", "loses", False),
    "after its step": ("job.invoke", "loses_answer", False),
    "before it acknowledges": ("mask.survivors", "loses", True),
    "before it releases": ("mask.open", "loses", True),
    "after it released": ("mask.open", "loses_answer", True),
}
"""At which message a node vanishes, on its way there or back, and whether its vector is in the sum then."""


@pytest.mark.parametrize("when", LOST)
async def test_one_of_four_may_vanish_at_any_stage_and_the_round_is_exact(world: MaskedWorld, when: str) -> None:
    method, way, included = LOST[when]
    job = await world.job(world.plan()).open()
    setattr(job.links, way, lambda call: (call.node, call.method) == ("mill-d", method))
    sent = world.model()
    done = await job.exchange(sent)
    counted = world.mills if included else world.mills[:3]
    assert done.aggregate is not None and done.aggregate.count == len(counted)
    assert done.contributed == counted
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(counted, sent))
    assert "mill-d" not in job.cohort.live
    assert ("mill-d" in job.cohort.out) is not included, "who is not in an opened sum stays out"
    job.links.loses = job.links.loses_answer = lambda call: False
    after = await job.exchange(world.model(1.0))
    assert after.contributed == (world.mills if included else world.mills[:3])


async def test_with_too_few_left_the_round_fails_and_nothing_is_opened(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    job.links.loses_answer = lambda call: call.method == "job.invoke" and call.node in ("mill-c", "mill-d")
    job.links.loses = lambda call: call.node in ("mill-c", "mill-d") and call.method == "job.open"
    with pytest.raises(RoundFailedError, match="too few of 4"):
        await job.exchange(world.model())
    assert not methods(job, "mask.survivors") and not methods(job, "mask.open")
    for mill in ("mill-a", "mill-b"):
        assert [entry["code"] for entry in world.entries(mill, "outcome")] == ["round-aborted"]
        assert not world.nodes[mill]._record.openings()


async def test_an_attempt_that_opened_nothing_is_made_again_with_fresh_keys(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    lost = {"mill-c", "mill-d"}
    job.links.loses_answer = lambda call: call.method == "job.invoke" and call.node in lost

    def back(call: Any) -> None:
        if call.method == "mask.abort":
            lost.clear()

    job.links.changes = back
    sent = world.model()
    done = await job.exchange(sent)
    assert done.aggregate is not None and done.aggregate.count >= 3
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(done.contributed, sent))
    announced = [call.header["attempt"] for call in job.links.calls if call.method == "mask.keys"]
    assert set(announced) == {1, 2}
    receipts = {(one.node, one.attempt): one for one in (answer.receipt for answer in world.answers)}
    assert receipts["mill-a", 1].outcome == "killed" and receipts["mill-a", 2].outcome == "ok"


async def test_a_node_that_was_restarted_in_the_round_has_vanished_from_it(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()

    def restart(call: Any) -> bool:
        if (call.node, call.method) == ("mill-d", "mask.survivors"):
            world.restart("mill-d")
        return False

    job.links.loses = restart
    done = await job.exchange(world.model())
    assert done.aggregate is not None and done.aggregate.count == 4, "its vector had arrived"
    assert job.cohort.away == {"mill-d": "no-such-job"}


async def test_a_revocation_before_the_opening_withdraws_the_vector_and_the_others_go_on(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    told: list[Any] = []
    for mill in world.mills:
        world.nodes[mill].line.on_withdrawal = told.append

    async def revoke() -> None:
        await world.nodes["mill-d"].line.revoke(world.agreements["mill-d"])
        for one in told:
            job.links.withdrawals.note(one, "mill-d")

    seen = False

    original = job.links.call

    async def call(node: str, method: str, *rest: Any, **more: Any) -> Any:
        nonlocal seen
        if method == "mask.survivors" and not seen:
            seen = True
            await revoke()
        return await original(node, method, *rest, **more)

    job.links.call = call
    sent = world.model()
    done = await job.exchange(sent)
    assert told and done.contributed == world.mills[:3]
    assert done.aggregate is not None
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(world.mills[:3], sent))
    assert world.entries("mill-d", "outcome")[-1]["outcome"] == "killed"


async def test_an_older_node_is_named_as_the_side_to_upgrade(world: MaskedWorld) -> None:
    job = world.job(world.plan())
    job.links.versions["mill-b"] = 2
    await job.open()
    assert job.cohort.out == {"mill-b": "protocol-version"}
    assert ("denied", {"node": "mill-b", "code": "protocol-version", "clause": {}}) in world.told


@pytest.mark.parametrize("when", ["mask.keys", "job.invoke", "mask.survivors", "mask.open"])
async def test_a_job_goes_on_after_the_coordinator_died_at_any_stage(world: MaskedWorld, when: str) -> None:
    plan = world.plan()
    first = await world.job(plan).open()
    await first.exchange(world.model())

    class DiedError(BaseException):
        pass

    def die(call: Any) -> bool:
        if call.method == when and call.node == "mill-c":
            raise DiedError
        return False

    if when == "mask.keys":
        first.rounds._masked._setup.held = None
    first.links.loses_answer = die
    sent = world.model(1.0)
    with pytest.raises(DiedError):
        await first.exchange(sent)
    first.recording.close()
    again = world.job(plan)
    assert again.recording.answered == 1
    assert (await again.exchange(world.model())).replayed
    done = await again.exchange(sent)
    assert done.aggregate is not None and done.aggregate.count == 4
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(world.mills, sent))
    assert (await again.exchange(world.model(2.0))).aggregate is not None
