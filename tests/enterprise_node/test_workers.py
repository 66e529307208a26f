"""inv2, inv4: a worker in waiting sees no data before a job's INTENT, is one job's alone, and is what a cold session is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enterprise_node.workers import IMPORTS, Workers
from sandbox import Runtime, Tier
from tests.enterprise_node.conftest import CLIENT

LOOK = """
import json, os, sys
print("FOUND", json.dumps({
    "pid": os.getpid(), "tmp": os.listdir("/tmp"), "shm": os.listdir("/dev/shm"), "data": sorted(os.listdir("/data")),
    "huge": sum(int(row.split()[1]) for row in open("/proc/self/smaps") if row.startswith("AnonHugePages:")) >> 10,
    "modules": [name for name in ("torch", "pyarrow", "numpy") if name in sys.modules],
}), flush=True)
"""


def _found(world: Any, plan: Any) -> dict[str, Any]:
    """What the app saw as it was imported, from the owner's logs."""
    from federation.statements import JobPlan

    folder = world.home.folder("logs", JobPlan.read(plan).id.removeprefix("urn:uuid:"))
    (line,) = [text for text in (folder / "stdout.txt").read_text().splitlines() if text.startswith("FOUND")]
    return dict(json.loads(line.removeprefix("FOUND ")))


@pytest.fixture
def waiting(real: Any, request: pytest.FixtureRequest) -> Any:
    """The node with one worker in waiting, and an app that looks around when it is imported."""
    from federation.statements.code import CodeBundle

    imports = IMPORTS if "serves_one_job" in request.node.name else ()  # torch takes seconds
    real.line._stages.workers = Workers(real.home.folder("sessions"), real.runtime, 1, imports)
    real.bundle = CodeBundle({**real.bundle.files, "app/client.py": (LOOK + CLIENT).encode()})
    return real


async def test_inv2_a_worker_waits_without_data_and_serves_one_job_alone(waiting: Any) -> None:
    world, workers = waiting, waiting.line._stages.workers
    await world.line.fill()
    assert world.line.waiting == 1
    worker = workers._waiting[0]
    assert not any((worker.folder / "data").iterdir()), "there is nothing to read before a job"
    plan = world.plan(world.agreement())
    await world.open(plan)
    assert not any((worker.folder / "data").iterdir()), "opening a job is not an INTENT"
    assert not world.entries("intent")
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.isolation.tier) == ("ok", "T2")
    assert world.line.waiting == 0
    assert next(iter(world.line.jobs.values())).session._session is worker.session, "it was the waiting one"
    other = world.plan(world.agreement())
    await world.open(other)
    assert (await world.invoke(other))[0].outcome == "ok", "a second job is not kept waiting: it has a cold session"
    sessions = [job.session._session for job in world.line.jobs.values()]
    assert sessions[0] is not sessions[1]
    await world.line.close()
    assert not list(world.home.folder("sessions").iterdir()), "nothing is left"
    warm, cold = _found(world, plan), _found(world, other)
    assert warm["modules"] == ["torch", "pyarrow", "numpy"]
    huge = warm.pop("huge") - cold.pop("huge")
    assert huge > 50 or not Path("/sys/kernel/mm/transparent_hugepage").exists(), "MB that a kill gives back at once"
    assert {**warm, "modules": cold["modules"]} == cold, "the app sees no other difference"
    assert (warm["tmp"], warm["shm"], warm["pid"]) == ([], [], 1)


async def test_its_bounds_are_those_of_the_plan(waiting: Any) -> None:
    world = waiting
    await world.line.fill()
    plan = world.plan(world.agreement(), memory_bytes=600 * 2**20)
    await world.open(plan)
    receipt, _ = await world.invoke(plan, mode="memory")
    assert receipt.outcome == "failed"
    assert receipt.code in ("limit-memory", "out-of-memory")
    await world.line.close()


async def test_inv4_a_changed_runtime_or_tier_throws_it_away(waiting: Any, tmp_path: Path) -> None:
    world, workers = waiting, waiting.line._stages.workers
    await workers.fill(Tier.T2)
    worker = workers._waiting[0]
    assert worker.fits(world.runtime, Tier.T2)
    assert not worker.fits(world.runtime, Tier.T1)
    assert not worker.fits(Runtime(world.runtime.path, "sha256:" + "0" * 64, world.runtime.python), Tier.T2)
    workers._runtime = Runtime(tmp_path, world.runtime.digest, world.runtime.python)  # the same name, other files
    assert workers.take(Tier.T2) is None
    assert worker.session.ending is not None, "its processes are gone"
    assert not worker.folder.exists()


async def test_a_worker_that_died_is_none(waiting: Any) -> None:
    world, workers = waiting, waiting.line._stages.workers
    await workers.fill(Tier.T2)
    workers._waiting[0].session.kill()
    plan = world.plan(world.agreement())
    await world.open(plan)
    assert (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()
