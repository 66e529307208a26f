"""Logs on stderr, one event a line, for a person or as JSON; never a row value, never a key.

The text of an exception may hold anything, a row's value too. So no exception is ever written with its text: its type
and the places it passed are enough to find it. The same holds for whatever a library or Python itself would print.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, Literal

import structlog

from keyong.cli._log_sink import LogSink

LEADING = ("time", "level", "event", "component", "member", "request")
"""What stands first in an event, where it has it."""
_PLACES = 12
_LIBRARY = "keyong.library"

Event = MutableMapping[str, Any]


def configure(level: str, form: Literal["", "text", "json"], *, component: str = "", member: str = "") -> None:
    """Send events of ``level`` and above to stderr.

    Args:
        form: empty for text on a terminal and JSON elsewhere.
        component: what this process serves as, and ``member`` for whom; stands in every event.
    """
    known = {"component": component, "member": member}
    sink = LogSink(sys.stderr)

    def placed(_logger: object, _method: str, event: Event) -> Event:
        whole = {**{key: value for key, value in known.items() if value}, **event}
        if sink.lost:
            whole["lost"] = sink.lost
        return {**{key: whole[key] for key in LEADING if key in whole}, **whole}

    terminal = sys.stderr is not None and sys.stderr.isatty()
    colors = terminal and not os.environ.get("NO_COLOR")
    as_text = form == "text" or (not form and terminal)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _without_texts,
            placed,
            structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time")
            if as_text
            else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )


@contextlib.contextmanager
def captured() -> Iterator[None]:
    """For the block, log what libraries and Python itself would write to stderr, without its text."""
    root = logging.getLogger()
    before = root.handlers[:], sys.unraisablehook, threading.excepthook
    root.handlers[:] = [_Forwarding(logging.WARNING)]
    logging.captureWarnings(True)
    sys.unraisablehook = lambda one: _tell("unraisable", one.exc_type, one.exc_traceback)
    threading.excepthook = lambda one: _tell("thread", one.exc_type, one.exc_traceback)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:], sys.unraisablehook, threading.excepthook = before


def capture_loop() -> None:
    """The same for the event loop that runs now: tasks whose exception nobody took."""

    def forward(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        _tell("task", type(error) if error else None, error.__traceback__ if error else None)

    asyncio.get_running_loop().set_exception_handler(forward)


def places(trace: TracebackType | None) -> list[str]:
    """Where an exception passed, innermost last, as ``module:line``."""
    found = []
    while trace is not None:
        found.append(f"{trace.tb_frame.f_globals.get('__name__', '')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[-_PLACES:]


def _tell(source: str, kind: type[BaseException] | None, trace: TracebackType | None) -> None:
    structlog.get_logger(_LIBRARY).error(
        "unhandled", source=source, error=kind.__name__ if kind else "", trace=places(trace)
    )


def _without_texts(_logger: object, _method: str, event: Event) -> Event:
    """Put an exception's type and places where its text would stand."""
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event.setdefault("error", type(error).__name__)
        event["trace"] = places(error.__traceback__)
    return event


class _Forwarding(logging.Handler):
    """Turns a library's record into an event that says who wrote it and where in its code, and not what."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger(_LIBRARY).warning(
            "library",
            source=record.name,
            at=f"{record.module}:{record.lineno}",
            **({"error": type(error).__name__, "trace": places(error.__traceback__)} if error else {}),
        )
