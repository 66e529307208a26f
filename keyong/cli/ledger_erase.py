"""``keyong ledger erase``: what entries say goes; that it was there, and who erased it, stays."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._output import as_json, confirmed, emit, facts, narrate, table

if TYPE_CHECKING:
    pass


def erase(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes on record, and cannot be erased.")],
    entries: Annotated[
        list[int] | None, typer.Argument(metavar="[ENTRY...]", help="The entries to erase fields of.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="FIELD", help="Erase this field alone; repeat it. Default: every field."),
    ] = None,
    agreement: Annotated[
        str | None, typer.Option(metavar="AGREEMENT", help="Erase what is of this agreement, which has to be over.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="PERSON", help="Who decided it; it goes on record. Default: this machine's user."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before erasing. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Erase what entries of this party's ledger say. It cannot be undone.

    The entries stay, with commitments that tell nothing without what was erased: every proof, receipt and checkpoint still
    holds. An entry `erasure` says which fields of which entry were erased, when, by whom and why. `keyong ledger replay` and
    `keyong audit` list what they cannot judge any more.

    Exports, backups and receipts that were made before are beyond it. Revocations, rosters, erasures and steps without an
    outcome are not erased: rules rest on them.

    $ keyong ledger erase 17 --field purpose --reason "request of 3 May"
    $ keyong ledger erase --agreement 125a3335 --reason "contract ended, retention over" --by "A. Meier"
    """
    from keyong.cli._context import open_home
    from keyong.erasing import choose, decided_by
    from keyong.erasing import erase as carry_out
    from keyong.pages.index import forget

    home = open_home()
    with home.open_ledger() as ledger:
        chosen = choose(home, ledger, entries or (), fields or (), agreement)
        _present(chosen)
        confirmed("erase this for ever?", yes=yes)
        written = carry_out(ledger, chosen, reason, decided_by(home, by or getpass.getuser()))
    forget(home.path)
    if as_json():
        emit({"erased": [{"entry": index, "fields": list(names)} for index, names in chosen], "recorded": written})
        return
    narrate("erased; backups and exports made before are beyond this")
    facts((("entries", len(chosen)), ("recorded in", ", ".join(map(str, written[:20])))))


def _present(chosen: list[tuple[int, tuple[str, ...]]]) -> None:
    if not as_json():
        table(("entry", "fields"), ((index, ", ".join(names)) for index, names in chosen))
