"""What the nodes of a masked round say to each other through the coordinator, each signed by its author.

See ``docs/protocol.md`` for the order, and for what each of them is checked against.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from federation.statements._base import Count, Digest, MemberId, Part, Statement
from federation.statements.plan import Stage

MASKED_COHORT = 150
"""Most nodes whose replies are masked together: the announcements of all of them fit into one message to each."""
SETUP_ROUNDS = 32
"""Most rounds whose keys are announced in one message."""

Key32 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""32 bytes in base64."""
Round = Annotated[int, Field(ge=1, le=200_000)]
Attempt = Annotated[int, Field(ge=1, le=1000)]
Nodes = Annotated[tuple[MemberId, ...], Field(min_length=1, max_length=MASKED_COHORT)]


def _check_nodes(nodes: tuple[str, ...]) -> None:
    if list(nodes) != sorted(set(nodes)):
        raise ValueError("the nodes are not in order, each once")


class RoundKeys(Part):
    """What a node announces for one round: the public half of its mask key, and what its self-mask seed must hash to."""

    key: Key32
    commitment: Key32


class KeyAnnouncement(Statement):
    """A node's keys for some rounds in a row, fresh for them and bound to them."""

    TYPE: ClassVar[str] = "application/vnd.keyong.key-announcement.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    roster: Digest
    node: MemberId
    participants: Nodes
    """Those whose replies are to be masked together, in order."""
    first: Round
    attempt: Attempt
    """Of the first round; the others begin with their first."""
    box: Key32
    """Public HPKE key to which shares for this node are sealed."""
    rounds: Annotated[tuple[RoundKeys, ...], Field(min_length=1, max_length=SETUP_ROUNDS)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_nodes(self.participants)
        if self.node not in self.participants:
            raise ValueError("the node is not among the participants")
        return self


class SealedShares(Statement):
    """One node's shares for one other, of all its announced rounds, sealed to it."""

    TYPE: ClassVar[str] = "application/vnd.keyong.sealed-shares.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    cohort: Digest
    """Of all announcements (see ``federation.secagg.cohort_digest``)."""
    sender: MemberId
    receiver: MemberId
    box: Annotated[str, StringConstraints(max_length=8192, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


class MaskedInput(Statement):
    """A node says which masked vector it sent; with it, that it saw this cohort and this content."""

    TYPE: ClassVar[str] = "application/vnd.keyong.masked-input.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    invocation: Digest
    cohort: Digest
    node: MemberId
    round: Round
    attempt: Attempt
    stage: Stage
    content: Digest
    output: Digest
    """Of the masked vector."""
    output_bytes: Count


class SurvivorSet(Statement):
    """The coordinator says whose masked vectors it adds up; one for each attempt of a round."""

    TYPE: ClassVar[str] = "application/vnd.keyong.survivor-set.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    cohort: Digest
    round: Round
    attempt: Attempt
    survivors: Nodes

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_nodes(self.survivors)
        return self


class Acknowledgement(Statement):
    """A node accepts a survivor set: it will release shares for this one and for no other."""

    TYPE: ClassVar[str] = "application/vnd.keyong.acknowledgement.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    cohort: Digest
    node: MemberId
    round: Round
    attempt: Attempt
    survivors: Digest
    """Of the survivor set."""


class ReleasedShares(Statement):
    """A node's shares for one round: of each survivor's self-mask seed, of each other's mask key, of none both."""

    TYPE: ClassVar[str] = "application/vnd.keyong.released-shares.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    cohort: Digest
    node: MemberId
    round: Round
    attempt: Attempt
    seeds: Annotated[dict[MemberId, Key32], Field(max_length=MASKED_COHORT)]
    keys: Annotated[dict[MemberId, Key32], Field(max_length=MASKED_COHORT)]


class Withdrawal(Statement):
    """A node takes back a masked vector that it sent; who sees this before releasing shares gives up the round."""

    TYPE: ClassVar[str] = "application/vnd.keyong.withdrawal.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    node: MemberId
    round: Round
    attempt: Attempt
    reason: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{0,64}$")] = ""


MaskingStage = Literal["keys", "shares", "masked-input", "acknowledgement", "unmasking"]
"""The stages of a masked round, in order."""
