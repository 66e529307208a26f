"""``keyong agreement check`` and ``diff``: what a request would get under an agreement, and what two of them say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli import _clauses as clauses
from keyong.cli._output import as_json, emit, facts, line, narrate, table
from keyong.text import translate

if TYPE_CHECKING:
    from federation.holdings import Holding
    from federation.home import Home
    from federation.policy import Policy
    from federation.statements import DecisionRecord

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id or digest, or how it begins.")]


def check(
    identifier: IdArgument,
    action: Annotated[str, typer.Option(metavar="ACTION", help="What is asked: train, evaluate.")] = "train",
    purpose: Annotated[
        str | None, typer.Option(metavar="PURPOSE", help="For what, for example fed:RollingForceModel.")
    ] = None,
    app: Annotated[Path | None, typer.Option(metavar="PATH", help="The code that would run, by its folder.")] = None,
    code: Annotated[str | None, typer.Option(metavar="SHA256", help="The same, by its digest.")] = None,
    participants: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Companies that would take part, requester and coordinator not counted."),
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The fewest subjects behind any figure that would leave.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column that would be read; repeat it. Default: all granted."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256", help="Desensitisation rules of the dataset; the owner's are known by themselves."
        ),
    ] = None,
    protection: Annotated[
        str, typer.Option(metavar="masked|none", help="How updates would leave.", show_default=True)
    ] = "masked",
    tier: Annotated[
        str, typer.Option(metavar="T0..T3", help="The isolation it would run in.", show_default=True)
    ] = "T2",
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="What would leave: ModelUpdate, Arrays, Metrics; repeat it. Default: all."),
    ] = None,
    output_bytes: Annotated[
        int | None, typer.Option(min=0, metavar="BYTES", help="The largest reply that would leave.")
    ] = None,
    rho: Annotated[
        str | None,
        typer.Option(
            metavar="RHO", help="Privacy budget that all jobs would have spent then; unbounded is without noise."
        ),
    ] = None,
    uses: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Uses taken so far; the owner's own ledger knows them by itself."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When: a date, an instant, or a duration from now. Default: now.")
    ] = None,
) -> None:
    """Say what a request would get under an agreement, an offer or a request, clause by clause, and why.

    Nothing is asked of anybody, and no use is taken. A clause that would be judged by something you did not say is
    answered "not known", which denies: say it, and try again. Exit code 3 where it would be denied.

    $ keyong agreement check 5f0c --purpose fed:RollingForceModel --participants 3 --app ./rolling-force
    """
    from federation.policy import Request, decide, parse_policy, refusal, shown_columns
    from federation.statements.code import bundle_folder
    from keyong.cli._agreements import read
    from keyong.cli._context import open_home

    home = open_home()
    held = clauses.holdings(home).find(identifier)
    policy = _as_agreement(parse_policy(read(held).policy))
    asked = clauses.qualified(action, clauses.ACTIONS)
    request = Request(
        action=asked,
        purpose=purpose,
        requester=held.consumer,
        code=bundle_folder(app.expanduser()).digest if app is not None else code,
        tier=tier,
        participants=participants,
        group_size=group_size,
        columns=tuple(column or shown_columns(policy, asked, _columns(home, held, policy, asked))) or None,
        rules=rules or _rules(home, held),
        protection=clauses.qualified(protection, clauses.PROTECTIONS),
        now=_moment(at),
        uses_taken=uses if uses is not None else _uses(home, held),
        recipients=(held.consumer,),
        output_kinds=tuple(
            f"fed:{kind.removeprefix('fed:')}" for kind in output or ("ModelUpdate", "Arrays", "Metrics")
        ),
        max_output_bytes=output_bytes,
        version=_version(home, held),
        rho=_rho(rho) if rho is not None else None,
        **_standing(home, held, policy, asked, _moment(at)),
    )
    record = decide(held.digest, policy, request)
    _show(held, record)
    if not record.permit:
        raise _unsaid(record) or refusal(record)
    narrate("such a request would be permitted")


UNSAID = {
    "odrl:purpose": "--purpose",
    "odrl:count": "--uses",
    "fed:codeDigest": "--app",
    "fed:minParticipants": "--participants",
    "fed:minGroupSize": "--group-size",
    "fed:column": "--column",
    "fed:rules": "--rules",
    "fed:maxOutputBytes": "--output-bytes",
    "fed:rho": "--rho",
}
"""What is known by being said, and the option that says it."""


def _unsaid(record: DecisionRecord) -> Exception | None:
    """The refusal where nothing is against the request but what was not said; None where something is."""
    from federation.errors import DeniedError

    wanting = [one for one in record.constraints if not one.satisfied]
    if not wanting or any(one.left or one.operand not in UNSAID for one in wanting):
        return None
    return DeniedError(
        "what was said leaves open: {clauses}",
        hint="say it as well: {options}; what is not known is denied",
        code=record.rule,
        clauses=", ".join(dict.fromkeys(one.operand for one in wanting)),
        options=", ".join(dict.fromkeys(UNSAID[one.operand] for one in wanting)),
    )


def _as_agreement(policy: Policy) -> Policy:
    """An offer as the agreement it would become."""
    return policy.model_copy(update={"type": "Agreement"})


def _rho(text: str) -> int:
    from federation.errors import UsageError
    from federation.policy.values import UnreadableValueError, parse_rho

    try:
        return parse_rho(text)
    except UnreadableValueError:
        raise UsageError(
            "{text} is no privacy budget", hint="write it as a decimal, such as 0.05, or unbounded", text=text[:40]
        ) from None


def _moment(text: str | None) -> datetime:
    from federation.home import now
    from keyong.cli._context import moment

    return moment(text, now()) if text else now()


def _columns(home: Home, held: Holding, policy: Policy, action: str) -> Sequence[str]:
    """The dataset's columns where it is ours, else those that the agreement names."""
    from federation.policy import granted_columns

    if held.provider == home.identity.member:
        from federation.errors import KeyongError
        from keyong.registering import node_store

        try:
            return node_store(home).dataset(held.dataset).shown_names
        except KeyongError:
            pass
    return granted_columns(policy, action) or ()


