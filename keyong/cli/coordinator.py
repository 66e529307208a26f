"""``keyong coordinator``: the meeting point."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._jobs import bare
from keyong.cli._output import as_json, clean, emit, facts, line, table
from keyong.cli._serving import LogFormat, LogLevel, Observe, ObserveAnywhere, report, serve
from keyong.cli._standing import fetch, mebibytes, show_checks, show_health
from keyong.cli._tiers import tell_what_is_missing
from keyong.cli._words import word
from keyong.text import STATUSES, translate

app = Commands("Run the coordinator, or ask how it stands.")


@app.command("serve")
def serve_(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where to listen; by default the address in the roster. Port 0 takes a free one."
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="The runtime that jobs' server parts run in.")
    ] = None,
    observe: Observe = None,
    observe_anywhere: ObserveAnywhere = None,
    drain: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="How long exchanges that are being made may take after SIGTERM; 25 by default."
        ),
    ] = None,
    dataspace: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve the gateway of the Dataspace Protocol there; off by default."),
    ] = None,
    dataspace_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where members reach it, as https://HOST:PORT; by default the port bound."),
    ] = None,
    development: Annotated[
        bool,
        typer.Option("--development", help="Isolate nothing (T0): for development, with plans that accept it alone."),
    ] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Serve the consortium: take links over mutual TLS, carry mail, run jobs' server parts in the sandbox.

    It can stop a job; it cannot change one. On SIGTERM or Ctrl-C exchanges that are being made may end, then jobs are
    left as interrupted. With --format json it prints one line, {"event": "ready", "port": …}, once it listens.

    $ keyong --home ~/institute coordinator serve
    $ keyong --home ~/institute coordinator serve --listen 0.0.0.0:7443
    $ keyong --home ~/institute coordinator serve --dataspace 127.0.0.1:7444
    """
    from federation.statements import UnknownMemberError
    from keyong import runtime as runtimes
    from keyong.cli._context import open_home
    from keyong.cli._logging import configure
    from keyong.cli.settings import load

    settings = load(
        listen=listen,
        runtime=runtime,
        observe=observe,
        observe_anywhere=observe_anywhere,
        drain=drain,
        dataspace=dataspace,
        dataspace_url=dataspace_url,
        log_level=log_level,
        log_format=log_format,
    )
    home = open_home()
    configure(settings.log_level, settings.log_format, component="coordinator", member=home.identity.member)
    me = home.history.latest.member(home.identity.member)
    if "coordinator" not in me.roles:
        raise UnknownMemberError(
            "{member} is not enrolled as {role}",
            member=me.id,
            role="coordinator",
            hint="see `keyong consortium roster`",
        )
    from coordinator.service import CoordinatorService

    address = settings.listen or me.address or home.identity.address
    if development:
        tell_what_is_missing()
    service = CoordinatorService(
        home,
        runtimes.check(settings.runtime),
        address,
        room=settings.room(),
        observe=settings.observed(),
        development=development,
        dataspace=settings.gateway(),
    )
    host = address.rpartition(":")[0]

    def told(state: str) -> None:
        event, port, *observed = state.split(" ")
        if event == "ready":
            more = {"observe": int(observed[0])} if observed else {}
            report("ready", "ready: {member} listens on {host}:{port}", member=me.id, host=host, port=int(port), **more)
        elif event == "dataspace":
            report("dataspace", "the Dataspace Protocol is served at {url}", url=port)

    serve(lambda: service.run(told), lambda: service.drain(settings.drain), settings.drain)


@app.command()
def health() -> None:
    """Ask the serving process whether it can do its work; exit code 5 where it cannot, or where none serves.

    It is asked through a socket in the home: no network and no key is needed. Meant for a container's health check.

    $ keyong --home ~/institute coordinator health
    """
    show_health("coordinator", ready=True)


@app.command()
def status() -> None:
    """Show how the coordinator stands: connected nodes, jobs that run and wait.

    At the coordinator itself the serving process is asked, and says more: since when nodes are connected, whose jobs
    wait at which place, what was interrupted, ledger and disk. Any other member asks over its link.

    $ keyong coordinator status --format json
    """
    from federation.observability import NotServingError
    from keyong.cli._context import open_client

    try:
        whole = fetch("coordinator", "/status")
    except NotServingError:
        whole = None
    if whole is not None:
        emit(whole) if as_json() else _show(whole)
        return
    with open_client() as client:
        found = client.status()
    if as_json():
        emit(found.model_dump(mode="json"))
        return
    facts(
        (
            ("consortium", found.name),
            ("roster version", found.roster_version),
            ("connected nodes", ", ".join(found.online) or "-"),
            ("jobs running", found.jobs_running),
        )
    )


def _show(found: dict[str, Any]) -> None:
    facts(
        (
            ("consortium", found["name"]),
            ("serving", translate("since {time}", time=found["since"])),
            ("version", found["version"]),
            ("connected nodes", ", ".join(found["online"]) or "-"),
            ("links", found["links"]),
            ("jobs running", found["jobs_running"]),
            ("jobs waiting", found["jobs_waiting"]),
            ("ledger entries", found["ledger_entries"]),
            ("last checkpoint", found["checkpoint"]),
            ("roster version", found["roster_version"]),
            ("roster expires", found["roster_expires"]),
            ("disk free", mebibytes(found["free_bytes"])),
            ("spool", mebibytes(found["spool_bytes"])),
        )
    )
    line()
    show_checks(found["checks"])
    if found["nodes"]:
        line()
        table(
            ("node", "connected since", "software"),
            ((one["member"], one["since"], clean(one["software"])) for one in found["nodes"]),
        )
    if found["jobs"]:
        line()
        table(
            ("job", "requester", "purpose", "status", "place", "submitted at"),
            (
                (
                    bare(one["job"])[:8],
                    one["requester"],
                    one["purpose"],
                    word(STATUSES, one["status"]),
                    one["place"] or "-",
                    one["submitted"],
                )
                for one in found["jobs"]
            ),
        )
