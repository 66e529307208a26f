"""``keyong intersect``: how many of our keys another company has, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, table
from keyong.cli.score import ExactOption, RhoOption, agree, charged

app = Commands()


@app.command()
def intersect(
    keys: Annotated[
        Path,
        typer.Argument(metavar="KEYS", help="Our keys: a CSV or Parquet file, or a text file with one on each line."),
    ],
    on: Annotated[str, typer.Option("--on", metavar="MEMBER/DATASET", help="The dataset that is asked.")],
    column: Annotated[str, typer.Option("--column", metavar="NAME", help="Its column of keys.")],
    purpose: Annotated[str, typer.Option(metavar="PURPOSE", help="For what, as the agreement names it.")],
    keys_column: Annotated[
        str | None, typer.Option("--keys-column", metavar="NAME", help="The column of our file that holds the keys.")
    ] = None,
    least: Annotated[
        int, typer.Option("--least", min=10, metavar="N", help="Fewest keys of either side, and of what is told.")
    ] = 10,
    step: Annotated[int, typer.Option("--step", min=5, metavar="N", help="The size is told in steps of so many.")] = 5,
    rho: RhoOption = None,
    exact: ExactOption = False,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that the plan names.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before signing. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Ask how many of our keys another company has, too; neither sees the other's, and only the size is told.

    Both sides blind their keys with secrets made for this one question (openmined-psi, the extra psi). The node counts, adds
    noise, tells nothing of small sizes and rounds the others. One question is one use of the agreement.

    $ keyong intersect suppliers.csv --keys-column code --on mill-a/suppliers --column code --purpose fed:SupplyChainPlanning
    """
    from keyong.bilateral import micro_rho
    from keyong.checking import tier_here
    from keyong.cli._context import load_runtime, open_client
    from keyong.intersecting import intersect as ask
    from keyong.intersecting import prepare_intersection, read_keys

    mine, budget = read_keys(keys, keys_column), micro_rho(rho, exact)
    tree = load_runtime(runtime)
    with open_client() as client:
        client.read_mail()
        prepared = prepare_intersection(client, mine, on, column, purpose, rho=budget, least=least, step=step)
        found = ask(
            client,
            prepared,
            tree,
            tier_here(""),
            confirm=lambda plan: agree(plan, prepared.choice, prepared.dataset, yes),
        )
    if as_json():
        emit(found.document())
        return
    size = f"< {found.least}" if found.size is None else str(found.size)
    table(
        ["dataset", "column", "in common", "within (95 %)", "of ours"],
        [[found.dataset, found.column, size, f"{found.half_width:.1f}", str(found.mine)]],
    )
    charged(found.micro_rho)