def _rules(home: Home, held: Holding) -> str | None:
    """Digest of the rules that the dataset is under where it is ours; None elsewhere, or where there are none."""
    if held.provider != home.identity.member:
        return None
    from enterprise_node.rules import read_rules
    from federation.errors import KeyongError
    from keyong.registering import node_store

    try:
        return read_rules(node_store(home).dataset(held.dataset).rules).digest or None
    except KeyongError:
        return None


def _uses(home: Home, held: Holding) -> int | None:
    """Uses on record at the owner's; None elsewhere, for nobody else's count is the one that decides."""
    if held.provider != home.identity.member:
        return None
    with home.open_ledger() as ledger, ledger.reader() as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'plan_use'").fetchone()
        if known is None:
            return 0
        row = connection.execute("SELECT count(*) FROM plan_use WHERE agreement = ?", (held.digest,)).fetchone()
        return int(row[0])


def _standing(home: Home, held: Holding, policy: Policy, action: str, now: datetime) -> dict[str, Any]:
    from federation.statements import Agreement
    from keyong.cli._agreements import read
    from keyong.standing import standing

    statement = read(held)
    return standing(home, held, statement, policy, action, now) if isinstance(statement, Agreement) else {}


def _version(home: Home, held: Holding) -> str | None:
    """Digest of the dataset as it is registered, where it is ours."""
    if held.provider != home.identity.member:
        return None
    from federation.errors import KeyongError
    from keyong.registering import node_store

    try:
        return node_store(home).dataset(held.dataset).data_version
    except KeyongError:
        return None


def _show(held: Holding, record: DecisionRecord) -> None:
    if as_json():
        emit({"id": held.id, "digest": held.digest, "decision": record.model_dump(mode="json")})
        return
    table(
        ("clause", "demanded", "found", "holds"),
        (
            (one.operand, f"{one.operator} {one.right}".strip(), one.left or translate("not known"),
             translate("yes") if one.satisfied else translate("no"))
            for one in record.constraints
        ),
    )  # fmt: skip


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="An agreement, offer or request, by its id or digest.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The one to compare it with.")],
) -> None:
    """Compare two agreements, offers or requests sentence by sentence: what was taken out, and what came in.

    $ keyong agreement diff 5f0c 81aa
    """
    from federation.policy import describe, parse_policy
    from federation.statements import instant_text
    from keyong.cli._agreements import read
    from keyong.cli._context import open_home, policy_language

    holdings = clauses.holdings(open_home())
    sides = [read(holdings.find(name)) for name in (old, new)]
    before, after = (
        {
            "title": one.title,
            "provider": one.provider,
            "consumer": one.consumer,
            "dataset": one.dataset,
            "expires": instant_text(one.expires),
        }
        for one in sides
    )
    told = [describe(parse_policy(one.policy), policy_language()) for one in sides]
    changes = sentences_changed(*told)
    stated = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
    if as_json():
        emit({"facts": stated, "changes": [{"change": sign, "sentence": sentence} for sign, sentence in changes]})
        return
    facts((name, f"{was} -> {now}") for name, (was, now) in stated.items())
    for sign, sentence in changes:
        line(f"{sign} {sentence}")
    if not stated and not changes:
        narrate("both say the same")


def sentences_changed(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, str]]:
    """What has to be taken out of (``-``) and put into (``+``) the old to get the new, in order, nothing else."""
    from difflib import SequenceMatcher

    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            found += [("-", sentence) for sentence in old[a:b]]
            found += [("+", sentence) for sentence in new[c:d]]
    return found
