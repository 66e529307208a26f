"""``keyong job result``: a result fetched, its receipts verified and anchored, and acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import click
import typer

from keyong.cli._jobs import JobArgument, bare, find_job
from keyong.cli._output import as_json, clean, emit, facts, line, narrate, table
from keyong.cli._words import ANCHORINGS, word
from keyong.text import STATUSES, translate

if TYPE_CHECKING:
    from federation.statements import Anchoring
    from keyong.receipts import Standing
    from keyong.receiving import Received


RECEIPTS = "receipts/"


def result(
    job: JobArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="An empty or new folder.")],
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="committed|witnessed|final",
            click_type=click.Choice(["committed", "witnessed", "final"]),
            help="Demand this of the receipts in place of what the plan demands; it goes on record.",
        ),
    ] = None,
    wait: Annotated[
        int, typer.Option(min=0, max=86400, metavar="SECONDS", help="How long to wait for it.", show_default=True)
    ] = 60,
) -> None:
    """Fetch a job's result: last aggregate (model.safetensors), metrics.json, receipts, the server part's files in
    output/.

    Every receipt is verified, and proved under a checkpoint of its node's ledger that other companies cosigned: without
    that, nothing is handed over (exit code 5) unless the plan said otherwise. What was received is acknowledged, signed, in
    our ledger, the coordinator's and the nodes'. Nothing in it is loaded or run here.

    $ keyong job result 7c1f -o ./result
    $ keyong job result 7c1f -o ./result --accept committed
    """
    from keyong.cli._context import open_client
    from keyong.cli._plans import warn_development, warn_unprotected
    from keyong.receiving import receive

    folder = output.expanduser()
    with open_client() as client:
        found = find_job(client, job)
        received = receive(
            client,
            found.job,
            found.plan,
            folder,
            accept=cast("Anchoring | None", accept),
            seconds=wait,
            waiting=_tell_waiting,
        )
        client.attest()
    summary = received.summary
    if as_json():
        emit({"folder": str(folder), "files": _files(folder), "summary": summary, **_evidence(received)})
        return
    facts(
        (
            ("job", bare(found.job)),
            ("status", word(STATUSES, summary.get("status", ""))),
            ("rounds", f"{summary.get('rounds_done')}/{summary.get('rounds')}"),
        )
    )
    _show_receipts(received)
    names = _files(folder)
    for name in names:
        if not name.startswith(RECEIPTS):
            line(f"{folder}/{clean(name)}")
    line(f"{folder}/{RECEIPTS}  {translate('{count} files', count=sum(name.startswith(RECEIPTS) for name in names))}")
    warn_unprotected(str(summary.get("protection", "")))
    warn_development(summary.get("development"))


def _tell_waiting(short: Sequence[Standing]) -> None:
    narrate("waiting for other companies to cosign the receipts of {nodes}", nodes=", ".join(one.node for one in short))


def _evidence(received: Received) -> dict[str, Any]:
    return {
        "anchoring": received.anchoring,
        "demanded": received.demanded,
        "acknowledged": received.told,
        "nodes": [
            {
                "node": one.node,
                "receipts": len(one.receipts),
                "anchoring": one.anchoring,
                "witnesses": list(one.witnesses),
                "last": one.last,
            }
            for one in received.standings
        ],
    }


def _show_receipts(received: Received) -> None:
    table(
        ("node", "receipts", "state", "cosigned by"),
        (
            (one.node, len(one.receipts), word(ANCHORINGS, one.anchoring), ", ".join(one.witnesses) or "-")
            for one in received.standings
        ),
    )
    facts((("receipts", word(ANCHORINGS, received.anchoring)),))
    if received.demanded != received.plan.anchoring:
        narrate(
            "the plan demanded {planned}; {demanded} was accepted, and that is on record",
            planned=word(ANCHORINGS, received.plan.anchoring),
            demanded=word(ANCHORINGS, received.demanded),
        )
    if not received.told:
        narrate("the coordinator did not take the acknowledgement; it is in this ledger")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
