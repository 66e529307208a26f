"""``keyong catalog``: what nodes publish."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, narrate, table
from keyong.text import language, translate

app = Commands("See what nodes publish: datasets and their schema, without values.")


@app.command("list")
def list_(
    search: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only those whose names, titles, descriptions or columns hold this, in either language.",
        ),
    ] = "",
) -> None:
    """List the datasets that the consortium's nodes publish; each entry is verified against its owner's signature.

    $ keyong catalog list --search 轧制
    """
    from keyong.cli._context import open_client

    with open_client() as client:
        entries = [
            entry for entry in client.catalog() if not search or search.casefold() in _searched(entry.description)
        ]
    if as_json():
        emit([_document(entry) for entry in entries])
        return
    chinese = language() == "zh"
    rows = []
    for entry in entries:
        one = entry.description
        title = (one.title_zh if chinese else "") or one.title
        bounds = translate("{low} to {high}", low=one.rows_at_least, high=one.rows_at_most)
        rows.append(
            (
                f"{one.provider}/{one.dataset}",
                title,
                bounds,
                len(one.columns),
                translate("yes") if entry.online else translate("no"),
            )
        )
    if rows:
        table(("dataset", "title", "rows", "columns", "connected"), rows)
    else:
        narrate("no dataset is published" if not search else "no dataset published holds {text}", text=search)


@app.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="MEMBER/DATASET", help="The dataset, as the list shows it.")],
) -> None:
    """Show a dataset's published description: columns, types, declared bounds, a range for the number of rows.

    $ keyong catalog show mill-a/passes
    """
    from keyong.cli._context import open_client, split_dataset
    from keyong.cli.node_dataset import show_description

    member, name = split_dataset(dataset)
    with open_client() as client:
        entry = client.dataset(member, name)
    if as_json():
        emit(_document(entry))
        return
    show_description(entry.description)
    facts((("connected", translate("yes") if entry.online else translate("no")), ("runtime", entry.runtime)))


def _document(entry: Any) -> dict[str, Any]:
    return {**entry.description.model_dump(mode="json"), "online": entry.online, "runtime": entry.runtime}


def _searched(one: Any) -> str:
    texts = [one.provider, one.dataset, one.title, one.title_zh, one.description, one.description_zh, one.industry]
    texts += [part for column in one.columns for part in (column.name, column.description)]
    return "\n".join(texts).casefold()
