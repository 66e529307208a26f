"""What a store is, and at which revision the file on disk stands, read without any library of the stores' own.

Each store has a line of migrations, numbered ``0001``, ``0002``, ... A store holds its revision in ``alembic_version``
and, in ``store_release``, which release brought it there: so that an older release can say who wrote what it refuses.
Release 0.1.0 had neither table.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from federation.errors import UnavailableError
from federation.release import release

UNVERSIONED = "0.1.0"
"""What the revision of a store is called that the first release wrote: it has tables, and no revision."""
BACKUPS = "backups"
_BUSY_SECONDS = 10.0


class StoreNewerError(UnavailableError):
    """A store was written by a newer release; this one would misread it."""

    code = "store-newer"


class StoreOlderError(UnavailableError):
    """A store was written by an older release and has not been migrated."""

    code = "store-older"


class StoreUnreadableError(UnavailableError):
    """A store's file cannot be read, or is no store."""

    code = "store-unreadable"


class MigrationFailedError(UnavailableError):
    """A migration could not be carried out; the store is as it was."""

    code = "store-migration"


@dataclass(frozen=True)
class Store:
    """One database below a home.

    Args:
        name: its file's name without the ending.
        migrations: the package that holds its migrations, one module a revision, ``rNNNN_what.py``.
    """

    name: str
    migrations: str

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.name}.db"

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions this release knows, oldest first."""
        return _revisions(self.migrations)

    @property
    def newest(self) -> str:
        """The revision this release reads and writes."""
        return self.revisions[-1]


HOME_STORE = Store("store", "federation.stores.migrations")
"""Agreements, mail read so far, datasets and accepted entities: every member's."""


@cache
def _revisions(package: str) -> tuple[str, ...]:
    names = (entry.name for entry in files(package).iterdir())
    return tuple(sorted(name[1:5] for name in names if name.startswith("r") and name.endswith(".py")))


@dataclass(frozen=True)
class Standing:
    """How a store's file stands to this release.

    Args:
        state: ``absent`` (no file, or no table in it), ``older``, ``current`` or ``newer``.
        revision: the revision it holds; empty where absent.
        release: the release that brought it there, as far as it says so.
    """

    state: Literal["absent", "older", "current", "newer"]
    revision: str = ""
    release: str = ""


def standing(path: Path, store: Store) -> Standing:
    """How the file at ``path`` stands to this release.

    Raises:
        StoreUnreadableError: it cannot be read, or is no SQLite database.
    """
    if not path.exists():
        return Standing("absent")
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"  # not "ro": a database whose last process was killed needs its log
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as connection:
            return _standing(connection, store)
    except sqlite3.Error as error:
        raise StoreUnreadableError(
            "the store {path} cannot be read: {reason}",
            hint="restore it from a backup (`keyong restore`), or mend the folder's permissions",
            path=str(path),
            reason=str(error),
        ) from None


def _standing(connection: sqlite3.Connection, store: Store) -> Standing:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" not in tables:
        return Standing("older", UNVERSIONED, UNVERSIONED) if tables else Standing("absent")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        return Standing("older", UNVERSIONED, UNVERSIONED)
    revision, wrote = str(row[0]), ""
    if "store_release" in tables:
        found = connection.execute("SELECT release FROM store_release WHERE revision = ?", (revision,)).fetchone()
        wrote = str(found[0]) if found else ""
    if revision == store.newest:
        return Standing("current", revision, wrote)
    return Standing("older" if revision in store.revisions else "newer", revision, wrote)


def refuse_newer(path: Path, store: Store, found: Standing) -> None:
    """Raise where the store was written by a newer release."""
    if found.state == "newer":
        raise StoreNewerError(
            "{path} was written by release {release} (revision {revision}); this is release {ours},"
            " which reads up to revision {newest}",
            hint="upgrade this software to that release or a newer one; or go back: end every process of this home and"
            " put the copy made before the upgrade, in {backups}, in its place",
            path=str(path),
            release=found.release[:32] or "?",
            revision=found.revision[:32],
            ours=release(),
            newest=store.newest,
            backups=str(path.parent / BACKUPS),
        )
