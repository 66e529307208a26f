"""``keyong peers``: which legal entities the owner lets count."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import translate

app = Commands("Choose which legal entities count toward this node's minimum of participants.")


@app.command("list")
def list_() -> None:
    """List the legal entities of the roster, and which of them were accepted here.

    $ keyong peers list
    """
    from keyong.cli._context import newest_home
    from keyong.registering import node_store

    home = newest_home()
    accepted = node_store(home).accepted()
    members: dict[str, list[str]] = {}
    for member in home.history.latest.members:
        members.setdefault(member.entity, []).append(member.id)
    if as_json():
        emit([{"entity": entity, "members": ids, "accepted": entity in accepted} for entity, ids in members.items()])
        return
    table(
        ("legal entity", "members", "accepted"),
        (
            (entity, ", ".join(ids), translate("yes") if entity in accepted else translate("no"))
            for entity, ids in members.items()
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

    A coordinator cannot fill a cohort with companies that you do not know: who is not accepted here does not count.

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
        emit({"accepted": new})
        return
    for entity in new:
        narrate("accepted {entity}", entity=entity)
    if not new:
        narrate("all of these were accepted before")
