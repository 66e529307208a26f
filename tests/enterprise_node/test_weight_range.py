"""inv3: a plan whose range of weights leaves out some of the published row counts would tell the exact one, and is refused."""

from __future__ import annotations

from typing import Any

import pytest

from enterprise_node import grounds
from enterprise_node.query_rules import described
from federation.statements import Encoding


def within(low: int, high: int) -> Encoding:
    return Encoding(ring="z64", fraction_bits=20, weight_minimum=low, weight_maximum=high)


async def test_inv3_no_plan_can_ask_for_the_number_of_rows(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = described(world.store.dataset("passes"))
    low, high = shown.rows_at_least, shown.rows_at_most
    assert low < high
    for encoding in (within(low + 1, high), within(low, high - 1), within(high + 1, high + 2)):
        plan = world.plan(world.agreement(), encoding=encoding)
        opened = await world.open(plan)
        assert not opened.permitted and opened.code == "encoding-weight"
        assert not world.sessions
    assert (await world.open(world.plan(world.agreement(), encoding=within(low, high)))).permitted
    # without the check the job opens, and its outcome tells on which side of `low` and `high` the rows lie
    monkeypatch.setattr(grounds, "check_weights", lambda *_: None)
    assert (await world.open(world.plan(world.agreement(), encoding=within(high + 1, high + 2)))).permitted
