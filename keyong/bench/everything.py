"""All published rows in one run: nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from keyong.bench import (
    decisions,
    ledger,
    masks,
    materialise,
    memory,
    pages,
    query,
    reconnect,
    rest,
    revocation,
    round,
    sandbox,
    start,
    verify,
)
from keyong.bench.figure import Figure
from keyong.bench.report import show
from keyong.bench.rows import BENCHES, check_complete
from keyong.cli._output import narrate

Bench = Callable[[], Sequence[Figure]]
BIG_ROUNDS = 21


def benches(full: bool) -> dict[str, Bench]:
    """What measures each benchmark's rows; ``full`` at the largest size and with every comparison."""
    return {
        "round": round.measure,
        "round-big": lambda: round.measure(BIG_ROUNDS, round.BIG_FLOATS, compare=full),
        "memory": memory.measure,
        "ledger": ledger.measure,
        "decisions": decisions.measure,
        "revocation": revocation.measure,
        "verify": lambda: verify.measure(verify.FULL_ENTRIES if full else verify.ENTRIES),
        "pages": lambda: pages.measure(pages.FULL_ENTRIES if full else pages.ENTRIES),
        "rest": rest.measure,
        "start": start.measure,
        "reconnect": reconnect.measure,
        "materialise": materialise.measure,
        "sandbox": sandbox.measure,
        "masks": lambda: masks.measure(full=full),
        "query": query.measure,
    }


def measure(full: bool = False, chosen: Mapping[str, Bench] | None = None) -> list[Figure]:
    """Run every benchmark, show its figures as they come, and return them all.

    Raises:
        MissingFigureError: a published row was not printed; what was measured before is shown.
    """
    known = benches(full) if chosen is None else chosen
    found: list[Figure] = []
    for name in BENCHES:
        narrate("measuring: {bench}", bench=name)
        figures = list(known[name]()) if name in known else []
        show(figures)
        check_complete(name, figures)
        found += figures
    return found
