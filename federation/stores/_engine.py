"""Opening a store: at the revision this release reads, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from federation.stores._migration import create
from federation.stores._store import Store, StoreOlderError, refuse_newer, standing

if TYPE_CHECKING:
    from sqlalchemy import Engine


KEPT_CONNECTIONS: Final = 2
"""Kept open between uses: threads that meet open more, and close them again, so that a service's descriptors stay as few."""
MORE_CONNECTIONS: Final = 13
"""Beside those kept, before a thread waits for another's."""


def open_engine(path: Path, store: Store) -> Engine:
    """An engine with WAL, full sync and foreign keys over a store at its newest revision; made where it is missing.

    An older store is not migrated here: another process may have it open. Whoever composes a process does that first
    (:func:`federation.stores.migrate`).

    Raises:
        StoreOlderError, StoreNewerError: another release wrote it.
        StoreUnreadableError: it cannot be read.
    """
    from sqlalchemy import create_engine, event

    found = standing(path, store)
    refuse_newer(path, store, found)
    if found.state == "older":
        raise StoreOlderError(
            "{path} was written by an older release (revision {revision}, here {newest})",
            hint="end every process of this home, then run any command with it, such as `keyong whoami`:"
            " that makes a copy and migrates it",
            path=str(path),
            revision=found.revision,
            newest=store.newest,
        )
    if found.state == "absent":
        create(path, store)
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": 30},
        pool_size=KEPT_CONNECTIONS,
        max_overflow=MORE_CONNECTIONS,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
