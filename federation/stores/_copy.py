"""A consistent, durable, private copy of a database, also while others write to it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from federation.errors import UnavailableError

_PAGES = 1024
_BUSY_SECONDS = 30.0


class CopyError(UnavailableError):
    """A database could not be copied; no copy was left behind."""

    code = "copy"


def copy_database(source: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy a database as it stands at one moment, by SQLite's own backup; ``target`` must not exist, and gets mode 0600.

    The copy is one file without a log beside it, flushed to the disk together with its name.

    Args:
        progress: told pages copied and pages in all.

    Raises:
        CopyError: it cannot be read or written, or the target exists.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _failed(target, os.strerror(error.errno or 0)) from None
    try:
        uri = f"{source.absolute().as_uri()}?mode=rw"
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as reader,
            closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as writer,
        ):
            reader.execute("PRAGMA query_only = ON")
            writer.execute("PRAGMA synchronous = FULL")
            # A transaction that reads: pages written meanwhile do not make the backup begin anew.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            reader.backup(
                writer,
                pages=_PAGES,
                progress=None if progress is None else lambda _, left, all_: progress(all_ - left, all_),
            )
            writer.execute("PRAGMA journal_mode = DELETE")
        for path in (target, target.parent):
            sync(path)
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            target.unlink()
        raise _failed(target, str(error)) from None


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(target: Path, reason: str) -> CopyError:
    return CopyError(
        "the copy {path} cannot be made: {reason}",
        hint="free the disk or mend the folder's permissions, then try again",
        path=str(target),
        reason=reason,
    )
