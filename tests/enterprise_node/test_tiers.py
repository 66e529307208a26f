"""inv1, inv8: what this node's sessions are isolated by is judged against its roster entry and the agreement."""

from __future__ import annotations

from typing import Any

import pytest

from federation.statements import Member
from sandbox import Tier


async def test_a_node_below_its_roster_entry_takes_no_plan(world: Any) -> None:
    world.line.isolate_at(Tier.T1)
    opened = await world.open(world.plan(world.agreement()))
    assert (opened.permitted, opened.code) == (False, "tier-unavailable")
    assert not world.sessions


@pytest.mark.parametrize(("demanded", "code"), [("T2", "min-tier"), ("T1", ""), (None, "")])
async def test_the_agreement_decides_where_the_owner_accepted_t1(
    world: Any, monkeypatch: pytest.MonkeyPatch, demanded: str | None, code: str
) -> None:
    monkeypatch.setattr(Member, "floor", property(lambda member: "T1"))
    world.line.isolate_at(Tier.T1)
    terms = {} if demanded is None else {"min_tier": demanded}
    opened = await world.open(world.plan(world.agreement(**terms)))
    assert (opened.permitted, opened.code) == (not code, code)
    if opened.permitted:
        plan = world.plan(world.agreement(**terms), tier="T2")
        assert (await world.open(plan)).code == "tier-unavailable", "the plan's own demand stands"


async def test_sessions_are_opened_at_the_tier_that_was_proved(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "floor", property(lambda member: "T1"))
    world.line.isolate_at(Tier.T1)
    plan = world.plan(world.agreement())
    assert (await world.open(plan)).permitted
    await world.invoke(plan)
    assert [session.request.tier for session in world.sessions] == [Tier.T1]
