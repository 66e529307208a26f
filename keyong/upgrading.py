"""Bringing a home to this release: its stores, while no process of an older release serves it."""

from __future__ import annotations

import time
from contextlib import ExitStack

from coordinator.migrations import COORDINATOR_STORE
from federation.errors import UnavailableError
from federation.home import AlreadyServingError, Home
from federation.stores import HOME_STORE, Migrated, Store, migrate, standing

STORES = (HOME_STORE, COORDINATOR_STORE)
ROLES = ("node", "coordinator")
WAIT_SECONDS = 2.0


class StoreInUseError(UnavailableError):
    """A store has to be migrated, and a process of the older release may have it open."""

    code = "store-in-use"


def upgrade(home: Home) -> list[Migrated]:
    """Migrate those stores of a home that an older release wrote, each after a copy; nothing where all are current.

    A newer store is left to whoever opens it: a command that does not need it is not stopped.

    Raises:
        StoreInUseError: a process serves this home, so it is one of the older release.
        CopyError, MigrationFailedError: the store concerned is as it was.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while _older(home):
        try:
            with ExitStack() as claims:
                for role in ROLES:
                    claims.callback(home.claim(role).release)
                done = [migrate(home.path / store.file, store) for store in STORES if _is_older(home, store)]
            return [one for one in done if one is not None]
        except AlreadyServingError as error:
            if time.monotonic() > deadline:
                raise StoreInUseError(
                    "the stores of this home must be migrated, but an older release still serves it as {role}",
                    hint="end that process first (`ps aux | grep keyong` names it), then try again",
                    role=error.params["role"],
                ) from None
            time.sleep(0.05)  # or it is another command of this release, about to be done with it
    return []


def _older(home: Home) -> bool:
    return any(_is_older(home, store) for store in STORES)


def _is_older(home: Home, store: Store) -> bool:
    return standing(home.path / store.file, store).state == "older"
