"""The announced keys of one cohort, as every party of it checks them: nodes before they share, coordinator before it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from federation.crypto import PublicKey
from federation.errors import VerificationError
from federation.secagg.cohorts import check_size, threshold
from federation.secagg.graph import MaskGraph
from federation.secagg.mask_keys import MaskContext, cohort_digest, decode_key
from federation.statements import Envelope
from federation.statements.masking import KeyAnnouncement

Public = Callable[[str], PublicKey]
"""The statement key of a member, as the roster in force has it."""


class MaskingError(VerificationError):
    """A message of a masked round does not fit plan, cohort, round or what was said before."""

    code = "masking"


@dataclass(frozen=True)
class Scope:
    """Which rounds of which plan some keys are for.

    Attributes:
        plan: digest of the plan.
        roster: digest of the roster that the plan names.
        participants: in order.
        first: the first round.
        attempt: of the first round; the others begin with attempt 1.
        rounds: how many, from the first on.
    """

    plan: str
    roster: str
    participants: tuple[str, ...]
    first: int
    attempt: int
    rounds: int

    def __post_init__(self) -> None:
        check_size(len(self.participants))

    @property
    def threshold(self) -> int:
        """How many of the participants it takes to open a round; of each neighbourhood see `MaskGraph`."""
        return threshold(len(self.participants))

    def place(self, number: int, attempt: int) -> int:
        """Which of the rounds it is, from 0.

        Raises:
            MaskingError: it is none of them.
        """
        place = number - self.first
        if not 0 <= place < self.rounds or attempt != (self.attempt if place == 0 else 1):
            raise MaskingError(
                "no keys were announced for round {round}, attempt {attempt}", round=number, attempt=attempt
            )
        return place

    def sign(self, own: str, other: str) -> int:
        """Whether ``own`` adds (1) or takes away (-1) the mask it has in common with ``other``."""
        return 1 if self.participants.index(own) < self.participants.index(other) else -1


@dataclass(frozen=True)
class Announcements:
    """The checked announcements of all participants.

    Attributes:
        scope: the same for all.
        cohort: their digest (see `cohort_digest`).
    """

    scope: Scope
    cohort: str
    _by_node: Mapping[str, KeyAnnouncement]

    @classmethod
    def open(cls, envelopes: Sequence[Envelope], scope: Scope, public: Public, now: datetime) -> Announcements:
        """Check each announcement, and that together they are those of the scope's participants.

        Raises:
            MaskingError: one is missing, comes twice, is for something else, or repeats another's key.
            VerificationError subclasses: a signature or a time does not hold.
        """
        found: dict[str, KeyAnnouncement] = {}
        digests: dict[str, str] = {}
        keys: set[str] = set()
        for envelope in envelopes:
            claimed = KeyAnnouncement.read(envelope)
            if claimed.node not in scope.participants or claimed.node in found:
                raise MaskingError("an announcement comes twice or from no participant ({node})", node=claimed.node)
            one = KeyAnnouncement.open(envelope, [public(claimed.node)], now)
            said = (one.plan, one.roster, one.participants, one.first, one.attempt, len(one.rounds))
            if said != (scope.plan, scope.roster, scope.participants, scope.first, scope.attempt, scope.rounds):
                raise MaskingError("the announcement of {node} is for other rounds or another cohort", node=one.node)
            own = {one.box, *(part.key for part in one.rounds), *(part.commitment for part in one.rounds)}
            if len(own) != 2 * scope.rounds + 1 or own & keys:
                raise MaskingError("the announcement of {node} repeats a key", node=one.node)
            keys |= own
            found[one.node], digests[one.node] = one, envelope.digest
        if missing := set(scope.participants) - set(found):
            raise MaskingError("no announcement of {nodes}", nodes=", ".join(sorted(missing)))
        return cls(scope, cohort_digest(digests), found)

    @cached_property
    def graph(self) -> MaskGraph:
        """Who has masks in common, and who holds whose shares."""
        return MaskGraph(self.scope.participants, self.cohort)

    def public(self, node: str, place: int) -> bytes:
        """A node's mask key for one round."""
        return decode_key(self._by_node[node].rounds[place].key)

    def commitment(self, node: str, place: int) -> bytes:
        """What a node's self-mask seed for one round hashes to."""
        return decode_key(self._by_node[node].rounds[place].commitment)

    def box(self, node: str) -> bytes:
        """The key to which shares for a node are sealed."""
        return decode_key(self._by_node[node].box)

    def context(self, number: int, attempt: int, stage: str, content: str) -> MaskContext:
        """What the masks of one round are bound to."""
        scope = self.scope
        scope.place(number, attempt)
        return MaskContext(scope.plan, scope.roster, self.cohort, number, attempt, stage, content)
