"""What a serving party does by itself: it goes on along terms that its owner consented to, and starts what was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog

from federation.dataspace.negotiator import Negotiator
from federation.dataspace.party import Party
from federation.dataspace.store import NegotiationRow, TransferRow
from federation.dataspace.transfer import Grantor
from federation.errors import KeyongError

log = structlog.get_logger("keyong.dataspace")

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0


class Reactions:
    """Takes every step that is due; one that fails is tried again after a growing wait.

    What is due is read from the store each time, so that a process that died goes on where it was. Blocking.
    """

    def __init__(self, party: Party, clock: Callable[[], float] = time.monotonic) -> None:
        self._party = party
        self._clock = clock
        self._negotiator, self._grantor = Negotiator(party), Grantor(party)
        self._waits: dict[str, tuple[float, float]] = {}

    def run(self) -> int:
        """Take the steps that are due now; returns how many were taken."""
        taken = 0
        store = self._party.store
        for negotiation in store.list(NegotiationRow, open_only=True):
            if self._negotiator.due(negotiation):
                taken += self._tried(negotiation.pid, partial(self._negotiator.go_on, negotiation))
        for transfer in store.list(TransferRow, open_only=True):
            if target := self._grantor.due(transfer):
                taken += self._tried(transfer.pid, partial(self._grantor.lead, transfer, target))
        return taken

    def _tried(self, pid: str, step: Callable[[], object]) -> bool:
        since, wait = self._waits.get(pid, (0.0, 0.0))
        if self._clock() < since + wait:
            return False
        try:
            step()
        except KeyongError as error:
            log.info("dataspace-step-put-off", code=error.code, pid=pid)
            self._waits[pid] = (self._clock(), min(LONGEST_WAIT_SECONDS, wait * 2 or FIRST_WAIT_SECONDS))
            return False
        self._waits.pop(pid, None)
        return True
