"""``keyong bench``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from keyong.cli._commands import Commands

app = Commands("Measure, and compare with the published targets.")

Compare = Annotated[
    bool,
    typer.Option(
        "--compare/--no-compare",
        help="Also run Flower's own deployment engine, where it is installed, with the same app.",
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Measure at the largest size, however long it takes.")]


@app.callback()
def leashed(context: typer.Context) -> None:
    # What a benchmark starts ends with it, however it ends.
    from keyong.demo.leash import leash

    context.with_resource(leash())


@app.command("round")
def round_(
    rounds: Annotated[
        int, typer.Option(min=21, metavar="N", help="How many rounds; the first is reported apart.")
    ] = 40,
    floats: Annotated[int, typer.Option(min=1, metavar="N", help="Size of the model.")] = 1000,
    protection: Annotated[
        Literal["none", "masked"],
        typer.Option(metavar="none|masked", help="What the agreements demand of every reply."),
    ] = "none",
    compare: Compare = True,
) -> None:
    """Seconds of a governed round over three nodes: real processes, TLS, sandbox, policy and ledger on.

    A round is training and evaluation at all nodes; the median of all but the first. Compared with Flower's own deployment
    engine: the same app, three SuperNodes, TLS, 21 rounds, and the share of its time that it sleeps between polls. From a
    million floats on also with bare gRPC streams of the model's size.

    $ keyong bench round
    $ keyong bench round --floats 25000000
    $ keyong bench round --floats 25000000 --protection masked
    $ keyong --format json bench round --rounds 100 --no-compare
    """
    from keyong.bench.report import report
    from keyong.bench.round import measure

    report(measure(rounds, floats, compare=compare, protection=protection))


@app.command("memory")
def memory_(
    floats: Annotated[int, typer.Option(min=1, metavar="N", help="Size of the model.")] = 25_000_000,
) -> None:
    """Peak memory of coordinator and server part under sum, with 3 nodes and with 12: it grows with the model alone.

    $ keyong bench memory
    """
    from keyong.bench.memory import measure
    from keyong.bench.report import report

    report(measure(floats))


@app.command("ledger")
def ledger_(
    entries: Annotated[int, typer.Option(min=1000, metavar="N", help="How many entries.")] = 20_000,
    threads: Annotated[int, typer.Option(min=1, max=512, metavar="N", help="How many threads append at once.")] = 64,
    nodes: Annotated[
        int, typer.Option(min=3, max=32, metavar="N", help="How many nodes cosign one another's ledgers.")
    ] = 7,
) -> None:
    """Durable ledger entries a second, alone and with three witnesses, and the 99th percentile of the wait; each is
    acknowledged after COMMIT. Seconds from a node's COMMIT until a quorum of the other nodes has cosigned it.

    $ keyong bench ledger
    """
    from keyong.bench.ledger import measure
    from keyong.bench.report import report

    report(measure(entries, threads, nodes))


@app.command("decisions")
def decisions_(
    agreements: Annotated[int, typer.Option(min=1, metavar="N", help="How many agreements.")] = 1000,
    decisions: Annotated[int, typer.Option(min=1000, metavar="N", help="How many decisions.")] = 20_000,
) -> None:
    """Decisions a second, and the 99th percentile of one: agreements of ten constraints, with the state that they keep.

    $ keyong bench decisions
    """
    from keyong.bench.decisions import measure
    from keyong.bench.report import report

    report(measure(agreements, decisions))


@app.command("revocation")
def revocation_(
    revocations: Annotated[int, typer.Option(min=1, metavar="N", help="How many revocations.")] = 5,
) -> None:
    """Seconds from `keyong agreement revoke` to the last process gone and the round told; the slowest counts.

    $ keyong bench revocation
    """
    from keyong.bench.report import report
    from keyong.bench.revocation import measure

    report(measure(revocations))


@app.command("verify")
def verify_(
    entries: Annotated[
        int | None, typer.Option(min=1000, metavar="N", help="How many entries; 100,000 where none is given.")
    ] = None,
    full: Full = False,
) -> None:
    """Seconds to verify a ledger: every statement and checkpoint with two processes, and its hashes alone.

    The ledger is made first: as a node writes it, each intent with a signed invocation and each outcome with a signed
    receipt, no two alike. With fewer than the published 1,000,000 entries it is verified again with twice as many; both times
    are drawn on to them in a straight line, and said so. Compared with bare Ed25519 verification of as many signatures by two
    threads.

    $ keyong bench verify
    $ keyong bench verify --full
    """
    from keyong.bench.report import report
    from keyong.bench.verify import ENTRIES, FULL_ENTRIES, measure

    report(measure(entries or (FULL_ENTRIES if full else ENTRIES)))


@app.command("pages")
def pages_(
    entries: Annotated[
        int | None, typer.Option(min=1000, metavar="N", help="How many entries; 100,000 where none is given.")
    ] = None,
    full: Full = False,
) -> None:
    """Seconds of a search page of `keyong ledger serve` over a long ledger, the 95th percentile of searches of every kind.

    The ledger is made first; with --full it has the published 1,000,000 entries. Also how long it takes until all of it can be
    searched.

    $ keyong bench pages
    $ keyong bench pages --full
    """
    from keyong.bench.pages import ENTRIES, FULL_ENTRIES, measure
    from keyong.bench.report import report

    report(measure(entries or (FULL_ENTRIES if full else ENTRIES)))


@app.command("rest")
def rest_(compare: Compare = True) -> None:
    """Resident memory of a node and of a coordinator at rest, before any job and after one.

    Compared with a Flower SuperNode and its executor.

    $ keyong bench rest
    """
    from keyong.bench.report import report
    from keyong.bench.rest import measure

    report(measure(compare=compare))


@app.command("start")
def start_() -> None:
    """Seconds that `keyong verify --help` takes; compared with Python alone.

    $ keyong bench start
    """
    from keyong.bench.report import report
    from keyong.bench.start import measure

    report(measure())


@app.command("reconnect")
def reconnect_(
    repetitions: Annotated[int, typer.Option(min=1, metavar="N", help="How many restarts.")] = 10,
) -> None:
    """Seconds until every node is back in service after the coordinator's restart; the worst of all restarts.

    $ keyong bench reconnect
    """
    from keyong.bench.reconnect import measure
    from keyong.bench.report import report

    report(measure(repetitions))


@app.command("masks")
def masks_(
    rounds: Annotated[int, typer.Option(min=5, metavar="N", help="How many rounds; the first is left out.")] = 21,
    full: Full = False,
) -> None:
    """What masks cost: at a node, in the sum, on the line, and in a whole governed round, on against off.

    The sum is compared with Flower's own averaging of the same vectors, and masks with CKKS as NVFLARE configures it.

    $ keyong bench masks
    $ keyong bench masks --full
    """
    from keyong.bench.masks import measure
    from keyong.bench.report import report

    report(measure(rounds, full=full))


@app.command("query")
def query_(
    queries: Annotated[int, typer.Option(min=3, metavar="N", help="How many queries; the first is told apart.")] = 21,
    rows: Annotated[int, typer.Option(min=1000, metavar="N", help="Rows of each node.")] = 1_000_000,
    many: Annotated[
        int, typer.Option(min=0, max=64, metavar="N", help="Nodes of the second row, which is only reported; 0: none.")
    ] = 14,
) -> None:
    """Seconds of a sealed group-by over three nodes of a million rows, from its text to its table, sessions live.

    Each is asked anew under a key of its own. Compared with plain DuckDB over the slowest node's rows.

    $ keyong bench query
    $ keyong bench query --many 0
    """
    from keyong.bench.query import measure
    from keyong.bench.report import report

    report(measure(queries, rows, many))


@app.command("dp")
def dp_(
    floats: Annotated[int, typer.Option(min=1, metavar="N", help="Size of the model.")] = 1_000_000,
) -> None:
    """What noise costs: a value drawn, a node's reply noised, and a privacy budget reserved and settled.

    Compared with OpenDP's own sampler, and with encoding the same reply.

    $ keyong bench dp
    """
    from keyong.bench.dp import measure
    from keyong.bench.report import report

    report(measure(floats))


@app.command("sandbox")
def sandbox_(
    revocations: Annotated[int, typer.Option(min=1, metavar="N", help="How many revocations.")] = 20,
) -> None:
    """What isolation costs: a session's start, cold and in waiting, the line around a step, and a revocation's end of it all.

    $ keyong bench sandbox
    """
    from keyong.bench.report import report
    from keyong.bench.sandbox import measure

    report(measure(revocations=revocations))


@app.command("materialise")
def materialise_(
    rows: Annotated[int, typer.Option(min=1000, metavar="N", help="How many rows.")] = 10_000_000,
    repetitions: Annotated[int, typer.Option(min=1, metavar="N", help="How many snapshots; medians count.")] = 3,
) -> None:
    """A job's snapshot of a large Parquet file of ten columns under two rules, in units of DuckDB's plain copy of it.

    And the largest resident memory of the process that makes it.

    $ keyong bench materialise
    """
    from keyong.bench.materialise import measure
    from keyong.bench.report import report

    report(measure(rows, repetitions))


@app.command("all")
def all_(full: Full = False) -> None:
    """Every published figure, one benchmark after the other; a figure that is not measured is a failure.

    $ keyong bench all
    $ keyong --format json bench all --full > figures.jsonl
    """
    from keyong.bench.everything import measure
    from keyong.bench.report import demand

    demand(measure(full))
