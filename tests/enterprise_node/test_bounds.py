"""Bounds that stand between a plan and this machine: memory, and the columns a snapshot may hold."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as parquet
import pytest

from enterprise_node import admission, stages


async def test_a_plan_that_wants_more_memory_than_there_is_is_refused(world: Any) -> None:
    plan = world.plan(world.agreement(), memory_bytes=admission.memory_here() + 1)
    opened = await world.open(plan)
    assert not opened.permitted and opened.code == "memory-unavailable"


async def test_without_that_bound_it_would_be_permitted(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan(world.agreement(), memory_bytes=admission.memory_here() + 1)
    monkeypatch.setattr(admission, "memory_here", lambda: 2**50)
    assert (await world.open(plan)).permitted


async def _columns(world: Any) -> set[str]:
    """The columns of the snapshot that a plan's session reads, where its agreement grants one of two."""
    plan = world.plan(world.agreement(columns=["x"]))
    assert (await world.open(plan)).permitted
    seen: set[str] = set()
    good = world.reply

    async def look() -> Any:
        (file,) = world.home.folder("sessions").rglob("data.parquet")
        seen.update(parquet.read_schema(file).names)
        return await good()

    world.reply = look
    assert (await world.invoke(plan))[0].outcome == "ok"
    return seen


async def test_inv3_a_snapshot_holds_the_granted_columns_alone(world: Any) -> None:
    assert await _columns(world) == {"x"}


async def test_inv3_without_that_limit_it_would_hold_them_all(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "columns_for", lambda admitted, action, every: every)
    assert await _columns(world) == {"x", "y"}
