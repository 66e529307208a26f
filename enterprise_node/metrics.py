"""The node's instruments; see docs/metrics.md for what each is good for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import Counter, Gauge, Histogram, Info

from enterprise_node.laps import PARTS
from federation.observability import Known, ServiceMetrics
from federation.observability.instruments import STEP_BUCKETS
from federation.statements.receipt import Outcome

CODES = 100
"""Distinct codes of refusal that are told apart; they are this node's own words."""


class NodeMetrics(ServiceMetrics):
    """What one node counts and measures."""

    def __init__(self) -> None:
        super().__init__("node")
        self._invocations = Counter(
            "keyong_node_invocations_total",
            "Steps that had their INTENT, by stage of the job and outcome.",
            ("stage", "outcome"),
            registry=self.registry,
        )
        self._parts = Histogram(
            "keyong_node_line_seconds",
            "Seconds that steps spent in each part of the line.",
            ("part",),
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self._denials = Counter(
            "keyong_node_denials_total",
            "Plans and steps that were refused before an INTENT, by code.",
            ("code",),
            registry=self.registry,
        )
        self._codes = Known(more=CODES)
        self._up = Gauge("keyong_node_link_up", "1 while the coordinator is connected.", registry=self.registry)
        self._connects = Counter(
            "keyong_node_link_connects_total", "Times that the link was made.", registry=self.registry
        )
        for part in PARTS:
            self._parts.labels(part)

    def settled(self, stage: str, outcome: Outcome, seconds: Mapping[str, float]) -> None:
        """A step has its OUTCOME."""
        self._invocations.labels(stage, outcome).inc()
        for part, spent in seconds.items():
            self._parts.labels(part).observe(spent)

    def denied(self, code: str) -> None:
        """Something was refused before an INTENT."""
        self._denials.labels(self._codes.label(code)).inc()

    def attached(self, up: bool) -> None:
        """The link came or went."""
        self._up.set(up)
        if up:
            self._connects.inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is looked up when it is asked for."""
        Gauge(f"keyong_node_{name}", text, registry=self.registry).set_function(value)

    def describe(self, tier: str) -> None:
        """Say what serves here: its release, and what isolates its sessions."""
        info = Info("keyong_node", "Release of the software and tier of isolation.", registry=self.registry)
        info.info({"version": version("keyong"), "tier": tier})
