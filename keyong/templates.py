"""Templates of agreements: the usual cases, as clauses to start from; whoever uses one changes what differs.

Each says what it stands for in one sentence, which clauses it sets, and which it leaves to be answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.errors import UsageError
from keyong.text import mark


class NoSuchTemplateError(UsageError):
    """There is no template by that name."""

    code = "no-such-template"


@dataclass(frozen=True)
class Template:
    """One usual case.

    Attributes:
        title: what it stands for, one sentence of the catalogue.
        clauses: what it sets, by the names that `--set` takes.
        asks: what the interview asks for beside consumer and dataset; without a terminal each has to be given.
    """

    title: str
    clauses: Mapping[str, str]
    asks: tuple[str, ...] = field(default=())


TEMPLATES: dict[str, Template] = {
    "train-only": Template(
        mark("Train models, nothing else: masked, three companies or more, no result passed on."),
        {"action": "train", "expires": "365d", "participants": "3", "tier": "T2", "protection": "masked"},
        ("purpose", "count", "expires"),
    ),
    "statistics-only": Template(
        mark("Aggregate statistics, nothing else: no model, no code of the consumer, three companies or more."),
        {
            "action": "aggregateQuery",
            "expires": "365d",
            "participants": "3",
            "tier": "T2",
            "protection": "masked",
        },
        ("purpose", "count", "expires"),
    ),
    "scoring": Template(
        mark("Score the consumer's model, weights encrypted: one loss under noise comes back, ten times at most."),
        {
            "action": "score",
            "expires": "90d",
            "count": "10",
            "interval": "1h",
            "tier": "T2",
            "protection": "bilateral",
            "rho": "0.05",
        },
        ("purpose", "count", "expires"),
    ),
    "shared-keys": Template(
        mark("Count the keys that both have, once a day: only the size, under noise, floored and rounded, is told."),
        {
            "action": "psi",
            "expires": "90d",
            "count": "10",
            "interval": "1d",
            "tier": "T2",
            "protection": "bilateral",
            "rho": "0.05",
        },
        ("purpose", "column", "count", "expires"),
    ),
    "evaluate-supplier": Template(
        mark("Evaluate a supplier's model: exactly the code that was agreed on, metrics alone leave."),
        {
            "action": "evaluate",
            "purpose": "fed:QualityControl",
            "expires": "90d",
            "count": "10",
            "tier": "T2",
            "protection": "masked",
            "output": "Metrics",
            "delete-within": "30d",
        },
        ("app", "count", "expires"),
    ),
    "limited": Template(
        mark("Three months, ten runs, named columns, no fewer than five companies."),
        {
            "action": "train,evaluate",
            "expires": "90d",
            "count": "10",
            "participants": "5",
            "tier": "T2",
            "protection": "masked",
        },
        ("purpose", "column"),
    ),
    "paid": Template(
        mark("Training for money: a price for each run and each second, a ceiling, and 30 days to pay."),
        {
            "action": "train,evaluate",
            "expires": "365d",
            "participants": "3",
            "tier": "T2",
            "protection": "masked",
            "compensate-within": "30d",
        },
        ("purpose", "cost", "tariff", "pay-amount"),
    ),
}


def template_of(name: str) -> Template:
    """The template of that name."""
    found = TEMPLATES.get(name)
    if found is None:
        raise NoSuchTemplateError(
            "there is no template {name}", hint="one of: {known}", name=name[:60], known=", ".join(TEMPLATES)
        )
    return found
