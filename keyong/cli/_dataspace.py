"""What the commands of the Dataspace Protocol share: clauses in short form, how a process looks."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli import _clauses as clauses
from keyong.cli._output import as_json, emit, facts, line, narrate, say
from keyong.text import mark, translate_data

if TYPE_CHECKING:
    from federation.dataspace import NegotiationRow, Terms, TransferRow

PidArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the other side reads it.")]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="The clauses as ODRL in JSON, instead of options.")
]

STATES = {
    "INITIAL": mark("not acknowledged yet"),
    "REQUESTED": mark("requested"),
    "OFFERED": mark("offered"),
    "ACCEPTED": mark("accepted"),
    "AGREED": mark("agreed, not verified"),
    "VERIFIED": mark("verified by both"),
    "FINALIZED": mark("in force"),
    "STARTED": mark("live"),
    "SUSPENDED": mark("suspended"),
    "COMPLETED": mark("completed"),
    "TERMINATED": mark("terminated"),
}
"""Sentences of the catalogue for the protocol's states."""


def terms_of(
    provider: str,
    consumer: str,
    dataset: str,
    *,
    template: str | None,
    settings: Sequence[str] | None,
    purpose: Sequence[str] | None,
    expires: str | None,
    policy: Path | None,
) -> Terms:
    """The terms that the options say."""
    from federation.dataspace import Terms
    from federation.errors import UsageError
    from federation.home import now
    from federation.policy import agreement_policy
    from keyong.cli._policy_file import completed, read_policy_file

    identity = f"urn:uuid:{uuid.uuid4()}"
    if policy is not None:
        if template or settings or purpose or expires:
            raise UsageError("a policy file takes no other clause", hint="everything stands in the file")
        raw = read_policy_file(policy)
        whole = completed(raw, provider=provider, consumer=consumer, dataset=dataset, identity=identity)
        return Terms(whole, dataset)
    given = clauses.Given(purpose=purpose, expires=expires).over(clauses.terms_of(template, settings))
    wanted = clauses.gather(dataset, given)
    whole = agreement_policy(
        provider=provider, consumer=consumer, dataset=dataset, now=now(), agreement_id=identity, **wanted.policy
    )
    return Terms(whole, wanted.title, wanted.cost, wanted.tariff)


def short(pid: str) -> str:
    """The first characters of an id, enough to name it."""
    return pid.removeprefix("urn:uuid:")[:8]


def negotiation_document(row: NegotiationRow) -> dict[str, Any]:
    """A negotiation as JSON."""
    terms = row.on_table
    return {
        "id": row.pid,
        "role": row.role,
        "with": row.peer,
        "their-id": row.peer_pid,
        "state": row.state,
        "title": terms.title,
        "cost": terms.cost,
        "tariff": terms.tariff,
        "expires": terms.expires,
        "agreement": row.agreement,
        "reason": row.reason,
        "updated": row.updated,
        "policy": terms.policy,
    }


def transfer_document(row: TransferRow) -> dict[str, Any]:
    """A transfer as JSON."""
    return {
        "id": row.pid,
        "role": row.role,
        "with": row.peer,
        "their-id": row.peer_pid,
        "state": row.state,
        "agreement": row.agreement,
        "suspended-by": row.held_by,
        "reason": row.reason,
        "updated": row.updated,
    }


def show_negotiation(row: NegotiationRow) -> None:
    """Print a negotiation: how it stands, and what is on the table in words."""
    if as_json():
        emit(negotiation_document(row))
        return
    facts(
        (
            ("id", row.pid),
            ("state", translate_data(STATES[row.state])),
            ("we are", row.role),
            ("with", row.peer),
            ("dataset", row.on_table.policy["target"].rpartition(":")[2]),
            ("expires", row.on_table.expires),
            ("agreement", row.agreement),
            ("reason", row.reason),
            ("updated", row.updated),
        )
    )
    line()
    show_terms(row.on_table)


def show_terms(terms: Terms) -> None:
    """Print clauses in words."""
    from federation.policy import describe, parse_policy
    from keyong.cli._agreements import tariff_text
    from keyong.cli._context import policy_language

    say("what it says:")
    for sentence in describe(parse_policy(terms.policy), policy_language()):
        line(f"  - {sentence}")
    if terms.tariff:
        line(f"  - {tariff_text(terms.cost, terms.tariff)}")


def told(row: NegotiationRow | TransferRow, document: dict[str, Any], *, heard: bool = True) -> None:
    """Print what a step led to."""
    if as_json():
        emit({**document, "told": heard})
        return
    if heard:
        state = translate_data(STATES[row.state])
        narrate("{id} with {member}: {state}", id=short(row.pid), member=row.peer, state=state)
    else:
        narrate("{id} is over here; {member} could not be told", id=short(row.pid), member=row.peer)
