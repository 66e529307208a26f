"""What reaches the terminal: data on stdout, narration on stderr; widths by what a terminal shows."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from keyong.cli import _state
from keyong.text import translate, translate_data

if TYPE_CHECKING:
    from rich.console import Console


def as_json() -> bool:
    """Whether data is to be JSON."""
    return _state.get().format == "json"


def narrate(sentence: str, /, **places: object) -> None:
    """Tell the person something on stderr, in their language; silent with ``--format json``."""
    if not as_json():
        _tell(translate(sentence, **places))


def say(sentence: str, /, **places: object) -> None:
    """Print a sentence as data, in the person's language."""
    print(translate(sentence, **places), flush=True)


def line(text: str = "") -> None:
    """Print text that needs no translation."""
    print(text, flush=True)


def emit(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, ensure_ascii=False, indent=1), flush=True)


def emit_line(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def print_error(code: str, message: str, hint: str, exit_code: int, *, english: tuple[str, str]) -> None:
    """Print an error to stderr: ``error:`` and ``hint:`` lines, or one JSON object."""
    if as_json():
        error = {"code": code, "message": english[0], "hint": english[1], "exit": exit_code}
        if request := _state.get().request:
            error["request"] = request
        _tell(json.dumps({"error": error}, ensure_ascii=False))
        return
    _tell(translate("error: {message}", message=_clean_lines(message)))
    if hint:
        _tell(translate("hint: {hint}", hint=_clean_lines(hint)))


def print_request() -> None:
    """Name the request on stderr, under which an operator finds it in the logs of the coordinator and of the nodes."""
    if (request := _state.get().request) and not as_json():
        _tell(translate("request: {request}", request=request))


def _tell(text: str) -> None:
    # Whoever listened may have gone, or the disk be full: what is done does not fail for it, nor its exit code.
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console; it honours NO_COLOR and knows a terminal when it sees one."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not stderr)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; headings are sentences of the catalogue. Columns are separated by two spaces."""
    cells = [[translate_data(heading) for heading in headings], *([_clean(cell) for cell in row] for row in rows)]
    widths = [max(width(row[place]) for row in cells) for place in range(len(headings))]
    for number, row in enumerate(cells):
        text = "  ".join(cell + " " * (size - width(cell)) for cell, size in zip(row, widths, strict=True)).rstrip()
        print(_bold(text) if number == 0 else text)
    sys.stdout.flush()
    if len(cells) == 1:
        narrate("there is nothing to list")


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line; names are sentences of the catalogue, empty values are left out."""
    shown = [(translate_data(name), _clean(value)) for name, value in pairs if value not in ("", None)]
    if not shown:
        return
    size = max(width(name) for name, _ in shown)
    for name, value in shown:
        print(f"{name}{' ' * (size - width(name))}  {value}")
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str, /) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal that leaves nothing behind; told what is done and what there is in all."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    hidden = as_json() or not sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), transient=True, disable=hidden) as shown:
        task = shown.add_task(translate_data(what), total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def width(text: str) -> int:
    """Cells a text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _clean(value: object) -> str:
    """A value on one line, with whatever could steer a terminal taken out: much of it was written by others."""
    text = str(value).replace("\n", " ")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf") else "\N{REPLACEMENT CHARACTER}" for c in text)


clean = _clean


def _clean_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(_clean(row.replace("\t", "    ")) for row in text.split("\n"))


def _bold(text: str) -> str:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\x1b[1m{text}\x1b[0m"
    return text


def ask(sentence: str, /, **places: object) -> bool:
    """Ask a yes-or-no question on the terminal; the default is no."""
    print(f"{translate(sentence, **places)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes", "是", "好")


def confirmed(sentence: str, /, *, yes: bool, **places: object) -> None:
    """Return if a person agrees, or said ``--yes`` before; ``--format json`` is no assent.

    Raises:
        UsageError: nobody is there to be asked.
        click.Abort: the person does not agree.
    """
    import click

    from federation.errors import UsageError

    if yes:
        return
    if not interactive():
        raise UsageError(
            "this is asked before it is done, and without a terminal nobody is there to be asked",
            hint="say --yes if it is meant; nothing was signed",
        )
    if not ask(sentence, **places):
        raise click.Abort()


def interactive() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stderr.isatty()
