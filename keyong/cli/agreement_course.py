"""``keyong agreement suspend``, ``resume``, ``duties`` and ``fulfil``: what happens to an agreement while it is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import mark, translate_data

if TYPE_CHECKING:
    from federation.holdings import Holding
    from keyong.client import Client

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id or digest, or how it begins.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the other side reads it.")]


def suspend(identifier: IdArgument, reason: ReasonOption = "") -> None:
    """Interrupt an agreement: here at once, at the other side when the notice arrives. Either side may.

    A job that runs under it is ended at this node within a second; it goes on without the node where its plan allows that,
    and the node takes part again after `keyong agreement resume`.

    $ keyong agreement suspend 5f0c --reason "maintenance of the mill"
    """
    from keyong import agreeing
    from keyong.cli._context import open_client

    with open_client() as client:
        _tell(client, agreeing.suspend(client, identifier, reason), "suspended; {member} is told")


def resume(identifier: IdArgument, reason: ReasonOption = "") -> None:
    """Take our own suspension of an agreement back; it is in force again unless the other side suspended it too.

    $ keyong agreement resume 5f0c
    """
    from keyong import agreeing
    from keyong.cli._context import open_client

    with open_client() as client:
        held = agreeing.suspend(client, identifier, reason, suspended=False)
        _tell(client, held, "our suspension is taken back; {member} is told")


def _tell(client: Client, held: Holding, sentence: str) -> None:
    from keyong.cli._agreements import document

    if as_json():
        emit(document(client.holdings.find(held.id)))
        return
    mine = held.provider == client.home.identity.member
    narrate(sentence, member=held.consumer if mine else held.provider)


def duties(identifier: IdArgument) -> None:
    """Show what is owed under an agreement, job by job, by when, and how it stands; the provider's own ledger knows.

    While an obligation is overdue, the agreement permits nothing.

    $ keyong agreement duties 5f0c
    """
    from federation.home import now
    from federation.obligations import obligations
    from keyong.cli._clauses import holdings
    from keyong.cli._context import open_home

    home = open_home()
    held = holdings(home).find(identifier)
    with home.open_ledger() as ledger:
        rows = obligations(ledger, held.digest)
    if as_json():
        emit([{**vars(one), "standing": one.standing(now())} for one in rows])
        return
    if held.provider != home.identity.member:
        said = _our_words(home, held)
        narrate("{member} keeps the list; ours holds what we said and what they confirmed", member=held.provider)
        table(("entry", "time", "duty", "said by", "job"), said)
        return
    table(
        ("job", "duty", "since", "by", "state"),
        (
            (one.plan[7:19], one.duty, one.began, one.due or "-", translate_data(STANDINGS[one.standing(now())]))
            for one in rows
        ),
    )


def _our_words(home: Any, held: Holding) -> list[tuple[object, ...]]:
    from federation.statements import Envelope, Fulfilment

    found: list[tuple[object, ...]] = []
    with home.open_ledger() as ledger:
        for entry in ledger.find(kind="fulfilment"):
            fields = ledger.fields(entry.index)
            if fields.get("agreement") == held.digest and isinstance(fields.get("fulfilment"), bytes):
                said = Fulfilment.read(Envelope.from_bytes(fields["fulfilment"]))
                found.append((entry.index, entry.time, said.duty, said.by, said.plan[7:19] or "-"))
    return found


def fulfil(
    identifier: IdArgument,
    duty: Annotated[str, typer.Option("--duty", metavar="DUTY", help="Which: compensate, delete, attribute.")],
    job: Annotated[
        str, typer.Option("--job", metavar="SHA256", help="For this job alone, by its plan's digest. Default: for all.")
    ] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="How; the other side reads it.")] = "",
) -> None:
    """Say, signed, that a duty was fulfilled; the other side is told, and both keep it on record.

    The provider settles what is owed to it (a payment that arrived, or a duty that it waives). The consumer settles what
    only the consumer can know (deletion, attribution), and claims what the provider has yet to confirm (a payment).

    $ keyong agreement fulfil 5f0c --duty delete --note "model and logs deleted on 12 May"
    """
    from keyong import agreeing
    from keyong.cli._clauses import one_of
    from keyong.cli._context import open_client

    with open_client() as client:
        client.read_mail()
        wanted = one_of(duty, ("odrl:compensate", "odrl:delete", "odrl:attribute"), "odrl:")
        held = agreeing.fulfil(client, identifier, wanted, job, note)
        _tell(client, held, "on record; {member} is told")


STANDINGS = {
    "pending": mark("pending"),
    "claimed": mark("claimed by the consumer, to be confirmed"),
    "fulfilled": mark("fulfilled"),
    "violated": mark("overdue"),
}
