"""``fed:minGroupSize``: nothing leaves on fewer subjects, by plan, by catalog and by what the data holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enterprise_node import stages
from enterprise_node.datasets import inspect_source
from enterprise_node.group_size import planned_group
from federation.statements.query import Measure, QueryNoise, QueryPlan, Rules
from keyong import registering
from keyong.replaying import DecisionReplay

SUBJECTS, ROWS = 12, 120


def register(world: Any, *, unit: str = "") -> None:
    """Another ``passes`` of 120 rows; with a unit, they are of 12 subjects."""
    path = Path(world.base) / "more.csv"
    path.write_text("x,y\n" + "".join(f"{row}.5,{row % SUBJECTS}\n" for row in range(ROWS)))
    found = inspect_source(path)
    described = registering.describe_dataset(world.home, found, dataset="passes", title="Passes", privacy_unit=unit)
    registering.register(world.home, found, described)


def bound(world: Any, least: int) -> Any:
    return world.plan(world.agreement(further={"group-size": str(least)}))


async def test_the_catalogs_rows_decide_before_anything_is_read(world: Any) -> None:
    register(world)
    assert (await world.open(bound(world, 120))).permitted
    opened = await world.open(bound(world, 121))
    assert (opened.permitted, opened.code) == (False, "min-group-size")
    assert world.calls == 0 and not world.entries("intent")


async def test_inv3_what_the_data_holds_decides_before_any_code_runs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 rows of 12 subjects: the catalog says 120, the snapshot 12. Without the check the app would have answered."""
    register(world, unit="y")
    enough = bound(world, SUBJECTS)
    await world.open(enough)
    assert (await world.invoke(enough))[0].outcome == "ok" and world.calls == 1
    plan = bound(world, SUBJECTS + 1)
    assert (await world.open(plan)).permitted
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.code, answer.body) == ("denied", "min-group-size", ())
    assert world.calls == 1
    assert world.record.open_steps() == []
    monkeypatch.setattr(stages, "check_group", lambda admitted, snapshot: None)
    other = bound(world, SUBJECTS + 1)
    await world.open(other)
    assert (await world.invoke(other))[0].outcome == "ok", "the check is what refused"


async def test_inv1_a_node_that_cannot_say_denies_and_a_replay_finds_a_record_that_lies(world: Any) -> None:
    register(world)
    plan = bound(world, 100)
    await world.open(plan)
    await world.invoke(plan)
    (intent,) = world.entries("intent")
    judged = next(one for one in intent["decision"]["constraints"] if one["operand"] == "fed:minGroupSize")
    assert (judged["left"], judged["right"], judged["satisfied"]) == ("120", "100", True)
    ledger = world.record.ledger

    def replay(told: int | None = None) -> DecisionReplay:
        found = DecisionReplay()
        for entry in ledger.find():
            fields = ledger.fields(entry.index)
            if entry.kind == "intent" and told is not None:
                own = [one for one in fields["decision"]["constraints"] if one["operand"] == "fed:minGroupSize"]
                own[0]["left"] = str(told)
            found.on_entry(entry, fields)
        return found

    assert not replay().findings
    assert [one.index for one in replay(99999).findings] == [next(ledger.find(kind="intent")).index]


def test_what_a_query_shows_at_least_is_what_its_signed_rules_say() -> None:
    query = QueryPlan(measures=(Measure(kind="count", name="n"),), context="sha256:" + "1" * 64)
    plan: Any = SimpleNamespace(query=query.model_copy(update={"rules": Rules(subjects=25)}), intersection=None)
    dataset: Any = None
    assert planned_group(plan, dataset) == 25
    noised = query.model_copy(update={"noise": QueryNoise(unit_rows=1, micro_rho=1)})
    assert planned_group(SimpleNamespace(query=noised, intersection=None), dataset) == 0, "cells of any size leave"
