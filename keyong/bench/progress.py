"""A bar on a terminal, silence elsewhere: nothing of it ever reaches stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keyong.cli._output import as_json, console
from keyong.text import translate

Advance = Callable[[int, int], None]
"""Told with (done, total) as a benchmark goes on."""


@contextmanager
def bar(sentence: str) -> Iterator[Advance]:
    """Show how far a benchmark is; ``sentence`` is one of the catalogue."""
    if as_json() or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as shown:
        task = shown.add_task(translate(sentence), total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
