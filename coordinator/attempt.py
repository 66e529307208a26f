"""One attempt of a masked round."""

from __future__ import annotations

import asyncio
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
        """How many nodes' shares open its sum."""
        return self.masked.announcements.scope.threshold
