"""The instruments that every serving process has; each service adds its own.

Every service has a registry of its own, so that two in one process (tests, notebooks) never share a figure. Labels come
from closed vocabularies: no dataset, no job and no text that another party chose becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federation.ledger import Ledger
from federation.observability.machine import free_bytes, spooled_bytes
from federation.wire.meter import Meter

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began is of no use, and doubles what is scraped

OTHER = "other"
APPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class Known:
    """A vocabulary as values of a label: what is not in it counts as ``other``.

    Args:
        names: always in it.
        more: how many others are taken in as they come: for words of this process's own, never for another party's.
    """

    def __init__(self, names: Collection[str] = (), more: int = 0) -> None:
        self._names = set(names)
        self._room = more

    def label(self, name: str) -> str:
        """The name, or ``other``."""
        if name not in self._names and self._room > 0:
            self._room -= 1
            self._names.add(name)
        return name if name in self._names else OTHER


class ServiceMetrics:
    """Ledger, link, disk and process of one service.

    Args:
        service: ``node`` or ``coordinator``, second part of every name.
    """

    def __init__(self, service: str) -> None:
        self.prefix = f"keyong_{service}"
        self.registry = CollectorRegistry()
        self.meter = Meter()
        self._append = Histogram(
            f"{self.prefix}_ledger_append_seconds",
            "Time until an entry of the ledger was durable.",
            buckets=APPEND_BUCKETS,
            registry=self.registry,
        )
        self._append_failures = Counter(
            f"{self.prefix}_ledger_append_failures_total",
            "Entries that the ledger did not take: refused by a rule, or a failing disk.",
            registry=self.registry,
        )

    def watch(self, home: Path, ledger: Ledger, roster_expires: Callable[[], datetime]) -> None:
        """Report this home's ledger, disk and roster, and this process; call it once."""
        ledger.observe = self._appended
        self.registry.register(_Standing(self.prefix, home, ledger, self.meter, roster_expires))
        ProcessCollector(registry=self.registry)

    def _appended(self, seconds: float, ok: bool) -> None:
        if ok:
            self._append.observe(seconds)
        else:
            self._append_failures.inc()


class _Standing(Collector):
    """What is looked up when it is asked for."""

    def __init__(
        self, prefix: str, home: Path, ledger: Ledger, meter: Meter, roster_expires: Callable[[], datetime]
    ) -> None:
        self._prefix = prefix
        self._home = home
        self._ledger = ledger
        self._meter = meter
        self._roster_expires = roster_expires

    def collect(self) -> Iterable[Metric]:
        """The metrics, with their values now."""
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("ledger_entries", "Entries of the ledger.", lambda: self._ledger.size),
            (
                "ledger_checkpoint_timestamp_seconds",
                "When the last checkpoint of the ledger was signed (Unix time).",
                lambda: self._ledger.checkpoint_time().timestamp(),
            ),
            ("home_free_bytes", "Bytes free on the disk of the home.", lambda: free_bytes(self._home)),
            ("spool_bytes", "Bytes of message bodies in the spool.", lambda: spooled_bytes(self._home / "spool")),
            (
                "roster_expiry_timestamp_seconds",
                "When the newest roster expires (Unix time).",
                lambda: self._roster_expires().timestamp(),
            ),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value())
        received = "Bytes of headers and bodies that came over links."
        yield CounterMetricFamily(f"{self._prefix}_link_received_bytes", received, self._meter.received)
        yield CounterMetricFamily(
            f"{self._prefix}_link_sent_bytes", "Bytes of headers and bodies that went over links.", self._meter.sent
        )


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics in Prometheus's text format, version 0.0.4."""
    return generate_latest(registry)


EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"
