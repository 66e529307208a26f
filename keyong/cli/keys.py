"""``keyong keys``: this party's keys, and their exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, confirmed, emit, facts, narrate, table
from keyong.cli._words import KEYS, listed

if TYPE_CHECKING:
    from federation.home import Home

app = Commands("Show this party's keys and since when they are in force, and exchange them.")


@app.command("list")
def list_() -> None:
    """List the keys that this party has had, by role, with the roster that named each and the one that ended it.

    $ keyong keys list
    """
    from keyong.cli._context import open_home

    rows = _keys(open_home())
    if as_json():
        emit(rows)
        return
    table(
        ("role", "key", "since", "until"),
        ((row["role"], row["key"], row["since"], row["until"] or "-") for row in rows),
    )


def _keys(home: Home) -> list[dict[str, Any]]:
    from federation.crypto import certificate_fingerprint
    from federation.keyring import entries_of
    from federation.statements import instant_text

    found = []
    entries = entries_of(home.history.rosters, home.identity.member)
    for role in ("statement", "ledger", "witness", "tls"):
        spans: list[dict[str, Any]] = []
        for roster, member in entries:
            key = (
                certificate_fingerprint(member.tls_certificate.encode())
                if role == "tls"
                else str(getattr(member, f"{role}_key"))
            )
            if spans and spans[-1]["key"] == key:
                continue
            if spans:
                spans[-1]["until"] = instant_text(roster.issued)
            since = {"since": instant_text(roster.issued), "roster": roster.version, "until": ""}
            spans.append({"role": role, "key": key, **since})
        found += spans
    return found


@app.command()
def rotate(
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="statement|ledger|witness|tls",
            click_type=click.Choice(["statement", "ledger", "witness", "tls"]),
            help="Exchange the key of this role alone; repeat it. Default: all four.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before exchanging. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Exchange this party's keys for new ones, made here: signed by old and new ones, they enter the next roster.

    What was signed before still verifies, each entry under the key of its place; from the new roster on, the old keys sign
    nothing more, whoever has them, and they are gone from this home. Stop the node (or the coordinator) first. Plans that this
    party takes part in are planned anew where its statement key changes; agreements stay.

    If the coordinator cannot be reached half way, run it again: it goes on where it was. A root key is not exchanged
    here: see `keyong consortium propose`.

    $ keyong keys rotate
    $ keyong keys rotate --role tls
    """
    from keyong.cli._context import open_home, quiet_logs
    from keyong.rotating import ROLES, rotate

    quiet_logs()
    home = open_home()
    confirmed("exchange keys now? the old ones are destroyed", yes=yes)
    done = rotate(home, role or ROLES)
    if as_json():
        emit({"roles": list(done.roles), "roster_version": done.roster.version})
        return
    narrate("the new keys are in force; make a backup of them, the old one holds keys that are nobody's now")
    facts((("keys exchanged", listed(KEYS, done.roles)), ("roster version", done.roster.version)))
