"""Outputs that wait for their owner: nothing leaves before the owner's word, and what the owner says holds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node._sealed_file import SealedFileError, read_sealed, seal_key, write_sealed
from enterprise_node.held import HeldOutputs, HeldRow, NothingHeldError
from enterprise_node.line import Line
from federation.errors import KeyongError
from federation.secagg import reply_digest
from federation.statements import Envelope, Receipt
from federation.wire.body import total_bytes

SOON = 0.02


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the owner's decision often."""
    monkeypatch.setattr("enterprise_node.held.POLL_SECONDS", SOON)


async def started(world: Any, **changes: Any) -> tuple[Any, asyncio.Task[Any], HeldRow]:
    """A plan whose first step waits for the owner: the plan, the asker's task, what is held."""
    plan = world.plan(world.agreement(review=True), review_seconds=3600, **changes)
    assert (await world.open(plan)).permitted
    asking = asyncio.create_task(world.invoke(plan))
    return plan, asking, await held(world)


async def held(world: Any) -> HeldRow:
    outputs = HeldOutputs(world.home, world.record.ledger)
    async with asyncio.timeout(60):
        while not (rows := outputs.rows()):
            await asyncio.sleep(SOON)
    return rows[0]


def decide(world: Any, row: HeldRow, decision: Any) -> None:
    """As the owner's command does it, from another process: a ledger of its own."""
    with world.home.open_ledger() as ledger:
        HeldOutputs(world.home, ledger).decide(row, decision, "looked at it", world.clock())


async def test_inv3_nothing_leaves_before_the_owner_releases_it(world: Any) -> None:
    _, asking, row = await started(world)
    await asyncio.sleep(5 * SOON)
    assert not asking.done() and not world.entries("outcome")
    decide(world, row, "released")
    receipt, answer = await asking
    assert receipt.outcome == "ok" and reply_digest(answer.body) == receipt.output
    (entry,) = world.entries("held")
    (review,) = world.entries("review")
    assert entry["output"] == review["output"] == receipt.output and review["decision"] == "released"
    assert any(one.right == "fed:review" and one.left for one in receipt.decision.constraints)
    assert not HeldOutputs(world.home, world.record.ledger).rows() and not list(world.home.folder("held").iterdir())
    await world.line.close()


