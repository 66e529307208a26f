"""The ledger's C2SP tile files as they would lie on a disk, read from its database: what a browser verifies."""

from __future__ import annotations

import re

from federation.errors import UsageError
from federation.ledger.merkle import TILE_WIDTH
from federation.ledger.store import reading
from federation.ledger.tiles import CHECKPOINT, tile_bytes
from keyong.pages.source import Source

_PATH = re.compile(r"tile/(entries|[0-6])/((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


class NoTileError(UsageError):
    """The ledger has no such file."""

    code = "no-tile"


def read_tile(source: Source, path: str) -> bytes:
    """The content of ``checkpoint`` or of a tile, as it is stored: whether it is right is for the reader to find out.

    Raises:
        NoTileError: there is none of this name.
    """
    with reading(source.database) as connection:
        if path == CHECKPOINT:
            row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
            if row is None or not isinstance(row[0], bytes):
                raise NoTileError("the ledger holds no signed checkpoint")
            return row[0]
        found = _PATH.fullmatch(path)
        if found is None or int(found[3] or 1) >= TILE_WIDTH:
            raise NoTileError("the ledger has no file {path}", path=path[:80])
        level = "entries" if found[1] == "entries" else int(found[1])
        number = int(re.sub(r"[x/]", "", found[2]))
        width = int(found[3] or TILE_WIDTH)
        content = tile_bytes(connection, level, number, width)  # type: ignore[arg-type]
    if not content:
        raise NoTileError("the ledger has no file {path}", path=path[:80])
    return content
