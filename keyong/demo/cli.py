"""``keyong demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where its state is kept; made anew.")] = Path(
        ".demo"
    ),
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the simulated records.")] = 1,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train for so many rounds, those who are compared too, instead of what the app says.",
        ),
    ] = None,
) -> None:
    """Play the whole story on this machine: found, join, agree, train, compare, refuse, verify. Needs the source tree.

    $ keyong demo
    $ keyong --lang zh demo --dir /tmp/keyong-demo
    """
    from federation.errors import UsageError
    from keyong.demo.leash import leash
    from keyong.demo.story import APP, Story

    if not APP.is_dir():
        raise UsageError(
            "the demo plays with {app}, which is not here", hint="run it in the project's folder", app=str(APP)
        )
    with leash():
        Story(folder, seed, rounds).play()
