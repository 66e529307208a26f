"""The pages of one service: on the socket in its home always, on an address where its owner wants it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from federation.observability.face import JSON, TEXT, Answer, Face, Route
from federation.observability.health import Health
from federation.observability.instruments import EXPOSITION_TYPE, exposition
from federation.observability.local import socket_of

Act = Callable[[], Awaitable[None]]
Strike = Callable[[str, str], None]
WHY = ("revoked", "suspended")
"""What an owner may be about to do to an agreement."""


class Observed(Protocol):
    """A service as it is looked at."""

    @property
    def registry(self) -> CollectorRegistry:
        """Its metrics."""

    @property
    def health(self) -> Callable[[], Awaitable[Health]]:
        """Tells whether it can do its work now."""

    async def status(self) -> BaseModel:
        """How it stands, for its owner."""


@dataclass(frozen=True)
class Observer:
    """Serves one service's pages.

    ``/healthz``, ``/readyz`` and ``/metrics`` are for machines; ``/health`` and ``/status`` name reasons, jobs and parties,
    and are on the home's socket alone, as are ``/strike/revoked/AGREEMENT`` and ``/strike/suspended/AGREEMENT``, which
    end at once what runs under an agreement that its owner is about to end or to interrupt, and ``/uphold``: it answers once
    the service has acted on what its owner's command changed in the store, which it would notice a second later by itself.

    Args:
        role: ``node`` or ``coordinator``; names the socket.
        address: host and port for Prometheus and probes; None for the socket alone.
    """

    home: Path
    role: str
    address: tuple[str, int] | None = None

    @contextlib.asynccontextmanager
    async def serving(
        self, service: Observed, uphold: Act | None = None, strike: Strike | None = None
    ) -> AsyncIterator[int]:
        """Serve for the block; gives the port, 0 where there is no address. ``uphold`` acts on a changed store, ``strike``
        on the id or digest of an agreement, and why."""
        pages = _Pages(service, uphold)
        named = {f"/strike/{why}/": partial(_struck, strike, why) for why in WHY} if strike is not None else {}
        local, public = Face(pages.local, named), Face(pages.public)
        try:
            await local.listen_locally(socket_of(self.home, self.role))
            yield await public.listen(*self.address) if self.address else 0
        finally:
            await local.close()
            await public.close()


class _Pages:
    def __init__(self, service: Observed, uphold: Act | None) -> None:
        self._service = service
        self.public: dict[str, Route] = {"/healthz": self._alive, "/readyz": self._ready, "/metrics": self._metrics}
        self.local: dict[str, Route] = {**self.public, "/health": self._whole_health, "/status": self._status}
        if uphold is not None:
            self.local["/uphold"] = partial(_done, uphold)

    async def _alive(self) -> Answer:
        return Answer(b"ok\n", TEXT)  # that it is given at all is the answer

    async def _ready(self) -> Answer:
        health = await self._service.health()
        checks = {check.name: check.ok for check in health.checks}
        return _judged({"ready": health.ready, "checks": checks}, good=health.ready)

    async def _whole_health(self) -> Answer:
        health = await self._service.health()
        told = {"sound": health.sound, "ready": health.ready, **health.model_dump(mode="json")}
        return _judged(told, good=health.sound)

    async def _metrics(self) -> Answer:
        return Answer(await asyncio.to_thread(exposition, self._service.registry), EXPOSITION_TYPE)

    async def _status(self) -> Answer:
        status = await self._service.status()
        return Answer(status.model_dump_json().encode(), JSON)


async def _done(act: Act) -> Answer:
    await act()
    return Answer(b"ok\n", TEXT)


async def _struck(strike: Strike, why: str, agreement: str) -> Answer:
    strike(agreement, why)
    return Answer(b"ok\n", TEXT)


def _judged(told: dict[str, object], *, good: bool) -> Answer:
    return Answer(json.dumps(told).encode(), JSON, HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)
