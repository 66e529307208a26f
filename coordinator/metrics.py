"""The coordinator's instruments; see docs/metrics.md for what each is good for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federation.observability import Known, ServiceMetrics
from federation.observability.instruments import STEP_BUCKETS

STAGES = ("train", "evaluate")
ENDS = ("done", "failed", "denied", "cancelled", "interrupted")
CODES = (
    "aborted",
    "action",
    "agreement",
    "agreement-before-ledger",
    "agreement-mismatch",
    "agreement-revoked",
    "agreement-suspended",
    "anonymize",
    "app-exception",
    "app-import",
    "app-missing-dependency",
    "app-no-reply",
    "app-reply-type",
    "app-syntax",
    "approval",
    "asker-silent",
    "assignee",
    "attribute",
    "bilateral-plan",
    "budget",
    "busy",
    "cancelled",
    "cipher-context",
    "cipher-parameters",
    "clock",
    "closed",
    "code-digest",
    "code-mismatch",
    "column",
    "compensate",
    "constraint",
    "content-mismatch",
    "count",
    "count-missing",
    "data-version",
    "dataset-changed",
    "dataset-column-missing",
    "dataset-empty",
    "dataset-type",
    "date-time",
    "delete",
    "differencing",
    "disclosure-rules",
    "elapsed-time",
    "encoding",
    "encoding-weight",
    "event",
    "expired",
    "idle",
    "industry",
    "internal",
    "job-ended",
    "killed",
    "leak-budget",
    "ledger-unavailable",
    "limit-memory",
    "limit-reached",
    "limit-wall",
    "link-lost",
    "malformed",
    "mask-keys",
    "masked-cohort",
    "masking",
    "max-output-bytes",
    "memory-unavailable",
    "metered-time",
    "min-group-size",
    "min-participants",
    "min-tier",
    "no-answer",
    "no-such-dataset",
    "no-such-job",
    "node-offline",
    "node-stopped",
    "noise",
    "not-made-up",
    "not-released",
    "not-yet-valid",
    "out-of-memory",
    "output-config",
    "output-dtype",
    "output-extra-array",
    "output-extra-metric",
    "output-kind",
    "output-metric-range",
    "output-metric-type",
    "output-missing-array",
    "output-missing-metric",
    "output-not-finite",
    "output-refused",
    "output-shape",
    "output-too-large",
    "pay-amount",
    "policy",
    "prohibition",
    "protection",
    "protection-unavailable",
    "protocol-version",
    "psi-cheating",
    "psi-missing",
    "purpose",
    "query-bounds",
    "query-categories",
    "query-comparison",
    "query-entity-twice",
    "query-noise",
    "query-schema",
    "query-unit",
    "query-void",
    "receipt",
    "recipient",
    "release-slot",
    "replay",
    "reply",
    "restored",
    "revoked",
    "rho",
    "roster-changed",
    "round-abandoned",
    "round-aborted",
    "rounds-exceeded",
    "rules",
    "rules-key",
    "runtime-differs",
    "sandbox-unavailable",
    "scoring-parameters",
    "share",
    "source-credentials",
    "source-query",
    "source-slow",
    "source-unavailable",
    "spatial",
    "statement",
    "stopping",
    "survivors",
    "system-device",
    "tariff",
    "tier-unavailable",
    "time-interval",
    "too-few-keys",
    "too-few-subjects",
    "too-many-jobs",
    "total-output-bytes",
    "unknown-member",
    "version",
    "withdrawn",
)
"""Why nodes refuse or fall out, as far as it is told apart. Another party sends these words: what is not here is
``other``, or a member could fill this process with labels."""


class CoordinatorMetrics(ServiceMetrics):
    """What one coordinator counts and measures."""

    def __init__(self) -> None:
        super().__init__("coordinator")
        self._codes = Known(CODES)
        self._elapsed: dict[str, float] = {}
        self._rounds = Histogram(
            "keyong_coordinator_exchange_seconds",
            "Seconds from one exchange of a job to the next: asking all nodes, adding, the app's own time.",
            ("stage",),
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self._ended = Counter(
            "keyong_coordinator_jobs_ended_total", "Jobs that ended, by how.", ("status",), registry=self.registry
        )
        self._fallen = Counter(
            "keyong_coordinator_nodes_fallen_total",
            "Times that a node fell out of a job, or could not be asked, by code.",
            ("code",),
            registry=self.registry,
        )
        self._denied = Counter(
            "keyong_coordinator_nodes_denied_total",
            "Times that a node refused a plan or a step, by code.",
            ("code",),
            registry=self.registry,
        )
        for status in ENDS:
            self._ended.labels(status)
        for stage in STAGES:
            self._rounds.labels(stage)
        info = Info("keyong_coordinator", "Release of the software.", registry=self.registry)
        info.info({"version": version("keyong")})

    def event(self, job: str, kind: str, data: Mapping[str, Any]) -> None:
        """Something happened in a job."""
        if kind == "round" and data["stage"] in STAGES:
            before = self._elapsed.get(job, 0.0)
            elapsed = float(data["elapsed"])
            self._rounds.labels(data["stage"]).observe(elapsed - before if elapsed >= before else elapsed)
            self._elapsed[job] = elapsed
        elif kind in ("fell-out", "node-unavailable"):
            self._fallen.labels(self._codes.label(str(data.get("code", "")))).inc()
        elif kind == "denied" and "node" in data:
            self._denied.labels(self._codes.label(str(data.get("code", "")))).inc()
        elif kind in ENDS:
            self._elapsed.pop(job, None)
            self._ended.labels(kind).inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is looked up when it is asked for."""
        Gauge(f"keyong_coordinator_{name}", text, registry=self.registry).set_function(value)

    def nodes(self, members: Callable[[], Iterable[str]], online: Callable[[], Iterable[str]]) -> None:
        """Report for each member of the roster that may serve a node whether it is connected."""
        self.registry.register(_Nodes(members, online))


class _Nodes(Collector):
    def __init__(self, members: Callable[[], Iterable[str]], online: Callable[[], Iterable[str]]) -> None:
        self._members = members
        self._online = online

    def collect(self) -> Iterable[Metric]:
        """One value a node that has served since this process began, or serves."""
        up = GaugeMetricFamily(
            "keyong_coordinator_node_up", "1 while that member's node is connected.", labels=["node"]
        )
        online = set(self._online())
        for member in sorted(self._members()):
            up.add_metric([member], float(member in online))
        yield up
