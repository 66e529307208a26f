"""What commands share that read a history: the trusted fingerprint, and how far the reading is."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from typing import Any

from keyong.cli._output import as_json, console
from keyong.text import translate


def fingerprint_of(text: str) -> str:
    """A root fingerprint as a person gave it; raises UsageError where it is none."""
    from federation.errors import UsageError

    fingerprint = text.strip().lower()
    if re.fullmatch(r"sha256:[0-9a-f]{64}", fingerprint) is None:
        raise UsageError(
            "{text} is not a root fingerprint",
            hint="it is sha256: and 64 hexadecimal digits, as `keyong whoami` shows it",
            text=text[:90],
        )
    return fingerprint


def progress_bar() -> Any:
    """A context that gives ``progress(done, total)`` on a terminal, None elsewhere."""
    if as_json() or not sys.stderr.isatty():
        return nullcontext(None)
    return _Bar()


class _Bar:
    """A progress bar that appears on a terminal and leaves nothing behind."""

    def __enter__(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console(stderr=True), transient=True)
        self._progress.start()
        task = self._progress.add_task(translate("verifying"), total=None)
        return lambda done, total: self._progress.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
