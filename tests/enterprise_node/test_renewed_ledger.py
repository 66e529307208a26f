"""inv1: where a new ledger followed a lost one, no agreement from before permits anything: what was used of it is not known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from federation.home import Home


async def test_inv1_an_agreement_from_before_permits_nothing(world: Any) -> None:
    plan = world.plan(world.agreement())
    world.clock.ahead = timedelta(seconds=0)
    world.home.mark_renewed()
    world.clock.ahead = timedelta(seconds=2)
    opened = await world.open(plan)
    assert (opened.permitted, opened.code) == (False, "agreement-before-ledger")
    after = await world.open(world.plan(world.agreement()))
    assert after.permitted


async def test_without_the_mark_it_would(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan(world.agreement())
    world.home.mark_renewed()
    monkeypatch.setattr(Home, "renewed_at", None)
    assert (await world.open(plan)).permitted
