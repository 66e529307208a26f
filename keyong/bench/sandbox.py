"""What isolation costs, and how soon it ends: sessions cold and in waiting, a revocation, and the line around a live one."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from enterprise_node.materialise import Snapshot
from enterprise_node.session import JobSession, SessionRequest
from enterprise_node.workers import Workers
from federation.home import Home
from federation.statements.code import bundle_folder
from keyong import runtime
from keyong.bench.ending import WAIT_SECONDS, bare_kill
from keyong.bench.endless_job import EndlessJobs
from keyong.bench.figure import Figure, percentile
from keyong.bench.flushes import flush_seconds
from keyong.bench.line import APP, PURPOSE, Line, run_job, stand
from keyong.bench.processes import below, pss_bytes, until_quiet
from keyong.bench.progress import bar
from keyong.bench.rows import MEGABYTE, published
from keyong.cli._context import quiet_logs
from keyong.client import Client
from keyong.demo.consortium import agree, until
from keyong.text import mark
from sandbox import SessionSpec, Tier, open_session
from sandbox.canary import CONCEDED, empty_runtime, try_acts

STARTS, WARM, COLD, REVOCATIONS, ROUNDS = 100, 5, 3, 20, 60
CHILDREN = 20
BUSY_APP = Path(__file__).parent / "busy_app"
CHILDREN_APP = Path(__file__).parent / "children_app"


def measure(
    starts: int = STARTS, warm: int = WARM, cold: int = COLD, revocations: int = REVOCATIONS, rounds: int = ROUNDS
) -> list[Figure]:
    """Measure every row; T2 is what is measured."""
    figures = _acts()
    figures += _starts(starts)
    figures += asyncio.run(_sessions(warm, cold))
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), 1)
        figures.append(_invocations(line, rounds))
        figures += _revocations(line, revocations)
    return figures


def _acts() -> list[Figure]:
    results, _ = try_acts()
    succeeded = [name for name, outcome in results.items() if outcome != "blocked" and name not in CONCEDED[Tier.T2]]
    note = (
        f"{len(results)} forbidden acts of the canary, in a session; `make attack` adds the attacks of docs/security.md"
    )
    return [published("acts-that-succeed", len(succeeded), note=note)]


def _starts(count: int) -> list[Figure]:
    """Python that does nothing, from the call to the last process gone: namespaces, filter, Landlock and canary included."""
    taken: list[float] = []
    with empty_runtime() as bare, bar(mark("sessions")) as advance:
        spec = SessionSpec(bare, ("-c", "pass"))
        for number in range(count + 3):
            began = time.perf_counter()
            with open_session(spec) as session:
                session.wait(WAIT_SECONDS)
                taken.append(time.perf_counter() - began)
            advance(number, count + 3)
    taken = taken[3:]  # the first ones read the disk
    return [
        published("sandboxed-python-p50", statistics.median(taken), spread=(min(taken), max(taken))),
        published("sandboxed-python-p95", percentile(taken, 95), note=f"of {count}"),
    ]


async def _sessions(warm: int, cold: int) -> list[Figure]:
    """From the wish for a session to the app imported, with torch, a model and its optimiser."""
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    held = []
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        base = Path(name)
        request = _request(base)
        for number in range(cold + 1):
            found["cold"].append(await _ready(base, request, number))
        workers = Workers(base, request.runtime, 1)
        for number in range(warm):
            await workers.fill(Tier.T2)
            worker = workers.take(Tier.T2)
            if worker is None:
                raise AssertionError("no worker waits; the log says why")
            process = worker.session.pid
            await asyncio.to_thread(until_quiet, below([process]))  # it waits once it has imported all
            held.append(sum(map(pss_bytes, below([process]))) / MEGABYTE)
            found["warm"].append(await _ready(base, replace(request, worker=worker), cold + 1 + number))
        await workers.close()
    taken = found["cold"][1:]
    return [
        published("session-waiting-seconds", statistics.median(found["warm"]), spread=_spread(found["warm"])),
        published("session-cold-seconds", statistics.median(taken), spread=_spread(taken)),
        Figure("waiting-worker-memory", statistics.median(held), "MB", note="PSS of one worker in waiting"),
    ]


def _request(base: Path) -> SessionRequest:
    data = base / "data"
    data.mkdir()
    (data / "data.parquet").write_bytes(bytes(1000))
    (data / "data.parquet").chmod(0o444)
    data.chmod(0o555)
    return SessionRequest(
        bundle=bundle_folder(BUSY_APP),
        snapshot=Snapshot(data, "", 100),
        runtime=runtime.load(),
        node_number=1,
        run_id=1,
        run_config={},
        memory_bytes=4 << 30,
        wall_seconds=600.0,
        setup_seconds=600.0,
        body_limit=1 << 20,
        logs=base,
    )


async def _ready(base: Path, request: SessionRequest, number: int) -> float:
    folder, spool = base / f"session-{number}", base / "spool"
    folder.mkdir()
    spool.mkdir(exist_ok=True)
    began = time.perf_counter()
    session = await JobSession.open(folder, request, spool)
    taken = time.perf_counter() - began
    await session.close()
    return taken


def _invocations(line: Line, rounds: int) -> Figure:
    """The line's own time around a step that computes next to nothing, as the node's log has it."""
    _permit(line, APP, "Steps")
    with bar(mark("rounds")) as advance:
        run_job(line, rounds, 10, advance, ("--min-participants", "1"))
    taken: list[float] = []
    shares: dict[str, list[float]] = {}
    for text in (line.folder / "logs" / f"{line.nodes[0].name}.log").read_text(encoding="utf-8").splitlines():
        if text.startswith("{") and (event := json.loads(text)).get("event") == "step":
            parts = dict(event["parts"])
            if "session" not in parts:  # the first step of the job opened it
                taken.append(sum(parts.values()))
                for part, seconds in parts.items():
                    shares.setdefault(part, []).append(seconds)
    told = ", ".join(f"{part} {statistics.median(some) * 1000:.1f}" for part, some in shares.items())
    note = (
        f"{len(taken)} steps, all parts of the line: admission to OUTCOME, two entries made durable, the app's call inside"
        f" (ms: {told}; one flush of this disk, right afterwards: {flush_seconds(line.folder) * 1000:.1f})"
    )
    return published("invocation-p50", statistics.median(taken), spread=_spread(taken), note=note)


def _revocations(line: Line, count: int) -> list[Figure]:
    """A job whose client part never answers, ended by the data's owner, and ended by who asked for it.

    In turns one with twenty children and one with torch at work; a few with both, where each child holds a copy of the
    page tables of torch and all of them are to be taken down.
    """
    shapes = [(CHILDREN_APP, CHILDREN), (BUSY_APP, 0)]
    taken: dict[str, list[float]] = {"revocation": [], "cancel": []}
    bare: list[float] = []
    both: list[float] = []
    runs = runtime.load()
    quiet_logs()  # what arrives for owner and asker is none of the figures
    with (
        Client(Home(line.nodes[0].home)) as owner,
        Client(Home(line.coordinator.home)) as asker,
        bar(mark("revocations")) as advance,
    ):
        jobs = EndlessJobs(line, owner, asker)
        for number in range(count):
            app, children = shapes[number % 2]
            taken["revocation"].append(jobs.ended("revocation", app, children))
            taken["cancel"].append(jobs.ended("cancel", app, children))
            bare.append(bare_kill(runs, app, children, _until_at_work))
            if number % 10 == 0:
                both.append(jobs.ended("revocation", BUSY_APP, CHILDREN))
            advance(number + 1, count)
    gone = (
        f"to no process left at the node; in turns {CHILDREN} children that lead sessions of their own, and torch busy"
    )
    notes = {
        "revocation": f"from the owner's revocation {gone}; p95 of {count}",
        "cancel": f"from the requester's word to the coordinator {gone}; p95 of {count}",
    }
    figures = [
        published(
            f"{name}-p95",
            percentile(some, 95),
            compared_with="bare-kill",
            other=percentile(bare, 95),
            spread=_spread(some),
            note=notes[name],
        )
        for name, some in taken.items()
    ]
    plain = f"the same processes without sandbox and line, by SIGKILL to each; p95 of {count}"
    figures.append(Figure("bare-kill", percentile(bare, 95), "s", spread=_spread(bare), note=plain))
    note = f"{CHILDREN} children forked from torch at work: each has its page tables to take down; worst of {len(both)}"
    return [*figures, Figure("revocation-of-both", max(both), "s", spread=_spread(both), note=note)]


def _until_at_work(condition: Callable[[], bool]) -> None:
    until(condition, "{name} does not compute", "a plain process", WAIT_SECONDS)


def _permit(line: Line, app: Path, title: str) -> None:
    """One use of the node's rows for this app."""
    agree(
        line.coordinator, line.nodes, dataset="rows", title=title, purpose=PURPOSE, app=app, count=1, expires="1d",
        min_participants=None,
        protection="none",
    )  # fmt: skip


def _spread(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)
