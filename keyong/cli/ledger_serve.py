"""``keyong ledger serve``: the ledger as pages, for owners and auditors."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli._output import as_json, emit_line, line, narrate
from keyong.cli._reading import PathArgument, RootOption, chosen_ledger


def serve(
    path: PathArgument = None,
    root: RootOption = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.", show_default=True)
    ] = "127.0.0.1:8741",
    host_name: Annotated[
        list[str] | None,
        typer.Option("--host-name", metavar="NAME", help="A name under which the pages may be asked for; repeat it."),
    ] = None,
) -> None:
    """Serve pages that show a ledger: search, agreements with what is used of them, the way of each invocation.

    Prints a login link that works once, within ten minutes; SIGUSR1 prints another. The pages only read. They listen on this
    machine alone unless told otherwise, and there in the clear. A reader's browser can verify the whole ledger by itself, from
    its tile files.

    $ keyong ledger serve
    $ keyong ledger serve mill-a.export --root sha256:9f86… --listen 127.0.0.1:0
    """
    from keyong.cli._packages import demand_packages

    demand_packages("fastapi", "jinja2", "uvicorn")
    from keyong.cli._context import quiet_logs
    from keyong.pages.serving import parse_address, serve_pages

    address = parse_address(listen, tuple(host_name or ()))
    place, fingerprint, home = chosen_ledger(path, root)
    quiet_logs()
    serve_pages(place, fingerprint, address, _tell, home)


def _tell(base: str, link: str) -> None:
    if as_json():
        emit_line({"event": "ready", "address": base, "link": link})
        return
    narrate("open this link; it works once, within ten minutes. Ctrl-C ends the pages.")
    line(link)
