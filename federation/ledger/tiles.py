"""A ledger as files that tools for transparency logs read: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).

::

    checkpoint                       the newest signed note
    tile/<L>/<N>[.p/<W>]             256 (or W) hashes of tree level 8 * L, one after another
    tile/entries/<N>[.p/<W>]         256 (or W) entries, each after its length (u16, big endian)

N stands in groups of three digits, all but the last with an ``x`` before them: ``x001/x234/067``. Entries are the
envelopes: kinds, times and commitments. No field is in them, so nothing that was not said already is told.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from federation.errors import UsageError
from federation.ledger.checkpoint import Checkpoint
from federation.ledger.errors import LedgerUnavailableError
from federation.ledger.merkle import TILE_WIDTH
from federation.ledger.note import parse_note

CHECKPOINT = "checkpoint"


def tile_path(level: int | str, number: int, width: int = TILE_WIDTH) -> str:
    """Where a tile lies, relative to the log's root; ``level`` is ``entries`` for entries."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    path = f"tile/{level}/{'/'.join(groups)}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def tiles_of(size: int) -> Iterator[tuple[int, int, int]]:
    """Level, number and width of every hash tile of a tree of ``size`` entries; a level's partial tile is its last."""
    level, hashes = 0, size
    while hashes:
        whole, rest = divmod(hashes, TILE_WIDTH)
        yield from ((level, number, TILE_WIDTH) for number in range(whole))
        if rest:
            yield level, whole, rest
        level, hashes = level + 1, whole


def write_tiles(connection: sqlite3.Connection, folder: Path) -> int:
    """Write the snapshot that ``connection`` sees to ``folder``, the checkpoint last; returns how many files were new.

    May be repeated as the ledger grows: whole tiles never change and are not written again.

    Raises:
        UsageError: another ledger's tiles are there.
        LedgerUnavailableError: a file cannot be written; what the checkpoint there names is whole still.
    """
    note = bytes(connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()[0])
    checkpoint = Checkpoint.parse(parse_note(note).text)
    try:
        _check_same(folder, checkpoint)
        written = 0
        for level, number, width in tiles_of(checkpoint.size):
            written += _write(folder / tile_path(level, number, width), _hashes(connection, level, number, width))
            if level == 0:
                entries = _entries(connection, number, width)
                written += _write(folder / tile_path("entries", number, width), entries)
        _replace(folder / CHECKPOINT, note)
    except OSError as error:
        raise LedgerUnavailableError(
            "the tiles cannot be written: {reason}", reason=os.strerror(error.errno or 0)
        ) from error
    return written


def tile_bytes(connection: sqlite3.Connection, level: int | Literal["entries"], number: int, width: int) -> bytes:
    """The content of one tile of the snapshot that ``connection`` sees, as it is stored: shorter where hashes are not there."""
    if level == "entries":
        return _entries(connection, number, width)
    return _hashes(connection, level, number, width)


def _check_same(folder: Path, checkpoint: Checkpoint) -> None:
    there = folder / CHECKPOINT
    if not there.exists():
        return
    if Checkpoint.parse(parse_note(there.read_bytes()).text).origin != checkpoint.origin:
        raise UsageError("{path} holds another ledger's tiles", hint="name another folder", path=folder)


def _hashes(connection: sqlite3.Connection, level: int, number: int, width: int) -> bytes:
    first = number * TILE_WIDTH
    where: tuple[int, ...]
    if level == 0:
        query, where = "SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + width)
    else:
        query = "SELECT hash FROM tile WHERE number >= ? AND number < ? AND level = ? ORDER BY number"
        where = (first, first + width, level)
    return b"".join(row[0] for row in connection.execute(query, where))


def _entries(connection: sqlite3.Connection, number: int, width: int) -> bytes:
    first = number * TILE_WIDTH
    rows = connection.execute("SELECT data FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + width))
    return b"".join(len(data).to_bytes(2, "big") + data for (data,) in rows)


def _write(path: Path, data: bytes) -> bool:
    if path.is_file() and path.stat().st_size == len(data):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, data)
    return True


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
