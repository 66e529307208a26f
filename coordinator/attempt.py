"""One attempt of a masked round."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from coordinator.mask_setup import MaskedCohort
from coordinator.sums import Sum
from federation.secagg import MaskContext
from federation.statements import Envelope


@dataclass
class Attempt:
    """One attempt of a round, as far as it has come."""

    number: int
    attempt: int
    masked: MaskedCohort
    context: MaskContext
    invocations: dict[str, Envelope]
    sum: Sum
    inputs: dict[str, Envelope] = field(default_factory=dict)
    """Each node's word on the vector that is in the sum."""
    fallen: dict[str, str] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    adding: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def need(self) -> int:
        """How many nodes it takes to open its sum."""
        return self.masked.announcements.scope.threshold

    def opens(self, nodes: Collection[str]) -> bool:
        """Whether these nodes' shares open its sum: enough of them, and enough around each participant."""
        return len(nodes) >= self.need and not self.masked.announcements.graph.thin(nodes)
