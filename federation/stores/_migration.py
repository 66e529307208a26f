"""Migrations by alembic, without its files of configuration: a copy first, then everything in one transaction.

SQLite's schema changes are transactional, but Python's driver commits before them unless it is told not to: the
transaction is begun by hand, so that a failure, or a crash, anywhere leaves the store as it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.crypto import make_private_dir
from federation.errors import KeyongError
from federation.release import release
from federation.stores._copy import copy_database
from federation.stores._store import BACKUPS, MigrationFailedError, Store, refuse_newer, standing

if TYPE_CHECKING:
    from sqlalchemy import Connection

COPIES = 5
"""Copies of a store that are kept below ``backups``; older ones make room."""
_BUSY_SECONDS = 30


@dataclass(frozen=True)
class Migrated:
    """What a migration did.

    Args:
        before: the revision it found, ``0.1.0`` for a store of the first release.
        after: the revision it left.
        copy: the store as it was before.
    """

    path: Path
    before: str
    after: str
    copy: Path


def migrate(path: Path, store: Store) -> Migrated | None:
    """Bring a store to the newest revision after a copy into ``backups`` beside it; None where nothing was to be done.

    The caller sees to it that no process of an older release has the store open.

    Raises:
        StoreNewerError: it was written by a newer release; nothing was changed.
        CopyError: no copy could be made, so nothing was changed.
        MigrationFailedError: nothing was changed.
    """
    found = standing(path, store)
    refuse_newer(path, store, found)
    if found.state != "older":
        return None
    copy = _copy(path, store, found.revision)
    try:
        _upgrade(path, store)
    except KeyongError:
        raise
    except Exception as error:
        raise MigrationFailedError(
            "{path} could not be migrated from revision {before} to {after} ({kind}); it is as it was",
            hint="go on with the release that wrote it, and report this; the copy made before is {copy}",
            path=str(path),
            before=found.revision,
            after=store.newest,
            kind=type(error).__name__,
            copy=str(copy),
        ) from error
    _drop_old_copies(copy.parent, store)
    return Migrated(path, found.revision, store.newest, copy)


def create(path: Path, store: Store) -> None:
    """Make a store at the newest revision; where another process makes it at the same time, both are content."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        _upgrade(path, store)
    except KeyongError:
        raise
    except Exception as error:
        raise MigrationFailedError(
            "the store {path} cannot be made ({kind})",
            hint="free the disk or mend the folder's permissions, then try again",
            path=str(path),
            kind=type(error).__name__,
        ) from error


def _copy(path: Path, store: Store, revision: str) -> Path:
    folder = path.parent / BACKUPS
    make_private_dir(folder)
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = folder / f"{store.name}-{revision}-{time}.db"
    copy_database(path, target)
    return target


def _drop_old_copies(folder: Path, store: Store) -> None:
    copies = sorted(folder.glob(f"{store.name}-*-*Z.db"), key=lambda one: one.stem.rpartition("-")[2])
    for old in copies[:-COPIES]:
        with suppress(OSError):
            old.unlink()


_ALEMBIC = threading.Lock()
"""Alembic's ``op`` is one for the whole process."""


def _upgrade(path: Path, store: Store) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    folder = str(files(store.migrations))
    script = ScriptDirectory(folder, version_locations=[folder])

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with _ALEMBIC, _transaction(path) as connection, EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
        environment.run_migrations()
        _note(connection, store)


@contextmanager
def _transaction(path: Path) -> Iterator[Connection]:
    """A connection inside one transaction that no other writer can enter; committed at the end, or undone."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS}, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _by_hand(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF"):  # tables may be rebuilt
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _note(connection: Connection, store: Store) -> None:
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS store_release ("
        "revision VARCHAR NOT NULL PRIMARY KEY, release VARCHAR NOT NULL, time VARCHAR NOT NULL)"
    )
    connection.exec_driver_sql(
        "INSERT OR IGNORE INTO store_release (revision, release, time) VALUES (?, ?, ?)",
        (store.newest, release(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
    )
