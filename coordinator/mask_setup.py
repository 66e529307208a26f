"""Keys and shares of a masked cohort, gathered before its first round: two calls to each node for up to 32 rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from coordinator.answers import code_from
from coordinator.cohort import Cohort
from coordinator.links import Links
from federation.errors import KeyongError, UnavailableError
from federation.home import Home, now
from federation.secagg import Announcements, MaskingError, Scope
from federation.statements import SETUP_ROUNDS, Envelope, JobPlan, SealedShares
from federation.wire.messages import Envelopes, MaskKeys, MaskShares, pack, unpack
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming

log = structlog.get_logger("keyong.coordinator")

T = TypeVar("T")

SETUPS = 8
"""How often keys are asked for anew before a round: each time without those that were lost."""


MANY, SETUP_ROUNDS_OF_MANY = 64, 8
"""Beyond so many nodes keys are asked for fewer rounds at once, so that the announcements of all fit into one message."""


@dataclass(frozen=True)
class MaskedCohort:
    """Nodes that hold each other's shares.

    Attributes:
        boxes: the sealed shares for each node.
    """

    announcements: Announcements
    envelopes: tuple[Envelope, ...]
    boxes: dict[str, tuple[str, ...]]

    @property
    def participants(self) -> tuple[str, ...]:
        """The nodes, in order."""
        return self.announcements.scope.participants

    def serves(self, nodes: Sequence[str], number: int, attempt: int) -> bool:
        """Whether these nodes, and no others, hold keys for this attempt of a round."""
        try:
            self.announcements.scope.place(number, attempt)
        except MaskingError:
            return False
        return self.participants == tuple(sorted(nodes))


class MaskSetup:
    """Brings the live nodes of a cohort to share keys.

    Args:
        plan_digest: of the plan.
    """

    def __init__(self, home: Home, links: Links, plan: JobPlan, plan_digest: str, cohort: Cohort) -> None:
        self._home = home
        self._links = links
        self._plan = plan
        self._digest = plan_digest
        self._cohort = cohort
        self.held: MaskedCohort | None = None

    async def ensure(self, number: int, attempt: int, fallen: dict[str, str]) -> MaskedCohort | None:
        """The cohort whose keys serve this attempt of a round; made anew where there is none.

        Nobody has touched data when a node is lost here: the others begin again without it.

        Args:
            fallen: gets the code of each node that was lost.

        Returns:
            None where fewer are left than can be masked together.
        """
        if self.held is not None and self.held.serves(self._cohort.live, number, attempt):
            return self.held
        self.held = None
        for _ in range(SETUPS):
            nodes = tuple(sorted(self._cohort.live))
            if len(nodes) < self._plan.minimal_participants:
                return None
            try:
                most = SETUP_ROUNDS if len(nodes) <= MANY else SETUP_ROUNDS_OF_MANY
                rounds = min(most, max(1, 2 * self._plan.rounds + 2 - number))
                scope = Scope(self._digest, self._plan.roster, nodes, number, attempt, rounds)
            except KeyongError as error:
                log.warning("cohort-not-masked", code=error.code)
                return None
            made = await self._make(scope, fallen)
            if made is not None:
                self.held = made
                return made
        return None

    async def _make(self, scope: Scope, fallen: dict[str, str]) -> MaskedCohort | None:
        ask = MaskKeys(
            plan=scope.plan,
            participants=scope.participants,
            first=scope.first,
            attempt=scope.attempt,
            rounds=scope.rounds,
        )
        announced = await self._all(scope.participants, "mask.keys", ask.to_bytes(), fallen, _one)
        if announced is None:
            return None
        envelopes = tuple(announced[node] for node in scope.participants)
        public = lambda node: self._home.roster.member(node).public  # noqa: E731
        announcements = await asyncio.to_thread(Announcements.open, envelopes, scope, public, now())
        header = MaskShares(plan=scope.plan, announcements=tuple(map(pack, envelopes))).to_bytes()
        sealed = await self._all(
            scope.participants,
            "mask.shares",
            header,
            fallen,
            lambda node, got: _boxes(self._partners(announcements, node), node, got),
        )
        if sealed is None:
            return None
        boxes = {
            receiver: tuple(sealed[sender][receiver] for sender in self._partners(announcements, receiver))
            for receiver in scope.participants
        }
        return MaskedCohort(announcements, envelopes, boxes)

    def _partners(self, announcements: Announcements, node: str) -> list[str]:
        """Those a node exchanges boxes with: its neighbourhood, or all where the nodes of a query agree on a secret."""
        asked = self._plan.query is not None
        around = announcements.scope.participants if asked else announcements.graph.around(node)
        return [other for other in around if other != node]

    async def _all(
        self,
        nodes: Sequence[str],
        method: str,
        header: bytes,
        fallen: dict[str, str],
        read: Callable[[str, Incoming], T],
    ) -> dict[str, T] | None:
        """Each node's answer; None where one is lost, who then no longer takes part."""
        answers: dict[str, T] = {}

        async def ask(node: str) -> None:
            try:
                answers[node] = read(node, await self._links.call(node, method, header, timeout=ANSWER_SECONDS))
            except KeyongError as error:
                fallen[node] = code_from(error.code)
                away = isinstance(error, UnavailableError) or error.code == "no-such-job"
                if error.code == "no-such-job" and await self._cohort.reopen(node):
                    del fallen[node]
                    return
                log.warning("node-without-keys", node=node, code=fallen[node], reason=str(error)[:500])
                self._cohort.fell(node, fallen[node], away=away)

        work: list[Awaitable[None]] = [ask(node) for node in nodes]
        await asyncio.gather(*work)
        return answers if len(answers) == len(nodes) else None


def _one(node: str, incoming: Incoming) -> Envelope:
    envelopes = Envelopes.from_bytes(incoming.header).envelopes
    if len(envelopes) != 1:
        raise MaskingError("{node} announced no keys", node=node)
    return unpack(envelopes[0])


def _boxes(partners: Sequence[str], node: str, incoming: Incoming) -> dict[str, str]:
    """The sealed shares by receiver; their signatures are for the receivers to check."""
    boxes = {SealedShares.read(unpack(text)).receiver: text for text in Envelopes.from_bytes(incoming.header).envelopes}
    if set(boxes) != set(partners):
        raise MaskingError("{node} did not seal its shares to all others", node=node)
    return boxes
