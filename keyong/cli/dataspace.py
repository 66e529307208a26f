"""``keyong dataspace``: catalogs of the Dataspace Protocol, and answering it without a node."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyong.cli import _clauses as clauses
from keyong.cli import _dataspace as shared
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, clean, emit, line, narrate, table
from keyong.cli._serving import LogFormat, LogLevel, report, serve

app = Commands("Publish and read catalogs of the Dataspace Protocol, and answer it.")


@app.command()
def catalog(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="Whose catalog.")],
) -> None:
    """Show the offers in a member's catalog, with their clauses in words.

    $ keyong dataspace catalog mill-a
    """
    from federation.dataspace import Terms, read_offer
    from keyong import dataspace
    from keyong.cli._context import open_client

    with open_client() as client:
        party = dataspace.party_of(client)
        found = dataspace.catalog(party, member)
        if as_json():
            emit(found)
            return
        shown: list[tuple[str, str, Terms]] = []
        for one in found.get("dataset", []):
            for raw in one.get("hasPolicy", []):
                target = str(one.get("@id", ""))
                terms = read_offer({**raw, "target": target}, member, party.me, party.clock())
                shown.append((str(raw["@id"]), target.rpartition(":")[2], terms))
    if not shown:
        narrate("{member} offers nothing", member=member)
    for identity, dataset, terms in shown:
        line(f"{shared.short(identity)}  {member}/{clean(dataset)}  {clean(terms.title)}")
        shared.show_terms(terms)
        line()


@app.command()
def publish(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="One of our datasets.")],
    purpose: clauses.PurposeOption = None,
    expires: clauses.ExpiresOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    policy: shared.PolicyOption = None,
    automatic: Annotated[
        bool,
        typer.Option(
            "--automatic", help="Whoever asks for it as it stands gets it signed by the node, without a person."
        ),
    ] = False,
) -> None:
    """Put an offer into our catalog. It binds nobody until somebody asks for it and we agree.

    $ keyong dataspace publish passes --template limited --set column=speed,force --purpose fed:QualityControl
    """
    from keyong import dataspace
    from keyong.cli._context import open_home
    from keyong.registering import node_store

    home = open_home()
    node_store(home).dataset(dataset)
    me = home.identity.member
    terms = shared.terms_of(
        me, me, dataset, template=template, settings=set_, purpose=purpose, expires=expires, policy=policy
    )
    row = dataspace.publish(home, dataset, terms, automatic=automatic)
    if as_json():
        emit(_offer(row))
        return
    shared.show_terms(terms)
    narrate("published as {id}; take it back with `keyong dataspace withdraw`", id=shared.short(row.id))


@app.command()
def offers() -> None:
    """List the offers in our catalog.

    $ keyong dataspace offers
    """
    from keyong import dataspace
    from keyong.cli._context import open_home

    rows = dataspace.store_of(open_home()).offers()
    if as_json():
        emit([_offer(row) for row in rows])
        return
    table(
        ("id", "dataset", "title", "automatic", "since"),
        (
            (shared.short(row.id), row.dataset, _terms(row).title, "yes" if row.automatic else "no", row.created)
            for row in rows
        ),
    )


@app.command()
def withdraw(identifier: shared.PidArgument) -> None:
    """Take an offer out of our catalog; negotiations under way go on.

    $ keyong dataspace withdraw 5f0c
    """
    from keyong import dataspace
    from keyong.cli._context import open_home

    row = dataspace.withdraw(open_home(), identifier)
    if as_json():
        emit(_offer(row))
        return
    narrate("withdrawn: {id}", id=shared.short(row.id))


def _terms(row: Any) -> Any:
    from federation.dataspace import read_terms

    return read_terms(row.terms)


def _offer(row: Any) -> dict[str, Any]:
    terms = _terms(row)
    return {
        "id": row.id,
        "dataset": row.dataset,
        "title": terms.title,
        "automatic": row.automatic,
        "created": row.created,
        "policy": terms.policy,
    }


@app.command("serve")
def serve_(log_level: LogLevel = None, log_format: LogFormat = None) -> None:
    """Answer the Dataspace Protocol for a member that runs no node: an analyst who negotiates for data.

    A node answers by itself (`keyong node serve`), and so does the coordinator's own member where the gateway is served.
    Only an outbound connection is made.

    $ keyong --home ~/lab dataspace serve
    """
    from keyong import dataspace
    from keyong.cli._context import open_home
    from keyong.cli._logging import configure
    from keyong.cli.settings import load

    settings = load(log_level=log_level, log_format=log_format)
    home = open_home()
    member = home.identity.member
    configure(settings.log_level, settings.log_format, component="dataspace", member=member)

    def state(text: str) -> None:
        event, _, rest = text.partition(" ")
        if event == "attached":
            report("attached", "attached: {member} is connected to the coordinator", member=member)
        else:
            report("detached", "detached: {reason}; dialling again", member=member, reason=rest)

    async def drained() -> None:
        return None

    serve(lambda: dataspace.serve(home, state), drained, 0)
