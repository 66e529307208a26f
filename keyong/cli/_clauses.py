"""The clauses of an offer or a request as options, and as questions where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.errors import UsageError
from keyong.text import translate

if TYPE_CHECKING:
    from federation.holdings import Holdings
    from federation.home import Home

ActionOption = Annotated[
    list[str] | None,
    typer.Option("--action", metavar="ACTION", help="What may be done: train, evaluate; repeat it. Default: both."),
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
    str,
    typer.Option(
        "--protection", metavar="masked|none", help="none also permits updates that others can see.", show_default=True
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


ACTIONS = ("fed:train", "fed:evaluate", "fed:aggregateQuery")


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
    rules: str | None = None
    """Digest of the desensitisation rules that the agreement names."""


def gather(
    dataset: str,
    *,
    title: str | None,
    action: Sequence[str] | None,
    purpose: Sequence[str] | None,
    count: int | None,
    expires: str | None,
    code: Sequence[str] | None,
    app: Sequence[Path] | None,
    protection: str,
    min_tier: str | None,
    min_participants: int | None,
    column: Sequence[str] | None,
    approval: bool = False,
    review: bool = False,
    max_leak_bits: int | None = None,
    release_slot: int | None = None,
) -> Clauses:
    """Read the options into clauses.

    Raises:
        UsageError: one is missing or not of its form.
    """
    from federation.home import now
    from keyong.cli._context import moment

    if not purpose:
        raise UsageError(
            "the agreement names no purpose", hint="give --purpose, for example --purpose fed:ProcessOptimization"
        )
    if not expires:
        raise UsageError("the agreement has no end", hint="give --expires, for example --expires 90d")
    if min_tier is not None and min_tier not in ("T0", "T1", "T2", "T3"):
        raise UsageError("{text} is not a tier", hint="write T0, T1, T2 or T3", text=min_tier[:20])
    return Clauses(
        title=title or dataset,
        actions=[qualified(one, ACTIONS) for one in action or ("train", "evaluate")],
        purposes=list(purpose),
        count=count,
        expires=moment(expires, now()),
        code=[*(code or ()), *(_digest_of(folder) for folder in app or ())],
        protection=qualified(protection, ("fed:masked", "fed:none")),
        min_tier=min_tier,
        min_participants=min_participants,
        columns=list(column) if column else None,
        approval=approval,
        review=review,
        max_leak_bits=max_leak_bits,
        release_slot=release_slot,
    )


def holdings(home: Home) -> Holdings:
    """The agreements, offers and requests of a home."""
    from federation.holdings import Holdings, open_engine

    return Holdings(open_engine(home.path / "store.db"))


def qualified(text: str, terms: tuple[str, ...]) -> str:
    """A term of the profile from its name with or without ``fed:``."""
    term = text if ":" in text else f"fed:{text}"
    if term not in terms:
        raise UsageError(
            "{text} is not known here",
            hint="one of: {terms}",
            text=text[:60],
            terms=", ".join(one.removeprefix("fed:") for one in terms),
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
