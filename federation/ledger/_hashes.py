"""The tree recomputed from a store's entries alone, a tile at a time, by several processes at once where it is long.

Nothing is concluded from a hash that is not what it should be: whoever asked then reads everything by the full rules, which
name what was changed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from federation.ledger.merkle import TILE_WIDTH, Frontier, TileHash, complete_root, leaf_hash
from federation.ledger.store import DATABASE, reading

PART_TILES = 128
Progress = Callable[[int, int], None]
TilesHold = Callable[[list[TileHash]], bool]


@dataclass(frozen=True, slots=True)
class Hashes:
    """Some entries' hashes: the root of each whole tile, and the leaves after the last one."""

    tiles: tuple[bytes, ...]
    rest: tuple[bytes, ...]


def hash_entries(
    folder: Path,
    connection: sqlite3.Connection,
    total: int,
    tiles_hold: TilesHold,
    processes: int,
    progress: Progress | None,
) -> Frontier | None:
    """The tree's right edge after all stored entries; None where an entry or a stored hash is not what it should be.

    Args:
        connection: the caller's snapshot, of which there must be exactly ``total`` entries.
        tiles_hold: says whether subtrees are stored with these hashes.
    """
    if connection.execute("SELECT count(*), min(idx), max(idx) FROM entry").fetchone() != (
        (total, 0, total - 1) if total else (0, None, None)
    ):
        return None
    tiles, partial, done = Frontier(), Frontier(), 0
    with contextlib.suppress(BrokenProcessPool, OSError), contextlib.ExitStack() as stack:
        for part in _parts(folder, connection, total, processes, stack):
            if part is None:
                return None
            for root in part.tiles:
                above = [TileHash(1, tiles.size, root)]
                above += [TileHash(tile.level + 1, tile.number, tile.hash) for tile in tiles.append(root)]
                if not tiles_hold(above):
                    return None
            for leaf in part.rest:
                partial.append(leaf)
            done += TILE_WIDTH * len(part.tiles) + len(part.rest)
            if progress is not None:
                progress(done, total)
    return Frontier(done, tiles.stack + partial.stack) if done == total else None


def _parts(
    folder: Path, connection: sqlite3.Connection, total: int, processes: int, stack: contextlib.ExitStack
) -> Iterator[Hashes | None]:
    step = PART_TILES * TILE_WIDTH
    ranges = [(start, min(start + step, total)) for start in range(0, total, step)]
    if processes < 2 or len(ranges) < 2:
        return (_hash(connection, *one) for one in ranges)
    # Spawned, not forked: this process may have threads.
    context = multiprocessing.get_context("spawn")
    pool: Executor = stack.enter_context(ProcessPoolExecutor(processes, mp_context=context))
    return iter(pool.map(_hash_apart, [folder] * len(ranges), *zip(*ranges, strict=True)))


def _hash_apart(folder: Path, start: int, stop: int) -> Hashes | None:
    with contextlib.suppress(Exception), reading(folder / DATABASE) as connection:
        return _hash(connection, start, stop)
    return None


def _hash(connection: sqlite3.Connection, start: int, stop: int) -> Hashes | None:
    """The hashes of entries ``start`` to before ``stop``; None unless each stands in its place with its own hash."""
    cursor = connection.execute(
        "SELECT idx, data, leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, stop)
    )
    tiles: list[bytes] = []
    rest: list[bytes] = []
    while page := cursor.fetchmany(TILE_WIDTH):
        leaves = [leaf_hash(data) for _, data, _ in page if isinstance(data, bytes)]
        if [(row[0], row[2]) for row in page] != list(enumerate(leaves, start)):
            return None
        start += len(page)
        if len(leaves) == TILE_WIDTH:
            tiles.append(complete_root(leaves))
        else:
            rest = leaves
    return Hashes(tuple(tiles), tuple(rest)) if start == stop else None
