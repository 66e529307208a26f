"""Policies as data: the ODRL 2.2 subset in the shape of the Dataspace Protocol 2025-1.

These models hold the *shape* only. Whether each term is one this release can judge is decided at registration
(:func:`federation.policy.parse_policy`) and, independently, at evaluation (:func:`federation.policy.decide`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

_SHAPE_TAG = "shape:"
"""Marks the names of union branches in error locations, so that they can be left out of what a person reads."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
LogicalOperator = Literal["and", "or", "xone", "andSequence"]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class TypedValue(_Shape):
    """A literal with its datatype, both as text: ``{"@value": "10", "@type": "xsd:integer"}``."""

    value: Text = Field(alias="@value")
    type: Text = Field(alias="@type")


class Term(_Shape):
    """A reference to something with a name: ``{"@id": "fed:PredictiveMaintenance"}``."""

    id: Text = Field(alias="@id")


def _value_shape(value: Any) -> str | None:
    if isinstance(value, TypedValue) or (isinstance(value, Mapping) and "@value" in value):
        return _SHAPE_TAG + "typed"
    if isinstance(value, Term) or (isinstance(value, Mapping) and "@id" in value):
        return _SHAPE_TAG + "term"
    return None


Value = Annotated[
    Annotated[TypedValue, Tag(_SHAPE_TAG + "typed")] | Annotated[Term, Tag(_SHAPE_TAG + "term")],
    Discriminator(
        _value_shape,
        custom_error_type="value",
        custom_error_message='a value is written {"@value": "10", "@type": "xsd:integer"} or {"@id": "fed:..."}',
    ),
]
Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=500, strict=False)]


def _operand_shape(value: Any) -> str:
    return _SHAPE_TAG + ("list" if isinstance(value, (list, tuple)) else "one")


RightOperand = Annotated[
    Annotated[Values, Tag(_SHAPE_TAG + "list")] | Annotated[Value, Tag(_SHAPE_TAG + "one")],
    Discriminator(_operand_shape),
]


class Constraint(_Shape):
    """One comparison: what is found here (left) against what the agreement demands (right)."""

    left: Text = Field(alias="leftOperand")
    operator: Text
    right: RightOperand = Field(alias="rightOperand")

    @cached_property
    def kept(self) -> dict[str, object]:
        """What readers have worked out from this comparison, which never changes."""
        return {}

    @property
    def values(self) -> tuple[TypedValue | Term, ...]:
        """The right side as a tuple, whether it was a list or not."""
        return self.right if isinstance(self.right, tuple) else (self.right,)


class LogicalConstraint(_Shape):
    """Several constraints under ``and``, ``or``, ``xone`` or ``andSequence``."""

    all_of: AnyConstraints | None = Field(None, alias="and")
    any_of: AnyConstraints | None = Field(None, alias="or")
    one_of: AnyConstraints | None = Field(None, alias="xone")
    in_order: AnyConstraints | None = Field(None, alias="andSequence")

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        if sum(parts is not None for parts in (self.all_of, self.any_of, self.one_of, self.in_order)) != 1:
            raise ValueError("a logical constraint has exactly one of and, or, xone, andSequence")
        return self

    @property
    def operator(self) -> LogicalOperator:
        """Which of the four it is."""
        if self.in_order is not None:
            return "andSequence"
        return "and" if self.all_of is not None else "or" if self.any_of is not None else "xone"

    @property
    def parts(self) -> tuple[Constraint | LogicalConstraint, ...]:
        """What it joins."""
        return self.all_of or self.any_of or self.one_of or self.in_order or ()


def _constraint_shape(value: Any) -> str:
    logical = isinstance(value, LogicalConstraint) or (
        isinstance(value, Mapping) and not {"leftOperand", "operator", "rightOperand"} & set(value)
    )
    return _SHAPE_TAG + ("logical" if logical else "atomic")


AnyConstraint = Annotated[
    Annotated[Constraint, Tag(_SHAPE_TAG + "atomic")] | Annotated[LogicalConstraint, Tag(_SHAPE_TAG + "logical")],
    Discriminator(_constraint_shape),
]
AnyConstraints = Annotated[tuple[AnyConstraint, ...], Field(min_length=1, max_length=200, strict=False)]
Constraints = Annotated[tuple[AnyConstraint, ...], Field(max_length=200, strict=False)]


class Duty(_Shape):
    """What has to be done in return."""

    action: Text
    constraint: Constraints = ()

    @cached_property
    def kept(self) -> dict[str, object]:
        """What readers have worked out from this duty, which never changes."""
        return {}


class Prohibition(_Shape):
    """An action that is refused, where its constraints hold or cannot be told not to."""

    action: Text
    constraint: Constraints = ()


class Permission(_Shape):
    """An action that is allowed where every constraint holds and every duty is fulfilled."""

    action: Text
    constraint: Constraints = ()
    duty: Annotated[tuple[Duty, ...], Field(max_length=20, strict=False)] = ()

    @cached_property
    def kept(self) -> dict[str, object]:
        """What readers have worked out from this permission, which never changes."""
        return {}


class Policy(_Shape):
    """An ODRL Agreement, or the Offer it began as, about one dataset between two parties."""

    type: Literal["Agreement", "Offer"] = Field(alias="@type")
    id: Text = Field(alias="@id")
    profile: Text
    target: Text
    assigner: Text
    assignee: Text
    timestamp: Text
    permission: Annotated[tuple[Permission, ...], Field(min_length=1, max_length=50, strict=False)]
    prohibition: Annotated[tuple[Prohibition, ...], Field(min_length=1, max_length=50, strict=False)] = ()

    @cached_property
    def kept(self) -> dict[str, object]:
        """What readers have worked out from this policy, which never changes."""
        return {}


LogicalConstraint.model_rebuild()


def place_of(location: tuple[int | str, ...]) -> str:
    """Where in the policy a pydantic error lies, as a person reads it: ``permission/0/constraint/2``."""
    return "/".join(str(part) for part in location if not str(part).startswith(_SHAPE_TAG))


def demanded(constraints: Iterable[AnyConstraint]) -> Iterator[Constraint]:
    """The comparisons that must all hold: the constraints themselves, and those joined by ``and`` or ``andSequence``."""
    for constraint in constraints:
        if isinstance(constraint, Constraint):
            yield constraint
        elif constraint.operator in ("and", "andSequence"):
            yield from demanded(constraint.parts)


def every(constraints: Iterable[AnyConstraint]) -> Iterator[Constraint]:
    """Every comparison, however deep."""
    for constraint in constraints:
        if isinstance(constraint, LogicalConstraint):
            yield from every(constraint.parts)
        else:
            yield constraint


def terms_of(constraint: Constraint) -> tuple[str, ...]:
    """The names or literals on the right side, as text."""
    return tuple(value.id if isinstance(value, Term) else value.value for value in constraint.values)
