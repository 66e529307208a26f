"""``keyong node``: one company's side."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from keyong.cli import node_dataset, node_runtime
from keyong.cli._commands import Commands
from keyong.cli._serving import report, serve

app = Commands("Run this company's node, its datasets and its runtime.")
app.add_typer(node_dataset.app, name="dataset")
app.add_typer(node_runtime.app, name="runtime")


@app.command("serve")
def serve_(
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that jobs run in.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="How much is logged on stderr.", metavar="LEVEL"),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="Form of the log: text or json; by default text on a terminal.", metavar="FORM"),
    ] = None,
) -> None:
    """Serve this company's datasets: dial the coordinator, and run what agreements permit in the sandbox.

    Only outbound connections are made; the link is made anew whenever it breaks. Ends on SIGTERM or Ctrl-C, with open
    steps settled. With --format json, each change of state is a line: ready, attached, detached.

    $ keyong --home ~/mill-a node serve
    """
    from keyong import runtime as runtimes
    from keyong.cli._context import open_home
    from keyong.cli._logging import configure
    from keyong.cli.settings import load

    settings = load(runtime=runtime, log_level=log_level, log_format=log_format)
    home = open_home()
    configure(settings.log_level, settings.log_format, component="node", member=home.identity.member)
    from enterprise_node.service import NodeService

    service = NodeService(home, runtimes.check(settings.runtime))
    member = home.identity.member

    def told(state: str) -> None:
        event, _, reason = state.partition(": ")
        if event == "ready":
            report("ready", "ready: node {member}; dialling the coordinator", member=member)
        elif event == "attached":
            report("attached", "attached: {member} is connected to the coordinator", member=member)
        else:
            report("detached", "detached: {reason}; dialling again", member=member, reason=reason)

    serve(lambda: service.run(told))
