"""``keyong coordinator``: the meeting point."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts
from keyong.cli._serving import report, serve

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
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="How much is logged on stderr.", metavar="LEVEL"),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="Form of the log: text or json; by default text on a terminal.", metavar="FORM"),
    ] = None,
) -> None:
    """Serve the consortium: take links over mutual TLS, carry mail, run jobs' server parts in the sandbox.

    It can stop a job; it cannot change one. Ends on SIGTERM or Ctrl-C. With --format json it prints one line,
    {"event": "ready", "port": …}, once it listens.

    $ keyong --home ~/institute coordinator serve
    $ keyong --home ~/institute coordinator serve --listen 0.0.0.0:7443
    """
    from federation.statements import UnknownMemberError
    from keyong import runtime as runtimes
    from keyong.cli._context import open_home
    from keyong.cli._logging import configure
    from keyong.cli.settings import load

    settings = load(listen=listen, runtime=runtime, log_level=log_level, log_format=log_format)
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
    service = CoordinatorService(home, runtimes.check(settings.runtime), address)
    host = address.rpartition(":")[0]

    def told(state: str) -> None:
        event, _, port = state.partition(" ")
        if event == "ready":
            report("ready", "ready: {member} listens on {host}:{port}", member=me.id, host=host, port=int(port))

    async def drain() -> None:
        return

    serve(lambda: service.run(told), drain, 0)


@app.command()
def status() -> None:
    """Ask the coordinator which nodes are connected and how many jobs run.

    $ keyong coordinator status --format json
    """
    from keyong.cli._context import open_client

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
