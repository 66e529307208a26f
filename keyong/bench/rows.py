"""The rows that are published: each figure with its target, and the benchmark that must print it.

Targets live here alone. ``keyong bench all`` runs every benchmark named here and fails where one of its figures did not
come: a row is never left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.errors import KeyongError
from keyong.bench.figure import Bound, Figure, over


class MissingFigureError(KeyongError):
    """A benchmark ended without a figure that it has to print."""

    code = "bench-missing"


@dataclass(frozen=True)
class Row:
    """One published row: which benchmark prints which figure, and what it has to hold."""

    bench: str
    figure: str
    unit: str
    target: float
    bound: Bound = "at most"


ROWS = (
    Row("round", "round-seconds", "s", 0.10),
    Row("round-big", "big-round-seconds", "s", 2.0),
    Row("round-big", "big-round-memory", "MB", 2500),
    Row("memory", "sum-memory-ratio", "x", 1.10),
    Row("ledger", "ledger-entries-per-second", "1/s", 5000, "at least"),
    Row("ledger", "ledger-p99-seconds", "s", 0.050),
    Row("ledger", "ledger-witnessed-entries-per-second", "1/s", 3000, "at least"),
    Row("ledger", "committed-to-witnessed-seconds", "s", 2.0),
    Row("ledger", "tampering-classes-missed", "", 0),
    Row("decisions", "decisions-per-second", "1/s", 2000, "at least"),
    Row("decisions", "decisions-p99-seconds", "s", 0.005),
    Row("revocation", "revocation-told-seconds", "s", 1.0),
    Row("verify", "verify-seconds", "s", 60.0),
    Row("verify", "verify-hashes-seconds", "s", 5.0),
    Row("pages", "search-page-p95-seconds", "s", 0.100),
    Row("rest", "node-rest-memory", "MB", 150),
    Row("rest", "coordinator-rest-memory", "MB", 200),
    Row("start", "verify-help-seconds", "s", 0.3),
    Row("reconnect", "reconnect-seconds", "s", 5.0),
    Row("sandbox", "acts-that-succeed", "", 0),
    Row("sandbox", "sandboxed-python-p50", "s", 0.035),
    Row("sandbox", "sandboxed-python-p95", "s", 0.050),
    Row("sandbox", "session-waiting-seconds", "s", 0.050),
    Row("sandbox", "session-cold-seconds", "s", 3.0),
    Row("sandbox", "revocation-p95", "s", 0.020),
    Row("sandbox", "cancel-p95", "s", 0.020),
    Row("sandbox", "invocation-p50", "s", 0.010),
    Row("materialise", "materialise-ratio", "x", 3.0),
    Row("materialise", "materialise-memory", "MB", 1000),
    Row("masks", "masks-10-node-seconds", "s", 0.006),
    Row("masks", "masks-10-sum-ratio", "x", 1.7),
    Row("masks", "masks-100-node-seconds", "s", 0.050),
    Row("masks", "masks-100-sum-ratio", "x", 2.5),
    Row("masks", "masks-upload-ratio", "x", 1.02),
    Row("masks", "masks-round-added-seconds", "s", 0.030),
    Row("masks", "masks-round-million-seconds", "s", 0.3),
    Row("query", "query-seconds", "s", 0.250),
    Row("query", "query-over-allowance", "x", 1.0),
)
"""A megabyte is 10^6 bytes, as in the published targets."""
MEGABYTE = 1_000_000
BENCHES = tuple(dict.fromkeys(row.bench for row in ROWS))
_BY_FIGURE = {row.figure: row for row in ROWS}


def published(
    figure: str,
    value: float,
    *,
    compared_with: str = "",
    other: float | None = None,
    spread: tuple[float, float] | None = None,
    note: str = "",
) -> Figure:
    """The figure of a published row, with that row's unit and target; ``other`` is what it is compared with."""
    row = _BY_FIGURE[figure]
    return Figure(
        figure,
        value,
        row.unit,
        row.target,
        row.bound,
        compared_with if other else "",
        over(value, other),
        spread,
        note,
    )


def check_complete(bench: str, figures: Iterable[Figure]) -> None:
    """Return if every row of this benchmark is among the figures, with its target.

    Raises:
        MissingFigureError: one is not.
    """
    found = {one.figure for one in figures if one.target is not None}
    missing = [row.figure for row in ROWS if row.bench == bench and row.figure not in found]
    if missing:
        raise MissingFigureError("the benchmark {bench} printed no {figures}", bench=bench, figures=", ".join(missing))
