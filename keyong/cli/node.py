"""``keyong node``: one company's side."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyong.cli import node_approvals, node_attribute, node_dataset, node_openings, node_review, node_runtime, node_tier
from keyong.cli._commands import Commands
from keyong.cli._jobs import bare
from keyong.cli._output import as_json, emit, facts, line, table
from keyong.cli._serving import LogFormat, LogLevel, Observe, ObserveAnywhere, report, serve
from keyong.cli._standing import fetch, mebibytes, show_checks, show_health
from keyong.cli._tiers import tell_what_is_missing
from keyong.cli._words import DENIALS, word
from keyong.text import translate

app = Commands("Run this company's node, its datasets and its runtime.")
app.add_typer(node_dataset.app, name="dataset")
app.add_typer(node_runtime.app, name="runtime")
app.add_typer(node_approvals.app, name="approvals")
app.add_typer(node_review.app, name="review")
app.add_typer(node_attribute.app, name="attribute")
app.command("tier")(node_tier.tier)
app.command("openings")(node_openings.openings)


@app.command("serve")
def serve_(
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that jobs run in.")] = None,
    observe: Observe = None,
    observe_anywhere: ObserveAnywhere = None,
    drain: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long steps that run may take to end after SIGTERM; 25 by default."),
    ] = None,
    waiting_workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=64, help="Workers kept started and waiting for a job; 1 by default."),
    ] = None,
    development: Annotated[
        bool,
        typer.Option("--development", help="Isolate nothing (T0): for development, on data marked --simulated alone."),
    ] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Serve this company's datasets: dial the coordinator, and run what agreements permit in the sandbox.

    Only outbound connections are made; the link is made anew whenever it breaks. On SIGTERM or Ctrl-C steps that run may
    end, no other begins; what is left is settled as killed. With --format json, each change of state is a line: ready,
    attached, detached.

    With --development, jobs are plain subprocesses that see what this user sees: the floor must be T0 (`keyong node tier
    T0`), the agreement must name T0, and the data must be registered with --simulated; all else is refused.

    $ keyong --home ~/mill-a node serve
    $ keyong --home ~/mill-a node serve --observe 127.0.0.1:9464
    """
    from keyong import runtime as runtimes
    from keyong.cli._context import open_home
    from keyong.cli._logging import configure
    from keyong.cli.settings import load

    settings = load(
        runtime=runtime,
        observe=observe,
        observe_anywhere=observe_anywhere,
        drain=drain,
        waiting_workers=waiting_workers,
        log_level=log_level,
        log_format=log_format,
    )
    home = open_home()
    member = home.identity.member
    configure(settings.log_level, settings.log_format, component="node", member=member)
    from enterprise_node.service import NodeService

    if development:
        tell_what_is_missing()
    service = NodeService(
        home,
        runtimes.check(settings.runtime),
        settings.observed(),
        waiting=settings.waiting_workers,
        development=development,
    )

    def told(state: str) -> None:
        event, _, rest = state.partition(" ")
        if event == "ready":
            more = {"observe": int(rest)} if rest else {}
            report("ready", "ready: node {member}; dialling the coordinator", member=member, **more)
        elif event == "attached":
            report("attached", "attached: {member} is connected to the coordinator", member=member)
        else:
            report("detached", "detached: {reason}; dialling again", member=member, reason=rest)

    serve(lambda: service.run(told), lambda: service.drain(settings.drain), settings.drain)


@app.command()
def health(
    ready: Annotated[bool, typer.Option("--ready", help="Also ask whether the coordinator is connected.")] = False,
) -> None:
    """Ask the serving process whether it can do its work; exit code 5 where it cannot, or where none serves.

    It is asked through a socket in the home: no network and no key is needed. Meant for a container's health check.

    $ keyong --home ~/mill-a node health
    $ keyong --home ~/mill-a node health --ready --format json
    """
    show_health("node", ready=ready)


@app.command()
def status() -> None:
    """Show how this node stands: link, open jobs, uses, refusals, ledger, datasets, disk.

    While it serves, the serving process is asked; else what lies on disk is shown.

    $ keyong --home ~/mill-a node status
    """
    from federation.observability import NotServingError

    try:
        found = fetch("node", "/status")
    except NotServingError:
        found = _stored()
    if as_json():
        emit(found)
        return
    _show(found)


def _stored() -> dict[str, Any]:
    from enterprise_node.record import Record
    from enterprise_node.status import stored
    from enterprise_node.store import NodeStore
    from federation.holdings import Holdings, open_engine
    from keyong.cli._context import open_home

    home = open_home()
    engine = open_engine(home.path / "store.db")
    with home.open_ledger() as ledger:
        return stored(home, Record(ledger), NodeStore(engine), Holdings(engine)).model_dump(mode="json")


def _show(found: dict[str, Any]) -> None:
    serving, attached = found["serving"], found["attached"]
    link = translate("since {time}", time=found["attached_since"]) if attached else translate("not connected")
    facts(
        (
            ("member", found["member"]),
            ("serving", translate("since {time}", time=found["since"]) if serving else translate("no")),
            ("coordinator", f"{link} {found['detached_because']}".strip() if serving else ""),
            ("isolation", found["tier"]),
            ("version", found["version"]),
            ("ledger entries", found["ledger"]["entries"]),
            ("last checkpoint", found["ledger"]["checkpoint"]),
            ("open steps", found["ledger"]["open_steps"]),
            ("codes to approve", found.get("approvals_waiting") or ""),
            ("outputs to review", found.get("outputs_held") or ""),
            ("roster version", found["roster_version"]),
            ("roster expires", found["roster_expires"]),
            ("disk free", mebibytes(found["free_bytes"])),
            ("spool", mebibytes(found["spool_bytes"]) if serving else ""),
        )
    )
    if found["checks"]:
        line()
        show_checks(found["checks"])
    if found["jobs"]:
        line()
        table(
            ("job", "requester", "purpose", "dataset", "round", "stage", "state"),
            (
                (
                    bare(job["job"])[:8],
                    job["requester"],
                    job["purpose"],
                    job["dataset"],
                    job["round"],
                    job["stage"] or "-",
                    translate("running") if job["running"] else translate("waiting"),
                )
                for job in found["jobs"]
            ),
        )
    if found["uses"]:
        line()
        table(
            ("agreement", "with", "dataset", "uses reserved", "expires"),
            (
                (bare(one["agreement"])[:8], one["consumer"], one["dataset"], one["reserved"], one["expires"])
                for one in found["uses"]
            ),
        )
    if found["datasets"]:
        line()
        table(
            ("dataset", "rows", "version", "state"),
            (
                (
                    one["dataset"],
                    one["rows"],
                    one["data_version"],
                    translate("ok") if one["readable"] else translate("file missing"),
                )
                for one in found["datasets"]
            ),
        )
    if found["denials"]:
        line()
        table(
            ("refused", "what", "error code", "entry"),
            ((one["time"], word(DENIALS, one["kind"]), one["code"], one["index"]) for one in found["denials"]),
        )
