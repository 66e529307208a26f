"""``keyong transfer``: compute grants by the Dataspace Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli import _dataspace as shared
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, table
from keyong.text import translate_data

app = Commands("Ask for, start and stop the right to run jobs under an agreement; no data moves.")


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also those that ended.")] = False,
) -> None:
    """List transfers, as they stand here.

    $ keyong transfer list --all
    """
    from federation.dataspace import TransferRow
    from keyong import dataspace
    from keyong.cli._context import open_home

    rows = dataspace.store_of(open_home()).list(TransferRow, open_only=not everything)
    if as_json():
        emit([shared.transfer_document(row) for row in rows])
        return
    table(
        ("id", "state", "we are", "with", "agreement", "updated"),
        (
            (
                shared.short(row.pid),
                translate_data(shared.STATES[row.state]),
                row.role,
                row.peer,
                row.agreement.removeprefix("sha256:")[:8],
                row.updated,
            )
            for row in rows
        ),
    )


@app.command()
def request(
    agreement: Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its id or digest, or how it begins.")],
) -> None:
    """Ask the provider for the right to run jobs under an agreement, as consumer; its node grants it by itself.

    $ keyong transfer request 5f0c
    """
    from federation.dataspace import Grantor
    from keyong import dataspace
    from keyong.cli._context import open_client

    with open_client() as client:
        row = Grantor(dataspace.party_of(client)).request(client.holdings.find(agreement))
        shared.told(row, shared.transfer_document(row))


@app.command()
def start(identifier: shared.PidArgument) -> None:
    """Let jobs run: as provider what was requested, as either side what it suspended itself.

    $ keyong transfer start 5f0c
    """
    _lead(identifier, "STARTED")


@app.command()
def suspend(identifier: shared.PidArgument, reason: shared.ReasonOption = "") -> None:
    """Interrupt a grant, as either side: jobs under it stop within a second. Whoever suspended it starts it again.

    $ keyong transfer suspend 5f0c --reason "maintenance of the mill"
    """
    _lead(identifier, "SUSPENDED", reason)


@app.command()
def complete(identifier: shared.PidArgument) -> None:
    """Say that a grant has served its purpose, as either side; another may be requested.

    $ keyong transfer complete 5f0c
    """
    _lead(identifier, "COMPLETED")


@app.command()
def terminate(identifier: shared.PidArgument, reason: shared.ReasonOption = "") -> None:
    """End a grant, as either side: jobs under it stop within a second. The agreement stays; another may be requested.

    $ keyong transfer terminate 5f0c
    """
    _lead(identifier, "TERMINATED", reason)


def _lead(identifier: str, target: str, reason: str = "") -> None:
    from federation.dataspace import Grantor, TransferRow
    from keyong import dataspace
    from keyong.cli._context import open_client

    with open_client() as client:
        party = dataspace.party_of(client)
        row, heard = Grantor(party).lead(party.store.find(TransferRow, identifier), target, reason)
        shared.told(row, shared.transfer_document(row), heard=heard)
