"""``keyong query``: an aggregate question over many companies' rows, answered sealed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, confirmed, emit, line, narrate, table

if TYPE_CHECKING:
    from federation.statements import JobPlan
    from keyong.asking import Answered, Prepared

app = Commands()


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; FROM names the dataset.")],
    purpose: Annotated[str, typer.Option(metavar="PURPOSE", help="For what, as the agreements name it.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="MEMBER/DATASET",
            help="A dataset to ask; repeat it. Default: all of the name after FROM that agreements permit.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say what would be asked of whom, who learns what, and what is not protected."),
    ] = False,
    rho: Annotated[
        str | None,
        typer.Option(
            metavar="RHO",
            help="Add noise that costs so much of each dataset's privacy budget. Default: 0.005 where a dataset demands noise.",
        ),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the first figure as bars, on the terminal.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.svg",
            help="Draw every figure into an SVG, with intervals and what is suppressed.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the table there; parquet needs it.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Ask the nodes even where the identical query was answered before.")
    ] = False,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that the plan names.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before signing. Needed where there is no terminal.")
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="text|json|csv|parquet",
            click_type=click.Choice(["text", "json", "csv", "parquet"]),
            help="Form of the table.",
        ),
    ] = None,
) -> None:
    """Ask an aggregate question of many companies' rows; a table comes out, and nobody sees one company's part of it.

    Each node computes its part in a sandbox, keeps back cells that would show single subjects, masks the rest and encrypts
    it under a key made for this query; the coordinator adds ciphertexts. Cells to which too few companies contribute are
    suppressed, and shown as such. One query is one use of each agreement; the identical query is answered again at no cost.
    With noise (`--rho`) each figure comes with what it lies within 95 times in 100, no cell is suppressed, and quantiles, least
    and largest values and logistic regressions are answered, too; a logistic regression takes a use for each of its steps.

    $ keyong query "SELECT alloy, COUNT(*), AVG(force) FROM passes GROUP BY alloy" --purpose fed:Benchmarking
    $ keyong query "SELECT LINREG(force, width, reduction) FROM passes" --purpose fed:Benchmarking --explain
    $ keyong query "SELECT HISTOGRAM(force, 0, 5, 10, 20, 40) FROM passes" --purpose fed:Benchmarking --plot
    $ keyong query "SELECT alloy, AVG(force) FROM passes GROUP BY alloy" --purpose fed:Benchmarking --picture force.svg
    $ keyong query "SELECT alloy, COUNT(*), MEDIAN(force) FROM passes GROUP BY alloy" --purpose fed:Benchmarking --rho 0.01
    $ keyong query "SELECT LOGREG(cracked, force, width) FROM passes" --purpose fed:Benchmarking --rho 0.1
    """
    from federation.errors import UsageError
    from federation.privacy import STANDARD, epsilon, rho_text
    from keyong.asking import ask, prepare
    from keyong.checking import tier_here
    from keyong.ciphering import Ciphers
    from keyong.cli._context import load_runtime, open_client
    from keyong.drawing import check_drawn
    from keyong.drawing import picture as drawn

    form = format or ("json" if as_json() else "text")
    if form == "parquet" and output is None:
        raise UsageError("a Parquet table goes into a file", hint="give --output FILE")
    if picture is not None and picture.suffix.lower() != ".svg":
        raise UsageError(
            "a picture is drawn as SVG", hint="give a name that ends in .svg; browsers and editors show it"
        )
    tree = load_runtime(runtime)
    with open_client() as client:
        client.read_mail()
        prepared = prepare(client, sql, purpose, dataset or (), rho)
        if explain:
            _explain(prepared, form)
            return
        if picture is not None:
            check_drawn(prepared)

        def agreed(plan: JobPlan) -> None:
            from keyong.cli._plans import narrate_agreements
            from keyong.explaining import drowned

            narrate_agreements(prepared.chosen)
            if hopeless := drowned(prepared):
                narrate("  {sentence}", sentence=hopeless)
            if prepared.query.noise is not None:
                narrate(
                    "  noise that costs rho {rho} of each dataset's privacy budget (epsilon {epsilon} at delta {delta})",
                    rho=rho_text(prepared.micro_rho),
                    epsilon=f"{epsilon(prepared.micro_rho, STANDARD.delta):.2f}",
                    delta=STANDARD.delta,
                )
            narrate(
                "  the answer rests on {count} companies' rows; {least} at least in each cell, each with {subjects} subjects",
                count=len(prepared.chosen),
                least=prepared.query.rules.contributors,
                subjects=prepared.query.rules.subjects,
            )
            confirmed("sign and ask this?", yes=yes)

        with Ciphers(tree, tier_here("")) as ciphers:
            answered = ask(client, prepared, tree, ciphers, again=again, confirm=agreed)
    _show(answered, form, output)
    if picture is not None:
        picture.write_text(drawn(answered), encoding="utf-8")
    if plot:
        from keyong.plotting import bars

        for row in bars(answered):
            (line if form == "text" and output is None else _to_stderr)(row)


def _explain(prepared: Prepared, form: str) -> None:
    from keyong.explaining import explanation

    told = explanation(prepared)
    if form == "json":
        emit(told.document)
        return
    for paragraph in told.lines():
        line(paragraph)


def _show(answered: Answered, form: str, output: Path | None) -> None:
    from keyong import tabulating

    if answered.repeated:
        narrate(
            "answered from what is kept of the identical query; nobody was asked, and nothing was used (--again asks)"
        )
    if form == "parquet":
        assert output is not None
        tabulating.write_parquet(answered, output)
    elif form == "csv":
        _put(tabulating.as_csv(answered), output)
    elif form == "json":
        import json

        document = tabulating.document(answered)
        if output is None:
            emit(document)
        else:
            _put(json.dumps(document, ensure_ascii=False, indent=1) + "\n", output)
    else:
        headings, rows = tabulating.text_rows(answered)
        if output is None:
            table(headings, rows)
        else:
            _put("\n".join("\t".join(row) for row in [headings, *rows]) + "\n", output)
    _tell(answered)


def _tell(answered: Answered) -> None:
    from federation.query import is_fit

    hidden = sum(cell.suppressed for cell in answered.answer.cells)
    if hidden:
        narrate(
            "{count} of {all} cells are suppressed: fewer than {least} companies contribute {subjects} subjects or more",
            count=hidden,
            all=len(answered.answer.cells),
            least=answered.prepared.query.rules.contributors,
            subjects=answered.prepared.query.rules.subjects,
        )
    if is_fit(answered.prepared.query) and answered.answer.cells[0].figures == {
        one.name: None for one in answered.prepared.query.measures
    }:
        narrate("the coefficients do not stand out of the noise, or did not settle: ask with more rho, or more steps")
    if answered.prepared.query.noise is None:
        narrate("no noise was added: figures are exact sums over the contributing companies")
    else:
        narrate("noise was added: in brackets, what a figure lies within 95 times in 100")


def _put(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def _to_stderr(text: Any) -> None:
    sys.stderr.write(f"{text}\n")
