"""``keyong node dataset preview``: what a job will see, for the owner's eyes."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._output import as_json, emit, facts, line, say, table
from keyong.cli._words import TYPES, word
from keyong.text import translate

if TYPE_CHECKING:
    from enterprise_node.preview import Preview

MOST_ROWS = 1000


def preview(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset's name.")],
    agreement: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The agreement to see it under; without one, all that the rules leave."),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, max=MOST_ROWS, metavar="N", help="How many of the first rows.")] = 5,
) -> None:
    """Show what a job will see of a dataset: its first rows after the rules and the agreement's grants, types and bounds.

    The snapshot is really made, as for a job, and removed again. That you looked is on record; what you saw is in no log.

    $ keyong node dataset preview passes
    $ keyong node dataset preview passes --agreement 5f3a --rows 20
    """
    from keyong.cli._context import open_home
    from keyong.previewing import preview_dataset

    seen = preview_dataset(open_home(), name, rows, agreement)
    if as_json():
        emit(_document(name, seen))
        return
    facts(
        (
            ("rows", seen.rows),
            ("files", seen.files or ""),
            ("left out by the rules", ", ".join(seen.dropped)),
            ("not granted", ", ".join(seen.withheld)),
            ("snapshot", seen.snapshot),
        )
    )
    line()
    table(
        ("column", "type", "changed values", "missing values", "lowest", "highest"),
        (
            (
                one.column.name,
                word(TYPES, one.column.type),
                translate("no rule") if one.changed is None else one.changed,
                one.missing,
                one.least,
                one.greatest,
            )
            for one in seen.columns
        ),
    )
    if seen.head:
        line()
        say("the first rows, as the job reads them:")
        _print_rows(seen)


def _print_rows(seen: Preview) -> None:
    from keyong.cli._output import width

    cells = [[one.column.name for one in seen.columns], *([_text(cell) for cell in row] for row in seen.head)]
    widths = [max(width(row[place]) for row in cells) for place in range(len(seen.columns))]
    for row in cells:
        line("  ".join(cell + " " * (size - width(cell)) for cell, size in zip(row, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    shown = "" if value is None else str(value)
    return "".join(mark if mark.isprintable() else " " for mark in shown[:200])


def _document(name: str, seen: Preview) -> dict[str, Any]:
    return {
        "dataset": name,
        "rows": seen.rows,
        "files": seen.files,
        "snapshot": seen.snapshot,
        "dropped": list(seen.dropped),
        "withheld": list(seen.withheld),
        "columns": [
            {
                "name": one.column.name,
                "type": one.column.type,
                "changed": one.changed,
                "missing": one.missing,
                "least": one.least,
                "greatest": one.greatest,
            }
            for one in seen.columns
        ],
        "head": [
            [cell.isoformat() if isinstance(cell, (date, datetime)) else cell for cell in row] for row in seen.head
        ],
    }
