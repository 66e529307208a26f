"""Cohorts larger than a neighbourhood, nodes and coordinator together.

Most run in a graph with four neighbours to a node, which is the same code; one with all of seventy nodes and the neighbours that
are the product's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.exchange import RoundFailedError
from federation.secagg import MaskGraph, cohorts, dropouts, threshold
from tests.coordinator.test_masked_rounds import LOST
from tests.masked import Job, MaskedWorld, masked_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 4)
    with masked_world(tmp_path, monkeypatch, mills=8) as world:
        yield world


def close(got: Any, expected: Any) -> bool:
    """Equal to what the fixed-point encoding keeps."""
    return bool(np.allclose(got, expected, atol=1e-6, rtol=0))


def graph_of(job: Job) -> MaskGraph:
    """The graph of the cohort whose keys the coordinator holds."""
    held = job.rounds._masked._setup.held  # type: ignore[union-attr]
    assert held is not None
    return held.announcements.graph


async def test_each_node_gets_shares_of_its_neighbourhood_alone(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    sent = world.model()
    done = await job.exchange(sent)
    assert done.aggregate is not None and done.aggregate.count == 8
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(world.mills, sent))
    invoked = [call for call in job.links.calls if call.method == "job.invoke"]
    assert [len(call.header["boxes"]) for call in invoked] == [4] * 8
    assert graph_of(job).size == 5


SHORT = ("after its step", "before it releases")
STAGES = [when if when in SHORT else pytest.param(when, marks=pytest.mark.long) for when in LOST]


@pytest.mark.parametrize("when", STAGES)
async def test_one_of_eight_may_vanish_at_any_stage_and_the_round_is_exact(world: MaskedWorld, when: str) -> None:
    method, way, included = LOST[when]
    job = await world.job(world.plan()).open()
    setattr(job.links, way, lambda call: (call.node, call.method) == ("mill-d", method))
    sent = world.model()
    done = await job.exchange(sent)
    left = world.mills if included else [mill for mill in world.mills if mill != "mill-d"]
    assert done.aggregate is not None
    assert done.contributed == left
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(left, sent))


async def test_two_neighbours_that_vanish_fail_the_attempt_and_the_others_begin_anew(world: MaskedWorld) -> None:
    """Six of eight are enough in all, but around some too few: nothing opens, and new keys seat the six alone."""
    job = await world.job(world.plan()).open()
    lost: set[str] = set()

    def loses(call: Any) -> bool:
        if call.method == "job.invoke" and not lost:
            lost.update(graph_of(job).circle[:2])
        job.links.down = lost
        return call.node in lost

    job.links.loses = loses
    sent = world.model()
    done = await job.exchange(sent)
    left = [mill for mill in world.mills if mill not in lost]
    assert done.aggregate is not None
    assert done.contributed == left
    assert close(done.aggregate.arrays["arrays"]["w"], world.plain(left, sent))
    assert [call.method for call in job.links.calls].count("mask.abort") == 6
    opened = [call for call in job.links.calls if call.method == "mask.open"]
    assert len(opened) == 6 and graph_of(job).participants == tuple(left)


async def test_too_few_who_release_around_one_leave_the_sum_closed(world: MaskedWorld) -> None:
    job = await world.job(world.plan()).open()
    lost: list[str] = []

    def loses(call: Any) -> bool:
        if call.method == "mask.open" and not lost:
            lost.extend(graph_of(job).circle[:2])
        return call.method == "mask.open" and call.node in lost

    job.links.loses = loses
    with pytest.raises(RoundFailedError, match="6 nodes opened round 1"):
        await job.exchange(world.model())


async def test_a_node_of_before_neighbourhoods_is_named(world: MaskedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.cohort.ALL_WITH_ALL", 7)
    job = world.job(world.plan())
    job.links.versions["mill-c"] = 3
    await job.open()
    assert job.cohort.out == {"mill-c": "protocol-version"}


@pytest.mark.long
async def test_seventy_nodes_with_dropouts_at_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with masked_world(tmp_path, monkeypatch, mills=70) as world:
        job = await world.job(world.plan()).open()
        stages = ("job.invoke", "mask.survivors", "mask.open")
        lost: dict[str, set[str]] = {}

        def loses(call: Any) -> bool:
            if call.method == "job.invoke" and not lost:  # 21 seats in a row, by turns
                gone = graph_of(job).circle[: dropouts(70)]
                lost.update({stage: set(gone[at::3]) for at, stage in enumerate(stages)})
            return call.node in lost.get(call.method, ())

        job.links.loses = loses
        sent = world.model()
        done = await job.exchange(sent)
        left = [mill for mill in world.mills if mill not in lost["job.invoke"]]
        assert done.aggregate is not None
        assert done.contributed == left and len(left) == 63
        assert close(done.aggregate.arrays["arrays"]["w"], world.plain(left, sent))
        assert len([call for call in job.links.calls if call.method == "mask.abort"]) == 0
        again = await world.job(world.plan(), "again").open()
        assert set(again.cohort.out.values()) == {"differencing"}  # of one content there is no second sum
        assert threshold(70) == 47
