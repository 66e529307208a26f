"""``keyong score``: a model with encrypted weights on one company's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, confirmed, emit, narrate, table

if TYPE_CHECKING:
    from federation.statements import JobPlan
    from keyong.choosing import Choice

app = Commands()
RhoOption = Annotated[
    str | None,
    typer.Option(
        "--rho", metavar="RHO", help="What it may cost of the dataset's privacy budget. Default: 0.005, as one query."
    ),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Without noise, where the agreement says --rho unbounded in words.")
]


@app.command()
def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model: a JSON file (see docs/bilateral.md).")],
    on: Annotated[str, typer.Option("--on", metavar="MEMBER/DATASET", help="The dataset it is scored on.")],
    purpose: Annotated[str, typer.Option(metavar="PURPOSE", help="For what, as the agreement names it.")],
    rho: RhoOption = None,
    clip: Annotated[
        str | None,
        typer.Option("--clip", metavar="NORM", help="Largest L2 norm of a scaled row; a smaller one takes less noise."),
    ] = None,
    exact: ExactOption = False,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that the plan names.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before signing. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Score a linear or logistic model on another company's rows; its weights stay encrypted, one loss comes back.

    The node works on second moments of its rows, to which it adds noise before the encrypted weights meet them; no score of
    a row ever exists. One score is one use of the agreement, and costs the dataset's privacy budget what the plan states.

    $ keyong score force.json --on mill-a/passes --purpose fed:QualityControl
    $ keyong score defect.json --on mill-a/passes --purpose fed:DefectDetection --rho 0.02 --clip 2
    """
    from keyong.bilateral import micro_rho
    from keyong.checking import tier_here
    from keyong.cli._context import load_runtime, open_client
    from keyong.scoring import prepare_score, read_model
    from keyong.scoring import score as ask

    given, budget = read_model(model), micro_rho(rho, exact)
    tree = load_runtime(runtime)
    with open_client() as client:
        client.read_mail()
        prepared = prepare_score(client, given, on, purpose, rho=budget, clip=clip)
        scored = ask(
            client,
            prepared,
            tree,
            tier_here(""),
            confirm=lambda plan: agree(plan, prepared.choice, prepared.dataset, yes),
        )
    if as_json():
        emit(scored.document())
        return
    found = scored.score
    table(
        ["dataset", "figure", "loss", "within (95 %)", "rows"],
        [[scored.dataset, scored.figure, f"{found.loss:.6g}", f"{found.half_width:.2g}", f"{round(found.rows)}"]],
    )
    if found.approximation:
        narrate(
            "the logistic loss is its best quadratic: off by {off} for one row at most",
            off=f"{found.approximation:.2g}",
        )
    charged(scored.micro_rho)


def agree(plan: JobPlan, choice: Choice, dataset: str, yes: bool) -> None:
    """Show what the plan rests on, and ask before it is signed."""
    from federation.privacy import rho_text
    from keyong.cli._plans import narrate_agreements

    narrate_agreements([choice])
    narrate("  what comes back is about {dataset} alone, and for nobody but you", dataset=dataset)
    if plan.micro_rho:
        narrate("  it takes rho {rho} of the dataset's privacy budget", rho=rho_text(plan.micro_rho))
    else:
        narrate("  rho: unbounded; no noise is added, which the agreement must permit in words")
    confirmed("sign and ask this?", yes=yes)


def charged(cost: int) -> None:
    """Say what an answer cost."""
    from federation.privacy import rho_text

    if cost:
        narrate("noise was added and charged: rho {rho}", rho=rho_text(cost))
    else:
        narrate("no noise was added (rho: unbounded), as the agreement permits in words")
