"""The recorded homes of release 0.1.0, unpacked for one test."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parent / "recorded" / "homes-0.1.0.tar.gz"


def unpack_homes(folder: Path) -> Path:
    """The folder with the homes ``institute`` (founder, coordinator), ``mill`` (node) and ``lab`` (analyst)."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            path = folder / member.name
            if member.isdir():
                path.mkdir(mode=0o700)
                continue
            file = archive.extractfile(member)
            assert file is not None
            path.write_bytes(file.read())
            path.chmod(0o600)
    folder.chmod(0o700)
    return folder


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, apart from what migrations themselves write."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        ours = [name for name in names if name not in ("alembic_version", "store_release")]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1")] for name in ours}


def schema(path: Path) -> dict[str, Any]:
    """Columns, keys and indices of every table, whatever the order they were made in."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
            indices = {
                (row[1], row[2]): [one[2] for one in connection.execute(f"PRAGMA index_info({row[1]})")]
                for row in connection.execute(f"PRAGMA index_list({name})").fetchall()
            }
            found[name] = (columns, indices)
    return found
