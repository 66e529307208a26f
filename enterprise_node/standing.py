"""A serving node as its owner sees it: health, status and figures that are looked up when they are asked for."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from enterprise_node.line import Line
from enterprise_node.metrics import NodeMetrics
from enterprise_node.record import Record
from enterprise_node.status import NodeStatus, moment, open_jobs, stored
from enterprise_node.store import NodeStore
from federation.holdings import Holdings
from federation.home import Home, now
from federation.ledger import LedgerError
from federation.observability import Check, Health, Recent


class Standing:
    """What is known of a node that serves."""

    def __init__(
        self, home: Home, record: Record, store: NodeStore, holdings: Holdings, line: Line, metrics: NodeMetrics
    ) -> None:
        self._home = home
        self._record = record
        self._store = store
        self._holdings = holdings
        self._line = line
        self._metrics = metrics
        self._began = now()
        self._attached: datetime | None = None
        self._because = ""
        self._tier = ""
        self.draining = False
        self.health = Recent(self._look)
        metrics.watch(home.path, record.ledger, lambda: home.history.latest.expires)
        metrics.gauge("jobs_open", "Jobs that are open.", lambda: len(line.jobs))
        metrics.gauge("sessions_open", "Sandbox sessions of jobs.", lambda: self._count(session=True))
        metrics.gauge("steps_running", "Steps at work.", lambda: self._count(session=False))

    def _count(self, *, session: bool) -> int:
        jobs = list(self._line.jobs.values())
        return sum(job.session is not None if session else job.lock.locked() for job in jobs)

    def isolated_at(self, tier: str) -> None:
        """The canary has found this tier to hold."""
        self._tier = tier
        self._metrics.describe(tier)

    def attached(self) -> None:
        """The link is made, and the coordinator knows this node."""
        self._attached, self._because = now(), ""
        self._metrics.attached(True)

    def detached(self, because: str) -> None:
        """There is no link now, for the reason with that code."""
        self._attached, self._because = None, because
        self._metrics.attached(False)

    @property
    def registry(self) -> CollectorRegistry:
        """The node's metrics."""
        return self._metrics.registry

    async def _look(self) -> Health:
        ledger = Check(name="ledger", ok=True)
        try:
            await asyncio.to_thread(self._record.ledger.check_writable)
        except LedgerError as error:
            ledger = Check(name="ledger", ok=False, detail=str(error))
        link = Check(
            name="link", ok=self._attached is not None, own=False, since=moment(self._attached), detail=self._because
        )
        return Health(checks=(ledger, Check(name="serving", ok=not self.draining), link))

    async def status(self) -> NodeStatus:
        """How the node stands."""
        health = await self.health()
        found = await asyncio.to_thread(stored, self._home, self._record, self._store, self._holdings)
        return found.model_copy(
            update={
                "serving": True,
                "since": moment(self._began),
                "pid": os.getpid(),
                "version": version("keyong"),
                "attached": self._attached is not None,
                "attached_since": moment(self._attached),
                "detached_because": self._because,
                "draining": self.draining,
                "tier": self._tier,
                "checks": health.checks,
                "jobs": open_jobs(self._line.jobs),
            }
        )
