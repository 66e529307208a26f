"""The job plan: everything a requester wants done, fixed before the first node is asked."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from federation.statements._base import (
    Count,
    DatasetId,
    Decimal,
    Digest,
    MemberId,
    Part,
    Statement,
    StatementError,
    Uuid,
)
from federation.statements.bilateral import IntersectionPlan, ScorePlan
from federation.statements.delivery import Anchoring
from federation.statements.query import QueryPlan

Action = Literal["fed:train", "fed:evaluate", "fed:aggregateQuery", "fed:score", "fed:psi"]
Stage = Literal["train", "evaluate", "flags", "cells", "score", "blind", "size"]
"""Of a query: which cells enough companies contribute to, then those cells. Of an intersection: the node's keys, blinded, then
its size."""
Protection = Literal["fed:masked", "fed:none", "fed:bilateral"]
Aggregation = Literal["sum", "each"]
DType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f\"\\]+$")]


class MetricSpec(Part):
    """A scalar that may leave, with the range it must lie in (values outside are refused)."""

    name: Name
    minimum: Decimal = "-1000000"
    maximum: Decimal = "1000000"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if float(self.minimum) > float(self.maximum):
            raise ValueError("a metric's minimum exceeds its maximum")
        return self


class ArraySpec(Part):
    """An array that may leave: record and name as the app gives them."""

    record: Name
    name: Name
    dtype: DType
    shape: Annotated[tuple[Count, ...], Field(max_length=8)]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class StageOutput(Part):
    """What a reply of one stage may hold; anything else is refused."""

    sent: bool
    """True: exactly the arrays that were sent (names, dtypes, shapes), as differences from them."""
    arrays: Annotated[tuple[ArraySpec, ...], Field(max_length=1000)] = ()
    """Further arrays, as they are."""
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("two metrics share a name")
        places = [(array.record, array.name) for array in self.arrays]
        if len(set(places)) != len(places):
            raise ValueError("two arrays share a name")
        return self


class OutputSchema(Part):
    """The closed schema of everything a node's reply may hold, by stage."""

    train: StageOutput
    evaluate: StageOutput
    maximal_bytes: Annotated[int, Field(ge=1, le=2**34)] = 2**31

    def of(self, stage: Stage) -> StageOutput:
        """The schema of that stage."""
        return self.train if stage == "train" else self.evaluate


class Noise(Part):
    """Discrete Gaussian noise that every node adds to its reply: differential privacy at the level of a node."""

    multiplier: Decimal
    """Standard deviation of the noise that is certain to be in a sum, in multiples of the clip (of its bound, for a metric)."""


class Encoding(Part):
    """Bounds of the fixed-point encoding of replies (see ``federation.secagg``)."""

    ring: Literal["z32", "z64"]
    fraction_bits: Annotated[int, Field(ge=1, le=48)]
    scale: Decimal = "8"
    """Largest absolute difference of one element; larger ones saturate and are counted."""
    clip: Decimal | None = None
    """L2 bound of a whole reply's difference; None for no clipping."""
    weight_minimum: Annotated[int, Field(ge=0, le=2**40)]
    weight_maximum: Annotated[int, Field(ge=1, le=2**40)]
    noise: Noise | None = None
    """Left out of the payload where there is none, as plans from before it were signed."""

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        if self.noise is None:
            fields.pop("noise", None)
        return fields

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.weight_minimum > self.weight_maximum:
            raise ValueError("weight_minimum exceeds weight_maximum")
        return self


class PlannedDataset(Part):
    """One node's share in a plan: its dataset, as published, and the agreement that permits the use."""

    node: MemberId
    dataset: DatasetId
    data_version: Digest
    agreement: Digest


SETUP_SECONDS = 120.0
"""Least that a job's start may take at a node: a cold disk reads torch's files for a minute."""


