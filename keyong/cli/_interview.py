"""The questions of ``keyong agreement new``: a template to start from, then what it leaves open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from keyong.cli import _clauses as clauses
from keyong.cli._output import narrate
from keyong.text import mark, translate

FREE = "free"
"""The answer that starts from no template."""
COMMON = ("purpose", "count", "expires")


def _is_moment(text: str) -> object:
    from federation.home import now
    from keyong.cli._context import moment

    return moment(text, now())


def _is_span(text: str) -> timedelta:
    from federation.policy import span

    return span(text)


QUESTIONS: dict[str, tuple[str, str, Callable[[str], object]]] = {
    "purpose": (mark("for which purpose"), "fed:ProcessOptimization", str),
    "count": (mark("how many jobs in all (empty: any number)"), "", int),
    "expires": (mark("until when (a date, or 90d)"), "90d", _is_moment),
    "column": (mark("which columns, separated by commas (empty: all)"), "", str),
    "participants": (mark("at least how many companies"), "3", int),
    "app": (mark("the folder of the only app that may run (empty: any code)"), "", str),
    "cost": (mark("what one job costs"), "0", float),
    "tariff": (mark("currency and further prices (such as: CNY; second 0.02; megabyte 1.50)"), "CNY", str),
    "pay-amount": (mark("most that all uses together may cost (empty: no ceiling)"), "", float),
    "metered-time": (mark("most computing time of all jobs together, such as 10h (empty: no limit)"), "", _is_span),
}
"""What can be asked: the sentence, what an empty answer means, and what an answer must be."""


def interview(
    to: str | None, dataset: str | None, given: clauses.Given, template: str | None, settings: Sequence[str] | None
) -> tuple[str | None, str | None, clauses.Given]:
    """Ask on the terminal for whatever the options leave out; what was given is not asked again."""
    from keyong.templates import TEMPLATES, template_of

    ask = clauses.question
    to = ask("to which member", to)
    dataset = ask("which of our datasets", dataset)
    if template is None:
        for name, one in TEMPLATES.items():
            narrate("{name}: {title}", name=name, title=translate(one.title))
        template = ask(
            "which template (free: start from nothing)",
            None,
            "limited",
            check=lambda text: None if text == FREE else template_of(text),
        )
    chosen = template if template != FREE else None
    set_by_hand = clauses.terms_of(None, settings)
    terms = clauses.terms_of(chosen, settings)
    for key in template_of(chosen).asks if chosen else (*COMMON, "column", "participants", "metered-time"):
        name = clauses.BASIC[key][0] if key in clauses.BASIC else ""
        if key in set_by_hand or (name and getattr(given, name)):
            continue
        sentence, default, check = QUESTIONS[key]
        answer = ask(sentence, None, terms.get(key, default), check=check)
        if answer:
            terms[key] = answer
    return to, dataset, given.over(terms)
