"""``keyong node runtime``: the tree that jobs may import from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, console, emit, facts, narrate
from keyong.text import translate

app = Commands("Build and show the runtime: the read-only tree that job code may import from.")
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Which runtime; by default the one in the settings.")
]


@app.command()
def build(name: NameOption = None) -> None:
    """Build the runtime from the packages installed here; the old one is replaced once the new one is whole.

    Two machines with the same versions get the same digest. A plan names it, and every node checks it.

    $ keyong node runtime build
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from keyong import runtime
    from keyong.cli.settings import load

    wanted = load(runtime=name).runtime
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        console=console(stderr=True),
        transient=True,
        disable=as_json(),
    ) as progress:
        task = progress.add_task(translate("building the runtime"), total=None)
        runtime.build(wanted, progress=lambda done, total: progress.update(task, completed=done, total=total))
    narrate("the runtime {name} is built", name=wanted)
    _show(wanted)


@app.command()
def show(name: NameOption = None) -> None:
    """Show the runtime's digest, its interpreter and the packages in it.

    $ keyong node runtime show --format json
    """
    from keyong.cli.settings import load

    _show(load(runtime=name).runtime)


def _show(name: str) -> None:
    from keyong import runtime

    found = runtime.load(name)
    manifest = json.loads((found.path / "manifest.json").read_text(encoding="utf-8"))
    if as_json():
        emit(
            {
                "name": name,
                "digest": found.digest,
                "path": str(found.path),
                "python": str(found.python),
                "packages": manifest["packages"],
            }
        )
        return
    facts((("runtime", name), ("digest", found.digest), ("folder", found.path), ("interpreter", found.python)))
    facts((package, version) for package, version in sorted(manifest["packages"].items()))
