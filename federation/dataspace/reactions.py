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
from federation.errors import KeyongError, UnavailableError

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
        """By process, or by member: until when nothing is tried, and how long that wait was."""

    def run(self) -> int:
        """Take the steps that are due now; returns how many were taken."""
        taken = 0
        store = self._party.store
        for negotiation in store.list(NegotiationRow, open_only=True):
            if self._negotiator.due(negotiation):
                taken += self._tried(negotiation, partial(self._negotiator.go_on, negotiation))
        for transfer in store.list(TransferRow, open_only=True):
            if target := self._grantor.due(transfer):
                taken += self._tried(transfer, partial(self._grantor.lead, transfer, target))
        return taken

    def _tried(self, row: NegotiationRow | TransferRow, step: Callable[[], object]) -> bool:
        now = self._clock()
        if any(now < self._waits[name][0] for name in (row.pid, row.peer) if name in self._waits):
            return False
        try:
            step()
        except UnavailableError as error:
            self._put_off(row.peer, error.code)  # whoever does not answer is not asked for each of its processes
        except KeyongError as error:
            self._put_off(row.pid, error.code)
        except Exception as error:
            log.error("dataspace-step-failed", error=type(error).__name__, pid=row.pid, exc_info=True)
            self._put_off(row.pid, "internal")
        else:
            self._waits.pop(row.pid, None)
            self._waits.pop(row.peer, None)
            return True
        return False

    def _put_off(self, name: str, code: str) -> None:
        _, wait = self._waits.get(name, (0.0, 0.0))
        wait = min(LONGEST_WAIT_SECONDS, wait * 2 or FIRST_WAIT_SECONDS)
        self._waits[name] = (self._clock() + wait, wait)
        log.info("dataspace-step-put-off", code=code, of=name)