class JobPlan(Statement):
    """What is to run, where, for what purpose and within which bounds; signed by the requester.

    A coordinator can stop a plan; it cannot change one: nodes act on these bytes alone.
    """

    TYPE: ClassVar[str] = "application/vnd.keyong.job-plan.v1+json"
    LATER: ClassVar[tuple[str, ...]] = ("slot_seconds", "review_seconds", "anchoring", "query", "score", "intersection")

    id: Uuid
    requester: MemberId
    coordinator: MemberId
    roster: Digest
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=2)]
    purpose: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.:/#-]{0,199}$")]
    code: Digest
    runtime: Digest
    cohort: Annotated[tuple[PlannedDataset, ...], Field(min_length=1, max_length=500)]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    run_config: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=4000)]], Field(max_length=200)]
    """Each value as JSON text of one number, text or truth value, so that no float is ever hashed."""
    aggregation: Aggregation = "sum"
    outputs: OutputSchema
    encoding: Encoding
    protection: Protection
    minimal_participants: Annotated[int, Field(ge=1, le=500)]
    round_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    """Longest a node may compute on one step before it counts as failed."""
    memory_bytes: Annotated[int, Field(ge=2**26, le=2**40)] = 4 * 2**30
    tier: Annotated[str, StringConstraints(pattern=r"^(T[0-3])?$")] = ""
    micro_rho: Count = 0
    """Privacy budget that the whole job takes of each node, in millionths of rho; 0 where no noise is added: rho unbounded."""
    leak_bits: Count = 0
    """Most bits that leave each node in the whole job, as the requester states them; 0 where it does not."""
    cost: Decimal = "0"
    slot_seconds: Annotated[int, Field(ge=0, le=86400)] = 0
    """Answers leave a node at whole multiples of this time since their step began; 0 as soon as they are there."""
    review_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 0
    """How long a step may wait for a node's owner to look at its output, on top of what it may compute."""
    anchoring: Anchoring = "witnessed"
    """Who has to vouch for the receipts of the last exchange, beside the nodes themselves, before the result is used."""
    query: QueryPlan | None = None
    """What is asked, of a plan whose one action is ``fed:aggregateQuery``; its code is the public encryption context alone."""

    score: ScorePlan | None = None
    """What is scored, of a plan whose one action is ``fed:score``; its code is the public encryption context and the encrypted
    weights."""
    intersection: IntersectionPlan | None = None
    """What is counted, of a plan whose one action is ``fed:psi``; it has no code."""

    @property
    def masked(self) -> bool:
        """Whether replies leave under masks."""
        return self.protection == "fed:masked"

    @property
    def bilateral(self) -> ScorePlan | IntersectionPlan | None:
        """What one company asks of one other; None of every other plan."""
        return self.score or self.intersection

    @property
    def gate_noise(self) -> bool:
        """Whether the node itself adds the noise that ``micro_rho`` stands for."""
        if self.query is not None:
            return self.query.noise is not None
        return self.encoding.noise is not None or (self.bilateral is not None and self.bilateral.variance != "0")

    @property
    def setup_seconds(self) -> float:
        """What a node may take before the app's code is called: snapshot, sandbox, imports. As long as a step, and on a
        slow disk longer than a short one."""
        return max(SETUP_SECONDS, float(self.round_seconds))

    @property
    def pause_seconds(self) -> float:
        """What an answer may wait after its step was computed: for the owner's review, then for the end of its slot."""
        return float(self.review_seconds + self.slot_seconds)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        nodes = [planned.node for planned in self.cohort]
        if len(set(nodes)) != len(nodes):
            raise ValueError("a node appears twice in the cohort")
        if len(set(self.actions)) != len(self.actions):
            raise ValueError("an action appears twice")
        if (self.query is not None) != ("fed:aggregateQuery" in self.actions) or (self.query and len(self.actions) > 1):
            raise ValueError("a query is asked by a plan of that one action, and by no other")
        for asked, action in ((self.score, "fed:score"), (self.intersection, "fed:psi")):
            if (asked is not None) != (action in self.actions) or (asked and (len(self.actions), len(nodes)) != (1, 1)):
                raise ValueError("a bilateral action is asked of one node, by a plan of that one action")
        if (self.bilateral is not None) != (self.protection == "fed:bilateral"):
            raise ValueError("a bilateral action, and no other, has the protection fed:bilateral")
        if self.minimal_participants > len(nodes):
            raise ValueError("the plan needs more participants than its cohort has")
        for name, text in self.run_config.items():
            if not _is_scalar(text):
                raise ValueError(f"run_config {name} is not JSON of one number, text or truth value")
        return self

    def at(self, node: str) -> PlannedDataset:
        """The share of that node; raises where it is not in the cohort."""
        for planned in self.cohort:
            if planned.node == node:
                return planned
        raise StatementError("{node} is not in this plan's cohort", node=node)


def _is_scalar(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


_ACTIONS: dict[str, Action] = {
    "flags": "fed:aggregateQuery",
    "cells": "fed:aggregateQuery",
    "score": "fed:score",
    "blind": "fed:psi",
    "size": "fed:psi",
}


class Invocation(Statement):
    """One step of a plan at one node, signed by the coordinator."""

    TYPE: ClassVar[str] = "application/vnd.keyong.invocation.v1+json"
    CLOSED: ClassVar[bool] = True

    plan: Digest
    node: MemberId
    round: Annotated[int, Field(ge=1, le=200_000)]
    """Rises by one with every exchange of the job, whatever its stage."""
    attempt: Annotated[int, Field(ge=1, le=1000)] = 1
    stage: Stage
    content: Digest
    """Digest of the whole broadcast content: arrays, config and type."""

    @property
    def action(self) -> Action:
        """The policy action of this step."""
        if self.stage in _ACTIONS:
            return _ACTIONS[self.stage]
        return "fed:train" if self.stage == "train" else "fed:evaluate"
