"""``keyong peers``: which legal entities the owner lets count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import translate

if TYPE_CHECKING:
    from enterprise_node.acceptance import Peer

app = Commands("Choose which legal entities count toward this node's minimum of participants.")


@app.command("list")
def list_() -> None:
    """List the legal entities of the roster, which of them were accepted here, and who waits for your word.

    What counts is a member under the statement key that it had when you accepted its company. Who was entered under that
    company's name since, or has another key, waits until you accept the company again.

    $ keyong peers list
    """
    from keyong.cli._context import newest_home
    from keyong.registering import peers_of

    found: dict[str, list[Peer]] = {}
    for peer in peers_of(newest_home()):
        found.setdefault(peer.member.entity, []).append(peer)
    if as_json():
        emit(
            [
                {
                    "entity": entity,
                    "members": [peer.member.id for peer in peers],
                    "accepted": all(peer.accepted for peer in peers),
                    "waiting": {peer.member.id: peer.waiting for peer in peers if peer.waiting},
                }
                for entity, peers in found.items()
            ]
        )
        return
    why = {
        "new": translate("new since its company was accepted"),
        "key": translate("another statement key"),
        "entity": translate("of another company before"),
    }
    table(
        ("legal entity", "members", "accepted", "waiting"),
        (
            (
                entity,
                ", ".join(peer.member.id for peer in peers),
                translate("yes") if all(peer.accepted for peer in peers) else translate("no"),
                ", ".join(f"{peer.member.id}: {why[peer.waiting]}" for peer in peers if peer.waiting),
            )
            for entity, peers in found.items()
        ),
    )


@app.command()
def accept(
    entities: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTITY...]", help="Legal entities, as the roster writes them.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All legal entities of the roster as it is now.")] = False,
) -> None:
    """Let legal entities count toward the minimum of participants that agreements demand; on record.

    A coordinator cannot fill a cohort with companies that you do not know: who is not accepted here does not count. The word is
    for the members that the company has now, each under its key; one that comes later, or another key, waits for it again.

    $ keyong peers accept "Mill A Ltd" "Mill B Ltd"
    $ keyong peers accept --all
    """
    from federation.errors import UsageError
    from keyong.cli._context import newest_home
    from keyong.registering import accept_entities

    home = newest_home()
    known = list(dict.fromkeys(member.entity for member in home.history.latest.members))
    wanted = known if everyone else list(entities or ())
    if not wanted:
        raise UsageError("no legal entity is named", hint="name them as `keyong peers list` shows them, or give --all")
    for entity in wanted:
        if entity not in known:
            raise UsageError(
                "the roster has no legal entity {entity}", hint="see `keyong peers list`", entity=entity[:200]
            )
    new = accept_entities(home, wanted)
    if as_json():
        emit({"accepted": list(dict.fromkeys(member.entity for member in new)), "members": [one.id for one in new]})
        return
    for member in new:
        narrate(
            "accepted {member} of {entity}, statement key {key}",
            member=member.id,
            entity=member.entity,
            key=member.statement_key,
        )
    if not new:
        narrate("all of these were accepted before")
