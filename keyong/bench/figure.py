"""What a benchmark says: one figure, with its target beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Bound = Literal["at most", "at least"]


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        figure: its name, stable.
        value: as measured, in ``unit``.
        target: the bound that it should hold; None where it is only reported.
        bound: on which side of the target it holds.
        compared_with: what else was measured in the same run, empty where nothing was.
        ratio: value over that.
        spread: smallest and largest of the repetitions, in ``unit``.
        note: how it was come by, where the name does not say it.
    """

    figure: str
    value: float
    unit: str
    target: float | None = None
    bound: Bound = "at most"
    compared_with: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the target holds; None without one. What is not a number holds nothing."""
        if self.target is None:
            return None
        return self.value <= self.target if self.bound == "at most" else self.value >= self.target

    def document(self) -> dict[str, Any]:
        """The figure as JSON."""
        return {**asdict(self), "holds": self.holds}


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that at least so many of a hundred do not exceed (nearest rank): of 20, the 95th is the 19th."""
    return sorted(values)[max(0, math.ceil(percent * len(values) / 100) - 1)]


def over(value: float, other: float | None) -> float | None:
    """``value`` in units of another, or None where there is none to compare with."""
    return value / other if other else None
