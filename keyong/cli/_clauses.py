"""The clauses of an offer or a request as options, and as questions where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.errors import UsageError
from keyong.text import translate

if TYPE_CHECKING:
    from federation.holdings import Holdings
    from federation.home import Home

ACTIONS = ("fed:train", "fed:evaluate", "fed:aggregateQuery", "fed:score", "fed:psi")
BILATERAL = "fed:bilateral"
PROTECTIONS = ("fed:masked", "fed:none", BILATERAL)
ActionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--action",
        metavar="ACTION",
        help="What may be done: train, evaluate, aggregateQuery, score, psi; repeat it. Default: the first two.",
    ),
]
PurposeOption = Annotated[
    list[str] | None,
    typer.Option("--purpose", metavar="PURPOSE", help="For what, for example fed:RollingForceModel; repeat it."),
]
CountOption = Annotated[
    int | None, typer.Option("--count", min=1, metavar="N", help="How many jobs in all; without it, any number.")
]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="WHEN", help="Until when: a date, an instant, or a duration such as 90d or 10s."),
]
CodeOption = Annotated[
    list[str] | None, typer.Option("--code", metavar="SHA256", help="Digest of the only code that may run; repeat it.")
]
AppOption = Annotated[
    list[Path] | None, typer.Option("--app", metavar="PATH", help="The same, by the app's folder; repeat it.")
]
ProtectionOption = Annotated[
    str | None,
    typer.Option(
        "--protection",
        metavar="masked|none|bilateral",
        help="masked where it is left out; none also permits updates that others can see; score and psi need bilateral.",
    ),
]
TierOption = Annotated[
    str | None, typer.Option("--min-tier", metavar="T0..T3", help="The weakest isolation that jobs may run in.")
]
ParticipantsOption = Annotated[
    int | None,
    typer.Option("--min-participants", min=1, metavar="N", help="How many companies must take part at least."),
]
ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", metavar="NAME", help="The only columns that jobs may see; repeat it.")
]
ApprovalOption = Annotated[
    bool, typer.Option("--approval", help="Each version of the code waits for the owner's approval.")
]
ReviewOption = Annotated[bool, typer.Option("--review", help="Each output waits for the owner's release.")]
LeakOption = Annotated[
    int | None,
    typer.Option("--max-leak-bits", min=1, metavar="N", help="How many bits may leave in all, over all jobs."),
]
RhoOption = Annotated[
    str | None,
    typer.Option(
        "--rho",
        metavar="RHO",
        help="The privacy budget of the agreement, such as 0.1; unbounded permits answers without noise.",
    ),
]
SlotOption = Annotated[
    int | None,
    typer.Option(
        "--release-slot",
        min=1,
        max=86400,
        metavar="SECONDS",
        help="Answers leave at the ends of time slots this wide, padded to one size.",
    ),
]
PinRulesOption = Annotated[
    bool,
    typer.Option("--pin-rules", help="Hold only while the dataset is under the desensitisation rules it has now."),
]
TitleOption = Annotated[str | None, typer.Option("--title", metavar="TEXT", help="What the agreement is called.")]


TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template", metavar="NAME", help="Start from a usual case: `keyong agreement templates` lists them."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A clause in short form (see docs/agreements.md); repeat it."),
]
CostOption = Annotated[str | None, typer.Option("--cost", metavar="AMOUNT", help="What one job costs.")]
TariffOption = Annotated[
    str | None,
    typer.Option(
        "--tariff", metavar="TEXT", help="Currency and further prices, such as: CNY; second 0.02; megabyte 1.50."
    ),
]


@dataclass(frozen=True)
class Clauses:
    """The clauses as the policy package takes them."""

    title: str
    actions: list[str]
    purposes: list[str]
    count: int | None
    expires: datetime
    code: list[str]
    protection: str
    min_tier: str | None
    min_participants: int | None
    columns: list[str] | None
    approval: bool
    review: bool
    max_leak_bits: int | None
    release_slot: int | None
    rho: str | None = None
    rules: str | None = None
    """Digest of the desensitisation rules that the agreement names."""
    further: dict[str, str] = field(default_factory=dict)
    """Clauses in short form."""
    cost: str = "0"
    tariff: str = ""

    @property
    def policy(self) -> dict[str, Any]:
        """What ``agreement_policy`` takes of it."""
        own = ("title", "cost", "tariff")
        fields = {name: value for name, value in vars(self).items() if name not in own}
        return {**fields, "code": self.code or None}


@dataclass(frozen=True)
class Given:
    """The options as they were given; None or false where they were not."""

    title: str | None = None
    action: Sequence[str] | None = None
    purpose: Sequence[str] | None = None
    count: int | None = None
    expires: str | None = None
    code: Sequence[str] | None = None
    app: Sequence[Path] | None = None
    protection: str | None = None
    min_tier: str | None = None
    min_participants: int | None = None
    column: Sequence[str] | None = None
    approval: bool = False
    review: bool = False
    max_leak_bits: int | None = None
    release_slot: int | None = None
    rho: str | None = None
    cost: str | None = None
    tariff: str | None = None
    further: Mapping[str, str] = field(default_factory=dict)

    def over(self, terms: Mapping[str, str]) -> Given:
        """With the terms of a template, or of ``--set``, where the options say nothing."""
        found: dict[str, Any] = {"further": {**terms_beside(terms), **self.further}}
        for key, (name, read) in BASIC.items():
            if key in terms and getattr(self, name) in (None, False):
                try:
                    found[name] = read(terms[key])
                except ValueError:
                    raise UsageError("{key} cannot be {value}", key=key, value=terms[key][:60]) from None
        return replace(self, **found)


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _yes(text: str) -> bool:
    return {"yes": True, "no": False}[text] if text in ("yes", "no") else _refuse(text)


def _refuse(text: str) -> bool:
    raise ValueError(text)


def _positive(text: str) -> int:
    number = int(text)
    return number if number > 0 else _refuse(text)


BASIC: dict[str, tuple[str, Callable[[str], Any]]] = {
    "title": ("title", str),
    "action": ("action", _several),
    "purpose": ("purpose", _several),
    "count": ("count", _positive),
    "expires": ("expires", str),
    "code": ("code", _several),
    "app": ("app", lambda text: [Path(part) for part in _several(text)]),
    "protection": ("protection", str),
    "tier": ("min_tier", str),
    "participants": ("min_participants", _positive),
    "column": ("column", _several),
    "approval": ("approval", _yes),
    "review": ("review", _yes),
    "leak-bits": ("max_leak_bits", _positive),
    "slot": ("release_slot", _positive),
    "rho": ("rho", str),
    "cost": ("cost", str),
    "tariff": ("tariff", str),
}
"""The keys of ``--set`` that have an option of their own, the field it fills and how the value is read."""


def terms_beside(terms: Mapping[str, str]) -> dict[str, str]:
    """The terms that have no option of their own: clauses in short form."""
    return {key: value for key, value in terms.items() if key not in BASIC}


def terms_of(template: str | None, settings: Sequence[str] | None) -> dict[str, str]:
    """The terms of a template, changed by what was ``--set``; an empty value takes a term out."""
    from federation.policy import CLAUSE_KEYS
    from keyong.templates import template_of

    terms = dict(template_of(template).clauses) if template else {}
    for text in settings or ():
        key, mark, value = text.partition("=")
        if not mark or key not in (*BASIC, *CLAUSE_KEYS):
            raise UsageError(
                "{text} sets no clause",
                hint="write KEY=VALUE with one of: {known}",
                text=text[:60],
                known=", ".join((*BASIC, *CLAUSE_KEYS)),
            )
        terms[key] = value
    return {key: value for key, value in terms.items() if value}


def gather(dataset: str, given: Given) -> Clauses:
    """Read the options into clauses.

    Raises:
        UsageError: one is missing or not of its form.
    """
    from federation.home import now
    from keyong.cli._context import moment

    if not given.purpose:
        raise UsageError(
            "the agreement names no purpose", hint="give --purpose, for example --purpose fed:ProcessOptimization"
        )
    if not given.expires:
        raise UsageError("the agreement has no end", hint="give --expires, for example --expires 90d")
    if given.min_tier is not None and given.min_tier not in ("T0", "T1", "T2", "T3"):
        raise UsageError("{text} is not a tier", hint="write T0, T1, T2 or T3", text=given.min_tier[:20])
    for text in given.purpose:
        check_purpose(text)
    return Clauses(
        title=given.title or dataset,
        actions=_actions(given),
        purposes=list(given.purpose),
        count=given.count,
        expires=moment(given.expires, now()),
        code=[*(given.code or ()), *(_digest_of(folder) for folder in given.app or ())],
        protection=qualified(given.protection or "masked", PROTECTIONS),
        min_tier=given.min_tier,
        min_participants=given.min_participants,
        columns=list(given.column) if given.column else None,
        approval=given.approval,
        review=given.review,
        max_leak_bits=given.max_leak_bits,
        release_slot=given.release_slot,
        rho=given.rho,
        further=dict(given.further),
        cost=given.cost or "0",
        tariff=given.tariff or "",
    )


def check_purpose(text: str) -> None:
    """Refuse a purpose of the profile that the profile does not have.

    Raises:
        UsageError: it begins with ``fed:`` and is none of those.
    """
    from federation.policy import PURPOSES

    if text.startswith("fed:") and text not in PURPOSES:
        raise UsageError(
            "{text} is no purpose of the profile",
            hint="one of: {terms}",
            text=text[:60],
            terms=", ".join(sorted(PURPOSES)),
        )


def _actions(given: Given) -> list[str]:
    """The actions; those between two companies alone stand in an agreement of their own, whose words say so."""
    actions = [qualified(one, ACTIONS) for one in given.action or ("train", "evaluate")]
    bilateral = [action in ("fed:score", "fed:psi") for action in actions]
    protection = qualified(given.protection or "masked", PROTECTIONS)
    if any(bilateral) and not (all(bilateral) and protection == BILATERAL):
        raise UsageError(
            "score and psi are agreed on in words, apart from other actions",
            hint="give --protection bilateral, and no other action; or start from --template scoring or shared-keys",
        )
    if protection == BILATERAL and not all(bilateral):
        raise UsageError("the protection bilateral is for score and psi alone")
    if any(bilateral) and given.count is None:
        raise UsageError("score and psi are agreed on for a number of uses", hint="give --count")
    return actions


def holdings(home: Home) -> Holdings:
    """The agreements, offers and requests of a home."""
    from federation.holdings import Holdings, open_engine

    return Holdings(open_engine(home.path / "store.db"))


def qualified(text: str, terms: tuple[str, ...]) -> str:
    """A term of the profile from its name with or without ``fed:``."""
    return one_of(text, terms, "fed:")


def one_of(text: str, terms: tuple[str, ...], prefix: str) -> str:
    """One of some terms from its name with or without their prefix."""
    term = text if ":" in text else prefix + text
    if term not in terms:
        raise UsageError(
            "{text} is not known here",
            hint="one of: {terms}",
            text=text[:60],
            terms=", ".join(one.removeprefix(prefix) for one in terms),
        )
    return term


def _digest_of(folder: Path) -> str:
    from federation.statements.code import bundle_folder

    return bundle_folder(folder.expanduser()).digest


def question(
    sentence: str, given: str | None, default: str = "", *, check: Callable[[str], object] = str
) -> str | None:
    """Ask for what was not given, on the terminal, until the answer holds; None where it is left empty."""
    if given is not None:
        return given
    while True:
        shown = f"{translate(sentence)}{f' [{default}]' if default else ''}: "
        print(shown, end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise UsageError("the input ended before every question was answered", hint="give the clauses as options")
        text = answer.strip() or default
        try:
            if text:
                check(text)
        except (ValueError, UsageError):
            continue
        return text or None
