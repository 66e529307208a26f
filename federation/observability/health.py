"""Whether a service can do its work, and what of it depends on others."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
