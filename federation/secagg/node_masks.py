"""One node's side of the masks: its secrets for some rounds, in the order in which they may be used.

    announce -> share -> receive -> (mask -> release) once for each round

Pure: a random source and statements' contents in, statements' contents out. Nothing is used twice: a round's keys are
forgotten with its mask, what it holds of others with its release. What a release may rest on is judged by its caller (see
`survivors`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from federation.secagg.announcements import Announcements, MaskingError, Scope
from federation.secagg.keystream import MaskKey
from federation.secagg.mask_keys import commitment_to, encode_key, pair_key, public_of, self_key
from federation.secagg.sealing import box_context, open_shares, seal_shares
from federation.secagg.shamir import PRIME, Below, split, to_bytes
from federation.statements.masking import KeyAnnouncement, RoundKeys


@dataclass
class _Secrets:
    key: int
    seed: int


class NodeMasks:
    """The secrets of one node for the rounds of one scope. They never show themselves, and are never written down.

    Args:
        node: among the scope's participants.
        below: random source.
        shared: whether the nodes agree on a secret of their own (`common`) with the shares they send each other.

    Raises:
        MaskingError: the node is not among the participants.
    """

    def __init__(self, scope: Scope, node: str, below: Below, *, shared: bool = False) -> None:
        if node not in scope.participants:
            raise MaskingError("{node} is not among those whose replies are masked together", node=node)
        self.scope = scope
        self._node = node
        self._below = below
        self._box = X25519PrivateKey.generate()
        self._secrets = [_Secrets(below(PRIME), below(PRIME)) for _ in range(scope.rounds)]
        # sealed to all others beside the shares; one honest node's is enough for the common secret to be unknown
        self._given = [(below(PRIME), below(PRIME))] if shared else []
        self._taken: dict[str, tuple[int, int]] = {}
        self._announcements: Announcements | None = None
        self._own: list[tuple[int, int]] = []
        self._masking: dict[int, _Secrets] = {}
        self._held: dict[int, dict[str, tuple[int, int]]] = {}

    def __repr__(self) -> str:
        return f"NodeMasks({self._node!r}, <redacted>)"

    def announce(self, issued: datetime, expires: datetime) -> KeyAnnouncement:
        """The announcement, to be signed."""
        return KeyAnnouncement(
            issued=issued,
            expires=expires,
            plan=self.scope.plan,
            roster=self.scope.roster,
            node=self._node,
            participants=self.scope.participants,
            first=self.scope.first,
            attempt=self.scope.attempt,
            box=encode_key(self._box.public_key().public_bytes_raw()),
            rounds=tuple(
                RoundKeys(key=encode_key(public_of(one.key)), commitment=encode_key(commitment_to(one.seed)))
                for one in self._secrets
            ),
        )

    @property
    def cohort(self) -> str:
        """Digest of the cohort that shares were made for; empty before that."""
        return self._announcements.cohort if self._announcements is not None else ""

    def share(self, announcements: Announcements) -> dict[str, str]:
        """The box of shares for each other of this node's neighbourhood; once, for one cohort.

        Where the nodes agree on a secret, there is a box for each other participant.

        Raises:
            MaskingError: shares were made before, or the announcements are for other rounds or hold another key for this node.
            ShareError: an announced key is unfit.
        """
        scope = self.scope
        if self._announcements is not None:
            raise MaskingError("shares were made for another cohort before")
        if announcements.scope != scope or announcements.box(self._node) != self._box.public_key().public_bytes_raw():
            raise MaskingError("the announcements are not those that this node is part of")
        graph = announcements.graph
        holders = graph.around(self._node)
        need, count = graph.threshold, len(holders)
        split_up = [
            (split(one.key, need, count, self._below), split(one.seed, need, count, self._below))
            for one in self._secrets
        ]
        shares = {holder: [(keys[at], seeds[at]) for keys, seeds in split_up] for at, holder in enumerate(holders)}
        boxes = {}
        for receiver in self._partners(announcements):
            context = self._context(announcements.cohort, self._node, receiver)
            boxes[receiver] = seal_shares(shares.get(receiver, []) + self._given, announcements.box(receiver), context)
        self._own = shares[self._node]
        self._announcements = announcements
        return boxes

    def receive(self, boxes: Mapping[str, str]) -> None:
        """Take the shares that the others sealed for this node; once.

        Raises:
            MaskingError: no shares were made yet, some were taken before, or a sender is missing.
            ShareError: a box does not open.
        """
        if self._announcements is None or self._held or not self._own:
            raise MaskingError("shares come out of turn")
        if set(boxes) != set(self._partners(self._announcements)):
            raise MaskingError("the shares are not those of all other participants")
        around = self._announcements.graph.around(self._node)
        opened = {}
        for sender, box in boxes.items():
            count = (self.scope.rounds if sender in around else 0) + len(self._given)
            opened[sender] = open_shares(box, self._box, self._context(self.cohort, sender, self._node), count)
        if self._given:
            self._taken = {sender: shares.pop() for sender, shares in opened.items()} | {self._node: self._given[0]}
        opened[self._node] = self._own
        self._held = {place: {sender: opened[sender][place] for sender in around} for place in range(self.scope.rounds)}
        self._masking = dict(enumerate(self._secrets))
        self._secrets, self._own = [], []

    @property
    def common(self) -> bytes:
        """A secret that all participants know and nobody else does; raises MaskingError where none was agreed on."""
        if not self._taken:
            raise MaskingError("the nodes have agreed on no secret of their own")
        state = hashlib.sha256(b"keyong/common-secret/v1\x00")
        for node in self.scope.participants:
            for part in self._taken[node]:
                state.update(to_bytes(part))
        return state.digest()

    @property
    def ready(self) -> bool:
        """Whether all shares are here."""
        return not self._own and self._announcements is not None

    def masks(self, number: int, attempt: int, stage: str, content: str) -> list[MaskKey]:
        """The masks of this node's vector in one round; once.

        Raises:
            MaskingError: out of turn, or no keys were announced for this round.
            ShareError: a peer's key is unfit.
        """
        announcements, place = self._at(number, attempt)
        secrets = self._masking.pop(place, None)
        if secrets is None:
            raise MaskingError("the masks of round {round} were used before", round=number)
        for earlier in [at for at in self._masking if at < place]:
            del self._masking[earlier], self._held[earlier]  # rounds only go forward
        context = announcements.context(number, attempt, stage, content)
        keys = [MaskKey(self_key(secrets.seed, context, self._node), 1)]
        for other in announcements.graph.around(self._node):
            if other != self._node:
                key = pair_key(secrets.key, announcements.public(other, place), context, self._node, other)
                keys.append(MaskKey(key, self.scope.sign(self._node, other)))
        return keys

    def release(self, number: int, attempt: int, survivors: frozenset[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Shares of the survivors' seeds and of all others' keys, in this node's neighbourhood; once, so that nobody's are both
        released.

        Raises:
            MaskingError: this node did not mask in this round, or released its shares before; or the survivors are
                not participants, too few in all or around one, or without this node.
        """
        announcements, place = self._at(number, attempt)
        if place in self._masking or place not in self._held:
            raise MaskingError("there are no shares to release for round {round}", round=number)
        if not survivors <= set(self.scope.participants) or self._node not in survivors:
            raise MaskingError("the survivors of round {round} are not participants with this node", round=number)
        if len(survivors) < self.scope.threshold:
            raise MaskingError(
                "{count} of {all} nodes are left in round {round}; it takes {need} to open it",
                count=len(survivors),
                all=len(self.scope.participants),
                round=number,
                need=self.scope.threshold,
            )
        if thin := announcements.graph.thin(survivors):
            raise MaskingError("too few are left around {node} to open round {round}", node=thin[0], round=number)
        held = self._held.pop(place)
        seeds = {node: encode_key(to_bytes(seed)) for node, (_, seed) in held.items() if node in survivors}
        keys = {node: encode_key(to_bytes(key)) for node, (key, _) in held.items() if node not in survivors}
        return seeds, keys

    def _partners(self, announcements: Announcements) -> list[str]:
        """The others to and from whom boxes go."""
        around = self.scope.participants if self._given else announcements.graph.around(self._node)
        return [other for other in around if other != self._node]

    def _at(self, number: int, attempt: int) -> tuple[Announcements, int]:
        if self._announcements is None or not self.ready:
            raise MaskingError("the shares of this cohort are not here yet")
        return self._announcements, self.scope.place(number, attempt)

    def _context(self, cohort: str, sender: str, receiver: str) -> bytes:
        scope = self.scope
        return box_context(scope.plan, scope.roster, cohort, scope.first, scope.attempt, scope.rounds, sender, receiver)
