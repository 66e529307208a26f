"""Many nodes and many jobs on one coordinator. Twenty nodes with every test run; `make load` takes a hundred."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from coordinator.desk import AT_ONCE
from federation.errors import KeyongError
from federation.statements.code import CodeBundle
from keyong import runtime as runtimes
from sandbox import Runtime
from tests.coordinator import parties
from tests.figures import Figures
from tests.load.crowd import Crowd, Gauge, Peak, clock

SUITE = "KEYONG_LOAD"
NODES = 100 if os.environ.get(SUITE) else 20
POOLED = 5
"""Connections that SQLAlchemy's pool keeps (its default)."""
BACK = 5.0
"""Seconds until nodes are back in service once their coordinator listens (issue: one node; here: all)."""

only_in_load = pytest.mark.skipif(not os.environ.get(SUITE), reason=f"takes minutes: `make load` sets {SUITE}")

SERVER = (
    parties.SERVER
    + """
@app.main()
def main(grid, context):
    size = int(context.run_config["size"])
    initial = ArrayRecord({"w": Array(np.zeros(size, dtype=np.float32))})
    FedAvg(fraction_evaluate=0.0).start(grid, initial, num_rounds=int(context.run_config["rounds"]))
"""
)
PYPROJECT = parties.PYPROJECT + "size = 3\n"


@pytest.fixture
def runtime(isolating: None) -> Runtime:
    try:
        return runtimes.load()
    except KeyongError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture
def app(tmp_path: Path) -> CodeBundle:
    return parties.bundle_of(tmp_path / "app", SERVER, PYPROJECT)


async def _run(crowd: Crowd, app: CodeBundle, rounds: int, size: int, **changes: object) -> list[float]:
    """Run a job; the seconds of each round."""
    config = {"rounds": str(rounds), "size": str(size)}
    _, last, events = await crowd.run(app, rounds=rounds, run_config=config, actions=("fed:train",), **changes)
    assert last.kind == "done", (last, events)
    ends = [event.data["elapsed"] for event in events if event.kind == "round"]
    return list(np.diff(ends))


@pytest.mark.long
async def test_many_nodes_on_one_coordinator(
    tmp_path: Path, runtime: Runtime, app: CodeBundle, figures: Figures
) -> None:
    """They attach, take part in rounds, and are all back within seconds of the coordinator's restart, which finds
    memory and descriptors as they were."""
    crowd = Crowd(tmp_path, runtime, NODES)
    async with crowd.links():
        await crowd.all_attached(30)
        gauge = Gauge(crowd.process.process.pid)
        async with crowd.asking():
            await _run(crowd, app, 2, 1000)
            files = gauge.descriptors
            cpu = gauge.cpu
            async with Peak(gauge) as peak:
                seconds = await _run(crowd, app, 6, 25_000)
            figures.note("nodes on one coordinator", NODES, "")
            figures.note("a round of 25,000 floats", float(np.median(seconds)), "s")
            figures.note("coordinator's CPU a round", (gauge.cpu - cpu) / 6, "s")
            figures.note("coordinator's memory", gauge.memory / 2**20, "MB")
            figures.note("coordinator's growth in rounds", peak.growth / 2**20, "MB")
            assert peak.growth < 64 * 2**20, "memory grows with the number of nodes"
            assert gauge.descriptors <= files + 2, "a job left descriptors open"
        await crowd.kill()
        await crowd.start()
        ready = clock()
        await crowd.all_attached(30)
        back = clock() - ready
        figures.note("all back after a restart", back, "s")
        assert back < BACK, crowd.refusals
        async with crowd.asking():
            await _run(crowd, app, 2, 1000)


@only_in_load
async def test_fifty_jobs_wait_for_their_turn(
    tmp_path: Path, runtime: Runtime, app: CodeBundle, figures: Figures
) -> None:
    crowd = Crowd(tmp_path, runtime, 5)
    async with crowd.links():
        await crowd.all_attached(30)
        gauge = Gauge(crowd.process.process.pid)
        async with crowd.asking():
            config = {"rounds": "2", "size": "1000"}
            changes = {"rounds": 2, "run_config": config, "actions": ("fed:train",)}
            # As many at once as run at once, twice.
            first = [await crowd.submit(crowd.plan(app, **changes), app) for _ in range(2 * AT_ONCE)]
            await asyncio.gather(*(crowd.follow(job) for job in first))
            before, files, began = gauge.memory, gauge.files, clock()
            jobs = [await crowd.submit(crowd.plan(app, **changes), app) for _ in range(50)]
            async with Peak(gauge) as peak:
                courses = await asyncio.gather(*(crowd.follow(job) for job in jobs))
        figures.note("fifty jobs of two rounds", clock() - began, "s")
        figures.note("coordinator's growth with fifty jobs", peak.growth / 2**20, "MB")
        assert [course[-1].kind for course in courses] == ["done"] * 50
        places = [next(event.data["place"] for event in course if event.kind == "queued") for course in courses[10:]]
        assert all(place > 0 for place in places), "a job that waits is told its place"
        assert gauge.memory - before < 64 * 2**20
        held = gauge.files
        # The store keeps connections for those who ask together: two files each, of five at most, and of one that watches.
        pooled = {name for name in held if "/coordinator.db" in name}
        assert sum(held[name] for name in pooled) <= 2 * POOLED + 3, held
        grown = {
            name: count - files[name] for name, count in held.items() if count > files[name] and name not in pooled
        }
        assert sum(grown.values()) <= 2, grown


@only_in_load
async def test_memory_does_not_follow_the_number_of_nodes(
    tmp_path: Path, runtime: Runtime, app: CodeBundle, figures: Figures
) -> None:
    """Every node is sent 40 MB a round; the coordinator's memory does not follow their number."""
    grown = []
    for count in (3, 12):
        folder = tmp_path / str(count)
        folder.mkdir()
        crowd = Crowd(folder, runtime, count)
        async with crowd.links():
            await crowd.all_attached(30)
            gauge = Gauge(crowd.process.process.pid)
            async with crowd.asking():
                await _run(crowd, app, 2, 1000)
                async with Peak(gauge) as peak:
                    await _run(crowd, app, 2, 10_000_000)
                grown.append(peak.growth / 2**20)
        figures.note(f"coordinator's growth with 40 MB to each of {count} nodes", grown[-1], "MB")
    assert grown[1] < grown[0] + 96, grown
