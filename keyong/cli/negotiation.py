"""``keyong negotiation``: contract negotiation by the Dataspace Protocol, step by step."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli import _clauses as clauses
from keyong.cli import _dataspace as shared
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, table
from keyong.text import translate_data

if TYPE_CHECKING:
    from federation.dataspace import NegotiationRow, Negotiator, Party

app = Commands("Negotiate agreements by the Dataspace Protocol.")


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also those that ended.")] = False,
) -> None:
    """List negotiations, as they stand here.

    $ keyong negotiation list --all
    """
    from federation.dataspace import NegotiationRow
    from keyong import dataspace
    from keyong.cli._context import open_home

    rows = dataspace.store_of(open_home()).list(NegotiationRow, open_only=not everything)
    if as_json():
        emit([shared.negotiation_document(row) for row in rows])
        return
    table(
        ("id", "state", "we are", "with", "title", "updated"),
        (
            (shared.short(row.pid), translate_data(shared.STATES[row.state]), row.role, row.peer, row.on_table.title,
             row.updated)
            for row in rows
        ),
    )  # fmt: skip


@app.command()
def show(identifier: shared.PidArgument) -> None:
    """Show a negotiation, and what is on the table in words.

    $ keyong negotiation show 5f0c
    """
    from federation.dataspace import NegotiationRow
    from keyong import dataspace
    from keyong.cli._context import open_home

    shared.show_negotiation(dataspace.store_of(open_home()).find(NegotiationRow, identifier))


@app.command()
def request(
    dataset: Annotated[
        str, typer.Argument(metavar="MEMBER/DATASET", help="The dataset, as `keyong catalog list` shows it.")
    ],
    offer: Annotated[str, typer.Option("--offer", metavar="ID", help="The offer of their catalog to take.")] = "",
    purpose: clauses.PurposeOption = None,
    expires: clauses.ExpiresOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    policy: shared.PolicyOption = None,
) -> None:
    """Ask a provider for an agreement: on an offer of its catalog, or on clauses of our own.

    What is asked for here is consented to: an agreement with exactly these clauses is verified and signed by whatever
    serves this home, without being asked again.

    $ keyong negotiation request mill-a/passes
    $ keyong negotiation request mill-a/passes --template limited --set column=speed,force --purpose fed:QualityControl
    """
    from keyong import dataspace
    from keyong.cli._context import split_dataset

    provider, name = split_dataset(dataset)
    with _negotiator() as (party, negotiator):
        if purpose or expires or template or set_ or policy:
            terms = shared.terms_of(
                provider, party.me, name, template=template, settings=set_, purpose=purpose, expires=expires,
                policy=policy,
            )  # fmt: skip
            identity = f"urn:uuid:{uuid.uuid4()}"
        else:
            identity, terms = dataspace.offer_named(party, provider, name, offer)
        _told(negotiator.request(provider, terms, identity))


@app.command()
def offer(
    to: Annotated[str, typer.Option("--to", metavar="MEMBER", help="Who may use the dataset.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="One of our datasets.")],
    purpose: clauses.PurposeOption = None,
    expires: clauses.ExpiresOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    policy: shared.PolicyOption = None,
) -> None:
    """Offer an agreement on one of our datasets, unasked. Once it is accepted, the node signs it.

    $ keyong negotiation offer --to institute --dataset passes --purpose fed:QualityControl --expires 90d
    """
    from keyong.registering import node_store

    with _negotiator() as (party, negotiator):
        node_store(party.home).dataset(dataset)
        terms = shared.terms_of(
            party.me, to, dataset, template=template, settings=set_, purpose=purpose, expires=expires, policy=policy
        )
        _told(negotiator.offer(to, terms))


@app.command()
def counter(
    identifier: shared.PidArgument,
    purpose: clauses.PurposeOption = None,
    expires: clauses.ExpiresOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    policy: shared.PolicyOption = None,
) -> None:
    """Answer with other clauses: as provider an offer, as consumer a request.

    $ keyong negotiation counter 5f0c --template limited --set count=5 --set column=speed --purpose fed:QualityControl
    """
    from federation.dataspace import NegotiationRow

    with _negotiator() as (party, negotiator):
        row = party.store.find(NegotiationRow, identifier)
        provider, consumer = (party.me, row.peer) if row.role == "provider" else (row.peer, party.me)
        name = row.on_table.policy["target"].rpartition(":")[2]
        terms = shared.terms_of(
            provider, consumer, name, template=template, settings=set_, purpose=purpose, expires=expires, policy=policy
        )
        _told(negotiator.counter(row, terms))


@app.command()
def accept(identifier: shared.PidArgument) -> None:
    """Accept what the provider offered, as consumer; our consent to its clauses. Read them with `keyong negotiation show`.

    $ keyong negotiation accept 5f0c
    """
    _step(identifier, lambda negotiator, row: negotiator.accept(row))


@app.command()
def agree(identifier: shared.PidArgument, expires: clauses.ExpiresOption = None) -> None:
    """Sign the agreement on what the consumer asked for or accepted, as provider, and send it.

    $ keyong negotiation agree 5f0c
    """
    from federation.home import now
    from keyong.cli._context import moment

    end = moment(expires, now()) if expires else None
    _step(identifier, lambda negotiator, row: negotiator.agree(row, end))


@app.command()
def verify(identifier: shared.PidArgument) -> None:
    """Verify the provider's agreement, sign it and return it, as consumer; whatever serves this home does it by itself.

    $ keyong negotiation verify 5f0c
    """
    _step(identifier, lambda negotiator, row: negotiator.verify(row))


@app.command()
def finalize(identifier: shared.PidArgument) -> None:
    """Put an agreement that the consumer verified into force, as provider; the node does it by itself.

    It is suspended until a transfer is started: `keyong transfer request`.

    $ keyong negotiation finalize 5f0c
    """
    _step(identifier, lambda negotiator, row: negotiator.finalize(row))


@app.command()
def terminate(identifier: shared.PidArgument, reason: shared.ReasonOption = "") -> None:
    """End a negotiation, as either side. Whatever was signed in it is revoked.

    $ keyong negotiation terminate 5f0c --reason "the price does not fit"
    """
    from federation.dataspace import NegotiationRow

    with _negotiator() as (party, negotiator):
        row, heard = negotiator.terminate(party.store.find(NegotiationRow, identifier), reason)
        shared.told(row, shared.negotiation_document(row), heard=heard)


def _step(identifier: str, step: Callable[[Negotiator, NegotiationRow], NegotiationRow]) -> None:
    from federation.dataspace import NegotiationRow

    with _negotiator() as (party, negotiator):
        _told(step(negotiator, party.store.find(NegotiationRow, identifier)))


def _told(row: NegotiationRow) -> None:
    shared.told(row, shared.negotiation_document(row))


@contextmanager
def _negotiator() -> Iterator[tuple[Party, Negotiator]]:
    from federation.dataspace import Negotiator
    from keyong import dataspace
    from keyong.cli._context import open_client

    with open_client() as client:
        party = dataspace.party_of(client)
        yield party, Negotiator(party)
