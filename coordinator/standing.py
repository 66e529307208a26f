"""A serving coordinator as its operator sees it: health, status and figures that are looked up when asked for."""

from __future__ import annotations

import asyncio
import os
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

from coordinator.desk import JobDesk
from coordinator.intake import DISK_RESERVE
from coordinator.links import Links
from coordinator.metrics import CoordinatorMetrics
from coordinator.store import CoordinatorStore
from federation.errors import KeyongError
from federation.home import Home, now
from federation.ledger import Ledger
from federation.observability import Check, Health, Recent, free_bytes, spooled_bytes
from federation.statements import instant_text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeState(_Part):
    """A member whose node is connected, and since when."""

    member: str
    since: str
    software: str


class JobState(_Part):
    """A job that waits, runs, or was interrupted."""

    job: str
    requester: str
    purpose: str
    status: str
    place: int
    """In the queue, from 1; 0 where it does not wait."""
    rounds: int
    submitted: str


class CoordinatorStatus(_Part):
    """Everything ``keyong coordinator status`` shows at the coordinator itself; part of the JSON interface."""

    consortium: str
    name: str
    member: str
    serving: bool
    since: str
    pid: int
    version: str
    port: int
    draining: bool
    roster_version: int
    roster_expires: str
    online: tuple[str, ...]
    nodes: tuple[NodeState, ...]
    links: int
    jobs_running: int
    jobs_waiting: int
    jobs: tuple[JobState, ...]
    ledger_entries: int
    checkpoint: str
    free_bytes: int
    spool_bytes: int
    checks: tuple[Check, ...]


class Standing:
    """What is known of a coordinator that serves."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        store: CoordinatorStore,
        links: Links,
        desk: JobDesk,
        metrics: CoordinatorMetrics,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._store = store
        self._links = links
        self._desk = desk
        self._metrics = metrics
        self._began = now()
        self.port = 0
        self.draining = False
        self.health = Recent(self._look)
        metrics.watch(home.path, ledger, lambda: home.history.latest.expires)
        metrics.gauge("jobs_running", "Jobs that run.", lambda: desk.running)
        metrics.gauge("jobs_waiting", "Jobs that wait for their turn.", lambda: desk.waiting)
        metrics.gauge("nodes_online", "Nodes that are connected.", lambda: len(links.online))
        metrics.gauge("links", "Links of all kinds: nodes, commands, newcomers.", lambda: len(links.peers))
        metrics.nodes(links.served, lambda: links.online)

    @property
    def registry(self) -> CollectorRegistry:
        """The coordinator's metrics."""
        return self._metrics.registry

    async def ready(self) -> bool:
        """Whether work that arrives now would be done."""
        return (await self.health()).ready

    async def _look(self) -> Health:
        ledger = Check(name="ledger", ok=True)
        try:
            await asyncio.to_thread(self._ledger.check_writable)
        except KeyongError as error:
            ledger = Check(name="ledger", ok=False, detail=str(error))
        free = free_bytes(self._home.path)
        disk = Check(
            name="disk",
            ok=free >= DISK_RESERVE,
            detail="" if free >= DISK_RESERVE else f"{free // 2**20} MiB < {DISK_RESERVE // 2**20} MiB",
        )
        return Health(
            checks=(
                ledger,
                disk,
                Check(name="listening", ok=self.port != 0),
                Check(name="serving", ok=not self.draining),
            )
        )

    async def status(self) -> CoordinatorStatus:
        """How the coordinator stands."""
        health = await self.health()
        return await asyncio.to_thread(self._status, health)

    def _status(self, health: Health) -> CoordinatorStatus:
        latest = self._home.history.latest
        places = self._desk.places()
        return CoordinatorStatus(
            consortium=latest.consortium,
            name=latest.name,
            member=self._home.identity.member,
            serving=True,
            since=instant_text(self._began),
            pid=os.getpid(),
            version=version("keyong"),
            port=self.port,
            draining=self.draining,
            roster_version=latest.version,
            roster_expires=instant_text(latest.expires),
            online=tuple(sorted(self._links.online)),
            nodes=tuple(
                NodeState(member=member, since=instant_text(served.since), software=served.software)
                for member, served in sorted(self._links.serving.items())
            ),
            links=len(self._links.peers),
            jobs_running=self._desk.running,
            jobs_waiting=self._desk.waiting,
            jobs=tuple(
                JobState(
                    job=row.id,
                    requester=row.requester,
                    purpose=row.purpose,
                    status=row.status,
                    place=places.get(row.id, 0),
                    rounds=row.rounds,
                    submitted=row.submitted,
                )
                for row in (*self._store.unfinished(), *self._store.interrupted())
            ),
            ledger_entries=self._ledger.size,
            checkpoint=instant_text(self._ledger.checkpoint_time()),
            free_bytes=free_bytes(self._home.path),
            spool_bytes=spooled_bytes(self._home.path / "spool"),
            checks=health.checks,
        )
