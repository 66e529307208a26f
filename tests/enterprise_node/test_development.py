"""inv8: without isolation (T0) nothing runs but what everybody accepted in words: owner, agreement, plan, made-up data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enterprise_node.datasets import inspect_source
from federation.statements import Envelope, Member
from keyong import registering
from sandbox import Tier


def made_up(world: Any) -> None:
    """Register the mill's rows as made up."""
    source = inspect_source(world.base / "passes.csv")
    described = registering.describe_dataset(world.home, source, dataset="passes", title="Passes", simulated=True)
    registering.register(world.home, source, described)


@pytest.fixture
def developing(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A node that serves for development; its owner accepted T0, and its rows are made up."""
    monkeypatch.setattr(Member, "floor", property(lambda member: "T0"))
    made_up(world)
    world.line.isolate_at(Tier.T0)
    return world


async def asked(world: Any, plan: Envelope) -> tuple[str, str]:
    """The code of the refusal, and the one on record; empty where the plan is taken."""
    before = len(world.entries("denied"))
    opened = await world.open(plan)
    denied = world.entries("denied")[before:]
    assert len(denied) == (0 if opened.permitted else 1), "a refusal is on record"
    return opened.code, denied[0]["code"] if denied else ""


async def test_where_all_accept_it_a_job_runs_without_isolation(developing: Any) -> None:
    plan = developing.plan(developing.agreement(min_tier="T0"), tier="T0")
    assert await asked(developing, plan) == ("", "")
    receipt, _ = await developing.invoke(plan)
    assert receipt.outcome == "ok"
    assert [session.request.tier for session in developing.sessions] == [Tier.T0]
    clause = next(one for one in receipt.decision.constraints if one.operand == "fed:minTier")
    assert clause.left == "T0", "the receipt has what the clause was judged by"


@pytest.mark.parametrize(
    ("demanded", "accepted"), [(None, "T0"), ("T1", "T0"), ("T2", "T0"), ("T3", "T0"), ("T0", ""), (None, "")]
)
async def test_unless_agreement_and_plan_name_it_nothing_runs(
    developing: Any, demanded: str | None, accepted: str
) -> None:
    terms = {} if demanded is None else {"min_tier": demanded}
    plan = developing.plan(developing.agreement(**terms), tier=accepted)
    assert await asked(developing, plan) == ("tier-unavailable", "tier-unavailable")
    assert not developing.sessions


async def test_unless_the_data_are_made_up_nothing_runs(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "floor", property(lambda member: "T0"))
    world.line.isolate_at(Tier.T0)
    plan = world.plan(world.agreement(min_tier="T0"), tier="T0")
    assert await asked(world, plan) == ("not-made-up", "not-made-up")
    assert not world.sessions


async def test_a_plan_that_accepts_it_touches_no_real_data_at_any_node(world: Any) -> None:
    """Its sum may be added up, and its server part run, where nothing is isolated."""
    plan = world.plan(world.agreement(min_tier="T0"), tier="T0")
    assert await asked(world, plan) == ("not-made-up", "not-made-up")


async def test_rows_that_are_no_longer_made_up_end_a_job_that_is_open(developing: Any) -> None:
    plan = developing.plan(developing.agreement(min_tier="T0"), tier="T0")
    assert (await developing.open(plan)).permitted
    source = inspect_source(developing.base / "passes.csv")
    registering.register(
        developing.home, source, registering.describe_dataset(developing.home, source, dataset="passes", title="Passes")
    )
    receipt, _ = await developing.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "not-made-up")


@pytest.mark.parametrize("tier", [Tier.T0, Tier.T1])
async def test_inv8_the_owner_accepts_it_in_the_roster_or_nothing_runs(world: Any, tier: Tier) -> None:
    made_up(world)
    world.line.isolate_at(tier)
    plan = world.plan(world.agreement(min_tier="T0"), tier="T0")
    assert await asked(world, plan) == ("tier-unavailable", "tier-unavailable")


@pytest.mark.parametrize("here", [Tier.T1, Tier.T2, Tier.T3])
@pytest.mark.parametrize("demanded", ["T0", "T1", "T2", "T3"])
async def test_min_tier_at_every_tier(world: Any, monkeypatch: pytest.MonkeyPatch, here: Tier, demanded: str) -> None:
    monkeypatch.setattr(Member, "floor", property(lambda member: "T1"))
    world.line.isolate_at(here)
    code = "" if here >= demanded else "min-tier"
    assert await asked(world, world.plan(world.agreement(min_tier=demanded))) == (code, code)


def test_the_mark_is_the_owners_signed_word(world: Any, tmp_path: Path) -> None:
    assert not world.store.dataset("passes").simulated
    made_up(world)
    assert world.store.dataset("passes").simulated
