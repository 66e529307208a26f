"""``keyong bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli._commands import Commands

app = Commands("Measure, and compare with the published targets.")


@app.command("round")
def round_(
    rounds: Annotated[
        int, typer.Option(min=21, metavar="N", help="How many rounds; the first is reported apart.")
    ] = 40,
    floats: Annotated[int, typer.Option(min=1, metavar="N", help="Size of the model.")] = 1000,
) -> None:
    """Seconds of a governed round over three nodes: real processes, TLS, sandbox, policy and ledger on.

    $ keyong bench round
    $ keyong --format json bench round --rounds 100
    """
    from keyong.bench.report import report
    from keyong.bench.round import measure

    report(measure(rounds, floats))


@app.command("ledger")
def ledger_(
    entries: Annotated[int, typer.Option(min=1000, metavar="N", help="How many entries.")] = 20_000,
    threads: Annotated[int, typer.Option(min=1, max=512, metavar="N", help="How many threads append at once.")] = 64,
) -> None:
    """Durable ledger entries: seconds an entry and the 99th percentile of the wait, each entry acknowledged after COMMIT.

    $ keyong bench ledger
    """
    from keyong.bench.ledger import measure
    from keyong.bench.report import report

    report(measure(entries, threads))
