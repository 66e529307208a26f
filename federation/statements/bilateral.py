"""What one company asks of one other by a bilateral action: a model's score on its rows, the size of a set intersection.

These parts are signed within a plan whose cohort is one node. What they mean, and what a node checks, is in
``federation.bilateral``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from federation.statements._base import Decimal, Digest, Part, Statement
from federation.statements.query import ColumnName

MOST_FEATURES = 24
MOST_KEYS = 50_000
"""Keys of either side of an intersection."""
ModelKind = Literal["linear", "logistic"]
Variance = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,27})$")]
"""Of discrete Gaussian noise, a whole number; 0 for none."""
BoxKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]


class Range(Part):
    """A column and the bounds that its values are clamped to before they are scaled to -1 to 1."""

    column: ColumnName
    minimum: Decimal
    maximum: Decimal

    @model_validator(mode="after")
    def _open(self) -> Self:
        if not float(self.minimum) < float(self.maximum):
            raise ValueError("a range has a minimum below its maximum")
        return self


class ScorePlan(Part):
    """A score: the loss of a model with encrypted weights over a node's rows, and over how many."""

    model: ModelKind
    """What the asker says it scores. The weights are encrypted, so no node can tell; see the second moments in
    ``federation.bilateral.moments``, which bound what any weights can learn."""
    features: Annotated[tuple[Range, ...], Field(min_length=1, max_length=MOST_FEATURES)]
    target: Range
    clip: Decimal
    """L2 bound of one row, scaled and with its constant 1; longer rows are shrunk to it."""
    unit_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Rows of one privacy unit that the noise hides."""
    variance: Variance
    """Of the noise in each squared moment, in the moments' whole numbers; products of two columns carry half of it."""
    shift: Annotated[int, Field(ge=0, le=40)]
    """Moments are divided by two to this power before they meet the weights, so that they lie about 1."""
    context: Digest
    """Of the asker's public encryption context, without its secret key."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.column for one in (*self.features, self.target)]
        if len(set(names)) != len(names):
            raise ValueError("a column stands in a score twice")
        return self

    @property
    def columns(self) -> tuple[Range, ...]:
        """The features, then the target."""
        return (*self.features, self.target)


class IntersectionPlan(Part):
    """How many keys of a node's column the asker has, too."""

    column: ColumnName
    least: Annotated[int, Field(ge=1, le=MOST_KEYS)]
    """Fewest keys of either side, and the size below which the answer says no more than that."""
    step: Annotated[int, Field(ge=1, le=1000)]
    """The size is told in multiples of this."""
    unit_keys: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Keys of one privacy unit that the noise hides."""
    variance: Variance
    box: BoxKey
    """X25519 key, fresh for this plan, that the size is sealed to."""


class BlindAnswer(Statement):
    """The asker's word on its half of an intersection: what it made of a node's blinded keys, under which plan."""

    TYPE: ClassVar[str] = "application/vnd.keyong.blind-answer.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    blinded: Digest
    """Of the node's blinded keys that this answers."""
    setup: Digest
    """Of the asker's own keys under its secret."""
    response: Digest
    """Of the node's blinded keys, under the asker's secret, too, and in another order."""
