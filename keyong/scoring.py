"""A model scored on another company's rows: its weights leave encrypted, one loss comes back.

A model is a small JSON object: ``{"model": "linear", "target": "force", "intercept": 1.5, "weights": {"width": 0.01}}``, and
where the catalog declares no bounds of a column, ``"ranges": {"width": [500, 4000]}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.bilateral import (
    Loss,
    Score,
    WeightsError,
    loss_of,
    padded,
    score_micro_rho,
    score_of,
    shift_for,
    variance_for,
)
from federation.crypto import digest
from federation.errors import UsageError
from federation.privacy import STANDARD
from federation.statements import Column, JobPlan
from federation.statements.bilateral import MOST_FEATURES, Range, ScorePlan
from federation.statements.code import CodeBundle
from keyong.bilateral import carried, find, planned
from keyong.bilateral_session import encrypt, open_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyong.choosing import Choice
    from keyong.client import Client
    from sandbox import Runtime, Tier

CONTEXT_FILE, ROTATIONS_FILE, MODEL_FILE = "context.ckks", "rotations.ckks", "model.ckks"
_UNKNOWN = "sha256:" + "0" * 64
_KEYS = {"model", "target", "intercept", "weights", "ranges"}


@dataclass(frozen=True)
class Model:
    """A linear or logistic model with its weights in the columns' own units."""

    model: str
    target: str
    intercept: float
    weights: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Scored:
    """What a score said, of which dataset, and what it cost.

    Attributes:
        figure: ``squared-error`` or ``logistic-loss``.
        micro_rho: 0 where the agreement permits an answer without noise.
    """

    job: str
    dataset: str
    figure: str
    score: Score
    micro_rho: int

    def document(self) -> dict[str, Any]:
        """As data: all of it, for there is nothing else."""
        return {
            "job": self.job,
            "dataset": self.dataset,
            "figure": self.figure,
            "loss": self.score.loss,
            "half_width": self.score.half_width,
            "rows": round(self.score.rows),
            "approximation": self.score.approximation,
            "micro_rho": self.micro_rho,
            "protection": "fed:bilateral",
        }


@dataclass(frozen=True)
class PreparedScore:
    """A score that could be asked, its context still nobody's."""

    choice: Choice
    purpose: str
    plan: ScorePlan
    loss: Loss

    @property
    def dataset(self) -> str:
        """``MEMBER/DATASET``."""
        described = self.choice.published.description
        return f"{described.provider}/{described.dataset}"

    @property
    def micro_rho(self) -> int:
        """What it costs."""
        return score_micro_rho(self.plan)


def read_model(source: Mapping[str, Any] | Path) -> Model:
    """A model from a mapping, or from a JSON file.

    Raises:
        WeightsError: it is none.
    """
    try:
        said: Any = json.loads(source.read_text(encoding="utf-8")) if isinstance(source, Path) else dict(source)
    except OSError as error:
        raise UsageError("{path} cannot be read: {reason}", path=str(source), reason=error.strerror or "") from None
    except ValueError:
        raise WeightsError("a model is a JSON object", hint="see docs/bilateral.md for its form") from None
    try:
        if not isinstance(said, dict) or set(said) - _KEYS or said["model"] not in ("linear", "logistic"):
            raise ValueError("form")
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in said.get("ranges", {}).items()}
        weights = {str(name): float(value) for name, value in said["weights"].items()}
        return Model(said["model"], str(said["target"]), float(said.get("intercept", 0.0)), weights, ranges)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise WeightsError(
            "the model's file is not of the form that is scored", hint="see docs/bilateral.md for its form"
        ) from None


def prepare_score(
    client: Client, model: Model, on: str, purpose: str, *, rho: int = STANDARD.query, clip: str | None = None
) -> PreparedScore:
    """Find the dataset and its agreement, and lay out the score.

    Args:
        on: ``MEMBER/DATASET``.
        rho: micro-rho that it may cost; 0 for no noise, which the agreement has to permit in words.
        clip: L2 bound of a scaled row, its constant 1 included; by default none that any row exceeds.

    Raises:
        WeightsError: the model cannot be scored on these columns.
    """
    choice = find(client, on, purpose, "fed:score")
    described = choice.published.description
    columns = {column.name: column for column in described.columns}
    if not 1 <= len(model.weights) <= MOST_FEATURES:
        raise WeightsError("a model has 1 to {most} features", most=MOST_FEATURES)
    plan = ScorePlan(
        model="linear" if model.model == "linear" else "logistic",
        features=tuple(_range(model, columns, name) for name in sorted(model.weights)),
        target=_range(model, columns, model.target),
        clip=clip or _text(math.ceil(1000 * math.sqrt(len(model.weights) + 2)) / 1000),
        unit_rows=max(1, described.unit_rows),
        variance="0",
        shift=shift_for(described.rows_at_most),
        context=_UNKNOWN,
    )
    if plan.model == "logistic" and (plan.target.minimum, plan.target.maximum) != ("0", "1"):
        raise WeightsError("the target of a logistic model is 0 or 1, and {column} is not", column=model.target)
    if rho:
        plan = plan.model_copy(update={"variance": variance_for(plan, rho)})
    return PreparedScore(choice, purpose, plan, loss_of(plan, model.weights, model.intercept))


def score(
    client: Client,
    prepared: PreparedScore,
    runtime: Runtime,
    tier: Tier,
    confirm: Callable[[JobPlan], None] = lambda plan: None,
) -> Scored:
    """Ask a score.

    Args:
        confirm: called with the plan before it is signed; may raise.

    Raises:
        BilateralEndedError: it ended without an answer; the code says why.
    """
    made = encrypt(runtime, tier, padded(prepared.plan, prepared.loss.coefficients))
    bundle = CodeBundle({CONTEXT_FILE: made.context, ROTATIONS_FILE: made.rotations, MODEL_FILE: made.model})
    asked = prepared.plan.model_copy(update={"context": digest(made.context)})
    plan = planned(client.home, prepared.choice, prepared.purpose, runtime.digest, bundle, asked, prepared.micro_rho)
    confirm(plan)
    outcome = carried(client, plan, bundle, "score")
    total, count = open_result(runtime, tier, made.secret, outcome.answer)
    figure = "squared-error" if asked.model == "linear" else "logistic-loss"
    found = score_of(asked, prepared.loss, total, count)
    return Scored(outcome.job, prepared.dataset, figure, found, outcome.micro_rho)


def _range(model: Model, columns: Mapping[str, Column], name: str) -> Range:
    column = columns.get(name)
    if column is None:
        raise WeightsError("the dataset has no column {column}", hint="see `keyong catalog show`", column=name)
    if name in model.ranges:
        low, high = (_text(bound) for bound in model.ranges[name])
    elif column.type == "boolean":
        low, high = "0", "1"
    elif column.minimum is not None and column.maximum is not None:
        low, high = column.minimum, column.maximum
    else:
        raise WeightsError(
            "the column {column} has no declared bounds",
            hint='give them in the model: "ranges": {{"NAME": [LOW, HIGH]}}',
            column=name,
        )
    if not float(low) < float(high):
        raise WeightsError("the range of {column} is empty", column=name)
    return Range(column=name, minimum=low, maximum=high)


def _text(value: float) -> str:
    """A number as the decimal that a statement holds."""
    if not math.isfinite(value) or abs(value) > 1e15:
        raise WeightsError("a range is made of finite numbers")
    text = f"{value:.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
