"""What a benchmark says: one figure, with its target beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        figure: its name, stable.
        value: as measured, in ``unit``.
        target: upper bound that it should hold; None where it is only reported.
        compared_with: what else was measured in the same run, empty where nothing was.
        ratio: value over that.
        spread: smallest and largest of the repetitions, in ``unit``.
    """

    figure: str
    value: float
    unit: str
    target: float | None
    compared_with: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the target holds; None without one."""
        return None if self.target is None else self.value <= self.target

    def document(self) -> dict[str, Any]:
        """The figure as JSON."""
        return {**asdict(self), "holds": self.holds}
