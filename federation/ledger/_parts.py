"""A long ledger verified in parts, by several processes at once, to the same verdict as in one go.

Each part is a run of entries judged by the full rules from a position (the tree's right edge, the last leaf and time) that
the worker reads from the store and does not believe: it says from which position it began and where it ended. The parts are
then joined: the first must begin at the empty tree, every other one exactly where the part before it was found to end. So
what a part took for granted is what another one proved.

This way only ever accepts. Where a part fails, positions do not meet, a fork shows or a worker dies, nothing is concluded
and the caller judges everything again in one go, which names what is wrong.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from federation.ledger._findings import Findings, Position
from federation.ledger._rows import stored_pages
from federation.ledger.merkle import frontier_at
from federation.ledger.note import VerifierKey
from federation.ledger.replay import Held, OnEntry, Replay
from federation.ledger.store import DATABASE, node_source, reading, tile_source

PART_ENTRIES = 8192
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Task:
    """What every worker needs to judge its parts."""

    folder: Path
    vkey: VerifierKey
    witnesses: tuple[VerifierKey, ...]
    held: tuple[Held, ...]
    on_entry: OnEntry | None


@dataclass(frozen=True, slots=True)
class Part:
    """A run of entries that holds, from where it was begun to where it ended."""

    begin: Position
    end: Position
    findings: Findings


def run_parts(
    folder: Path,
    connection: sqlite3.Connection,
    replay: Replay,
    total: int,
    processes: int,
    progress: Progress | None,
) -> bool:
    """Judge the first ``total`` entries into ``replay``; False where it has to be done in one go (nothing is changed then).

    Args:
        connection: the caller's snapshot, of which there must be exactly these entries.
    """
    if processes < 2 or total < 2 * PART_ENTRIES:
        return False
    stored = connection.execute("SELECT count(*), min(idx), max(idx) FROM entry").fetchone()
    if stored != (total, 0, total - 1):
        return False
    task = Task(folder, replay.vkey, tuple(replay.witnesses), tuple(replay.all_held()), replay.on_entry)
    joined = Replay(replay.vkey)
    try:
        with _pool(processes, task) as pool:
            for part in _in_order(pool, total, 2 * processes):
                if part is None or part.begin != joined.position():
                    return False
                joined.follow(part.end, part.findings)
                if progress is not None:
                    progress(part.end.size, total)
    except (BrokenProcessPool, OSError):
        return False
    if joined.frontier.size != total:
        return False
    replay.follow(joined.position(), joined.findings())
    return True


def _in_order(pool: Executor, total: int, ahead: int) -> Iterator[Part | None]:
    """The parts in their order; at most ``ahead`` of them are asked for before they are taken."""
    waiting: list[Future[Part | None]] = []
    starts = iter(range(0, total, PART_ENTRIES))
    try:
        while True:
            while len(waiting) < ahead and (start := next(starts, None)) is not None:
                waiting.append(pool.submit(_judge, start, min(start + PART_ENTRIES, total)))
            if not waiting:
                return
            yield waiting.pop(0).result()
    finally:
        for one in waiting:
            one.cancel()


def _pool(processes: int, task: Task) -> Executor:
    # Spawned, not forked: this process may have threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare, initargs=(task,))


_task: list[Task] = []


def _prepare(task: Task) -> None:
    """Keep the task in the worker, so that it does not travel with every part."""
    _task[:] = [task]


def _judge(start: int, stop: int) -> Part | None:
    """Judge entries ``start`` to before ``stop``; None where anything is not as it should be, whatever it is."""
    task = _task[0]
    with contextlib.suppress(Exception), reading(task.folder / DATABASE) as connection:
        replay = Replay(task.vkey, task.witnesses, task.held, all_fields=True, on_entry=task.on_entry, partial=True)
        replay.tiles = tile_source(connection)
        begin = _claimed(connection, start)
        replay.begin_at(begin)
        for _ in replay.run(stored_pages(connection, (start, stop))):
            pass
        if replay.frontier.size == stop and not replay.forked:
            return Part(begin, replay.position(), replay.findings())
    return None


def _claimed(connection: sqlite3.Connection, size: int) -> Position:
    """The position that the store claims for its first ``size`` entries; proved by the part before, or not at all."""
    if size == 0:
        return Position()
    leaf, time = connection.execute("SELECT leaf, time FROM entry WHERE idx = ?", (size - 1,)).fetchone()
    return Position(size, tuple(frontier_at(size, node_source(connection)).stack), leaf, time)
