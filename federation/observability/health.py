"""Whether a service can do its work, and what of it depends on others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict

HEALTH_SECONDS = 1.0
"""A health that was looked up so recently is told again: whoever polls costs nothing."""


class Check(BaseModel):
    """One thing that a service needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ok: bool
    own: bool = True
    """Whether it is this machine's own matter; a node's link is not: the other end may be away."""
    since: str = ""
    detail: str = ""
    """Why not; told to the owner alone."""


class Health(BaseModel):
    """Everything that was looked at, at one moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether all holds that is this machine's own matter."""
        return all(check.ok for check in self.checks if check.own)

    @property
    def ready(self) -> bool:
        """Whether work that arrives now would be done."""
        return all(check.ok for check in self.checks)


class Recent:
    """A health that is looked up at most once in :data:`HEALTH_SECONDS`, however many ask.

    Args:
        look: looks it up.
    """

    def __init__(self, look: Callable[[], Awaitable[Health]]) -> None:
        self._look = look
        self._looked = float("-inf")
        self._health = Health(checks=())
        self._looking = asyncio.Lock()

    async def __call__(self) -> Health:
        """The health, not older than that."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            if clock() - self._looked > HEALTH_SECONDS:
                self._health = await self._look()
                self._looked = clock()
            return self._health
