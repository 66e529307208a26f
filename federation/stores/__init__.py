"""The SQLite stores of a home: opened at the revision this release reads, migrated after a copy, refused when newer.

    >>> from federation.stores import HOME_STORE
    >>> HOME_STORE.file, HOME_STORE.revisions[0]
    ('store.db', '0001')

What it costs to import is the standard library: SQLAlchemy and alembic are loaded when a store is opened.
"""

from federation.stores._copy import CopyError, copy_database, sync
from federation.stores._engine import open_engine
from federation.stores._kept import KeptAnswers
from federation.stores._migration import COPIES, Migrated, migrate
from federation.stores._store import (
    HOME_STORE,
    UNVERSIONED,
    MigrationFailedError,
    Standing,
    Store,
    StoreNewerError,
    StoreOlderError,
    StoreUnreadableError,
    standing,
)

__all__ = [
    "COPIES",
    "HOME_STORE",
    "UNVERSIONED",
    "CopyError",
    "KeptAnswers",
    "Migrated",
    "MigrationFailedError",
    "Standing",
    "Store",
    "StoreNewerError",
    "StoreOlderError",
    "StoreUnreadableError",
    "copy_database",
    "migrate",
    "open_engine",
    "standing",
    "sync",
]
