"""Masked rounds, nodes and coordinator together: exact whoever vanishes when, and nothing opened where too few are left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.masked import MaskedWorld, masked_world


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