async def test_without_that_hold_the_same_output_leaves_at_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from federation.policy import Demands

    monkeypatch.setattr("enterprise_node.admission.demands", lambda *_: Demands())
    plan = world.plan(world.agreement(review=True), review_seconds=3600)
    await world.open(plan)
    async with asyncio.timeout(60):
        assert (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()


async def test_inv3_what_the_owner_refuses_never_leaves(world: Any) -> None:
    plan, asking, row = await started(world)
    decide(world, row, "refused")
    receipt, answer = await asking
    assert (receipt.outcome, receipt.code, receipt.output, answer.body) == ("denied", "not-released", "", ())
    assert not list(world.home.folder("held").iterdir())
    assert (await world.invoke(plan, 2))[0].code == "job-ended"
    with pytest.raises(NothingHeldError):
        decide(world, row, "released")


async def test_a_decision_is_made_once(world: Any) -> None:
    _, asking, row = await started(world)
    decide(world, row, "released")
    with pytest.raises(NothingHeldError):
        decide(world, row, "refused")
    assert (await asking)[0].outcome == "ok"
    assert len(world.entries("review")) == 1
    await world.line.close()


async def test_when_the_plans_time_is_over_it_is_not_released_any_more(world: Any) -> None:
    _, asking, row = await started(world)
    world.clock.ahead = timedelta(hours=3)
    receipt, _ = await asking
    assert (receipt.outcome, receipt.code) == ("denied", "not-released")
    with pytest.raises(NothingHeldError):
        decide(world, row, "released")


async def test_inv2_a_revocation_ends_the_wait_and_nothing_leaves(world: Any) -> None:
    _, asking, row = await started(world)
    world.holdings.move(row.agreement, "revoked")
    await world.line.sweep()
    receipt, answer = await asking
    assert (receipt.outcome, receipt.code, answer.body) == ("killed", "agreement-revoked", ())
    assert not list(world.home.folder("held").iterdir())


def again(world: Any) -> None:
    """The node's process anew: another line over the same home."""
    world.line = Line(world.home, world.record, world.store, world.holdings, world.runtime, world.clock)


async def test_a_held_output_survives_a_restart_of_the_node(world: Any) -> None:
    plan, asking, row = await started(world)
    step = Envelope.from_bytes(world.entries("intent")[0]["invocation"])
    await world.line.close()
    with pytest.raises(KeyongError) as stopped:
        await asking
    assert stopped.value.code == "stopping" and not world.entries("outcome")

    again(world)
    world.line.tidy()
    assert await world.line.close_open_steps() == 0  # what waits for its owner is not closed as aborted
    decide(world, row, "released")
    await world.line.sweep()
    assert (await world.open(plan)).permitted
    _, header, body = world.step(plan)
    answer = await world.line.invoke(plan.digest, step, header, body)
    receipt: Receipt = world.receipt(answer)
    assert (receipt.outcome, receipt.weight, receipt.isolation.tier) == ("ok", 3, "T2") and receipt.snapshot
    assert reply_digest(answer.body) == receipt.output and total_bytes(answer.body) == receipt.output_bytes
    assert world.calls == 1  # nothing was computed twice
    await world.line.close()


@pytest.mark.parametrize(("decision", "code"), [("refused", "not-released"), (None, "not-released")])
async def test_inv2_what_was_held_gets_its_outcome_also_where_nobody_asks_again(
    world: Any, decision: Any, code: str
) -> None:
    _, asking, row = await started(world)
    await world.line.close()
    await asyncio.gather(asking, return_exceptions=True)
    again(world)
    if decision:
        decide(world, row, decision)
    else:
        world.clock.ahead = timedelta(hours=3)
    await world.line.sweep()
    (outcome,) = world.entries("outcome")
    assert (outcome["outcome"], outcome["code"], outcome["intent"]) == ("denied", code, row.intent)
    assert not world.record.open_steps() and not list(world.home.folder("held").iterdir())


async def test_the_owner_sees_forms_norms_and_figures_before_deciding(world: Any, content: Any) -> None:
    async def odd() -> Any:
        return content(arrays={"arrays": {"0": np.array([3.0, -0.0], dtype=np.float32)}})

    world.reply = odd
    _, asking, row = await started(world)
    head = HeldOutputs(world.home, world.record.ledger).head(row)
    (array,) = head.summary.arrays
    assert (array.name, array.dtype, array.shape, array.sent) == ("0", "float32", (2,), True)
    assert (array.l2, array.largest, head.summary.l2, head.summary.normalised) == (3.0, 3.0, 3.0, 1)
    assert (
        head.summary.metrics == {"loss": 0.5, "num-examples": 3.0}
        and head.summary.rows == 3
        and head.summary.leak_bits > 0
    )
    decide(world, row, "released")
    receipt, _ = await asking
    assert (receipt.normalised, receipt.saturated) == (0, 0)  # the asker is told of neither
    await world.line.close()


async def test_the_file_is_the_owners_alone_and_no_row_stands_in_it_in_the_clear(world: Any) -> None:
    _, asking, row = await started(world)
    (path,) = world.home.folder("held").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"passes" not in path.read_bytes() and b"loss" not in path.read_bytes()
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(SealedFileError):
        HeldOutputs(world.home, world.record.ledger).read(row)
    decide(world, row, "refused")
    await asking


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_sealed_file_gives_back_what_was_sealed_and_notices_every_cut(tmp_path: Path, size: int) -> None:
    key = seal_key(tmp_path / "held.key")
    assert seal_key(tmp_path / "held.key") == key
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    path = tmp_path / "one.sealed"
    write_sealed(path, key, {"a": "头"}, [body[: size // 3], memoryview(body)[size // 3 :]])
    assert read_sealed(path, key) == ({"a": "头"}, body) and read_sealed(path, key, body=False)[0] == {"a": "头"}
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:40], whole + b"x", b"KYHELD02" + whole[8:]):
        path.write_bytes(cut)
        with pytest.raises(SealedFileError):
            read_sealed(path, key)
    path.write_bytes(whole)
    with pytest.raises(SealedFileError):
        read_sealed(path, bytes(32))
