"""Owners who look at each output before it leaves, and masked rounds: one owner's word costs nobody else's round."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node import opener
from enterprise_node.held import HeldOutputs, HeldRow, NothingHeldError
from federation.home import now
from tests.masked import MaskedWorld, masked_world

SOON = 0.02


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    """Four mills; the owner of mill-d has each output reviewed."""
    monkeypatch.setattr("enterprise_node.held.POLL_SECONDS", SOON)
    with masked_world(tmp_path, monkeypatch) as world:
        world.agree("mill-d", review=True)
        yield world


def outputs(world: MaskedWorld) -> HeldOutputs:
    return HeldOutputs(world.homes["mill-d"], world.nodes["mill-d"]._record.ledger)


async def held(world: MaskedWorld) -> HeldRow:
    async with asyncio.timeout(60):
        while not (rows := outputs(world).rows()):
            await asyncio.sleep(SOON)
    return rows[0]


def decide(world: MaskedWorld, row: HeldRow, decision: Any) -> None:
    """As the owner's command does it, from another process."""
    with world.homes["mill-d"].open_ledger() as ledger:
        HeldOutputs(world.homes["mill-d"], ledger).decide(row, decision, "looked at it", now())


async def begun(world: MaskedWorld) -> tuple[Any, asyncio.Task[Any], HeldRow]:
    """A job whose first round waits for mill-d's owner alone."""
    job = await world.job(world.plan(review_seconds=7200)).open()
    asking = asyncio.create_task(job.exchange(world.model()))
    row = await held(world)
    async with asyncio.timeout(60):
        while sum(bool(world.entries(mill, "stage")) for mill in world.mills[:3]) < 3:
            await asyncio.sleep(SOON)
    assert not asking.done() and not world.entries("mill-d", "stage"), "its vector waits for its owner"
    return job, asking, row


def close(world: MaskedWorld, done: Any, mills: list[str]) -> bool:
    return bool(np.allclose(done.aggregate.arrays["arrays"]["w"], world.plain(mills, world.model()), atol=1e-6, rtol=0))


async def test_what_the_owner_releases_is_in_the_sum(world: MaskedWorld) -> None:
    _, asking, row = await begun(world)
    decide(world, row, "released")
    done = await asking
    assert done.contributed == world.mills and close(world, done, world.mills)
    assert [entry["decision"] for entry in world.entries("mill-d", "review")] == ["released"]


async def test_a_refusal_takes_that_company_out_and_no_other(world: MaskedWorld) -> None:
    job, asking, row = await begun(world)
    decide(world, row, "refused")
    done = await asking
    assert done.contributed == world.mills[:3] and close(world, done, world.mills[:3])
    assert done.fallen == {"mill-d": "not-released"}
    assert [entry["code"] for entry in world.entries("mill-d", "outcome")] == ["not-released"]
    for mill in world.mills[:3]:
        assert [entry["outcome"] for entry in world.entries(mill, "outcome")] == ["ok"]
    after = await job.exchange(world.model(1.0))
    assert after.contributed == world.mills[:3]


async def test_the_others_vectors_wait_as_long_as_an_owner_may_take(
    world: MaskedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    real = opener.decided

    async def decided(waiting: Any, stopped: asyncio.Event, seconds: float) -> Any:
        waited.append(seconds)
        return await real(waiting, stopped, seconds)

    monkeypatch.setattr(opener, "decided", decided)
    _, asking, row = await begun(world)
    async with asyncio.timeout(60):
        while len(waited) < 3:  # they begin to wait a moment after their vectors are on record
            await asyncio.sleep(SOON)
    assert len(waited) == 3 and min(waited) > 7200
    decide(world, row, "released")
    assert (await asking).contributed == world.mills


async def test_a_restart_loses_the_masks_and_the_node_says_so(world: MaskedWorld) -> None:
    """What is held could not be opened with the others' any more: it waits for nobody, and the step has its OUTCOME."""
    job, asking, row = await begun(world)
    await world.nodes["mill-d"].line.close()
    done = await asking
    assert done.contributed == world.mills[:3] and close(world, done, world.mills[:3])
    assert not world.entries("mill-d", "outcome")

    world.restart("mill-d")
    node = world.nodes["mill-d"]
    await node.line.close_open_steps()
    (outcome,) = world.entries("mill-d", "outcome")
    assert (outcome["outcome"], outcome["code"]) == ("killed", "mask-keys")
    assert not outputs(world).rows() and not list(world.homes["mill-d"].folder("held").iterdir())
    with pytest.raises(NothingHeldError):
        decide(world, row, "released")

    assert (await job.exchange(world.model(1.0))).contributed == world.mills[:3]
