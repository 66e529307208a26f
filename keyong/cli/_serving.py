"""Running a service until somebody ends it, gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

import typer

from keyong.cli._output import as_json, emit_line, narrate, say
from keyong.cli._supervisor import keep_watched, notify

Work = Callable[[], Coroutine[Any, Any, None]]

# What every service takes.
Observe = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Serve metrics and health over HTTP there; off by default."),
]
ObserveAnywhere = Annotated[
    bool | None,
    typer.Option("--observe-anywhere", help="Allow --observe an address that other machines reach: there is no login."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option(help="How much is logged on stderr.", metavar="LEVEL"),
]
LogFormat = Annotated[
    Literal["text", "json"] | None,
    typer.Option(help="Form of the log: text or json; by default text on a terminal.", metavar="FORM"),
]


def serve(work: Work, drain: Work, seconds: float) -> None:
    """Run a service until SIGTERM or SIGINT; its own failures pass through.

    Args:
        drain: lets what runs come to its end; awaited after the first signal. A second one cuts it short.
        seconds: how long it may take; for the person at the terminal.
    """
    from federation.wire.loop import new_event_loop
    from keyong.cli._allocator import share_arenas
    from keyong.cli._logging import captured

    share_arenas()
    with captured(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_until_told(work, drain, seconds))


async def _until_told(work: Work, drain: Work, seconds: float) -> None:
    from keyong.cli._logging import capture_loop

    capture_loop()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work())
    watched = asyncio.create_task(keep_watched())
    draining: list[asyncio.Task[None]] = []

    async def end() -> None:
        try:
            await drain()
        finally:
            task.cancel()

    def told() -> None:
        if not draining:
            narrate(
                "ending: what runs has {seconds} s to come to its end; a second signal ends it now", seconds=seconds
            )
            notify("STOPPING=1")
            draining.append(asyncio.create_task(end()))
        else:
            draining[0].cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
            return
        if not draining:
            raise asyncio.CancelledError
    finally:
        await _over(watched, *draining)


async def _over(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def report(event: str, sentence: str, /, **data: object) -> None:
    """Print a change of state, one JSON object a line or a sentence, and tell the supervisor.

    A service goes on where nobody reads its stdout any more, or the disk it goes to is full. What one that is ready has
    loaded it keeps: Python looks through it no more. Each look would hold everything for up to a tenth of a second, also the
    word of an owner who ends a job.
    """
    if event == "ready":
        gc.collect()
        gc.freeze()
    notify(*(("READY=1",) if event == "ready" else ()), f"STATUS={event}")
    with contextlib.suppress(OSError, ValueError):
        if as_json():
            emit_line({"event": event, **data})
        else:
            say(sentence, **data)
