"""Running a service until somebody ends it, gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from keyong.cli._output import as_json, emit_line, narrate, say


def serve(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service until SIGTERM or SIGINT; its own failures pass through."""
    from keyong.cli._logging import captured

    with captured():
        asyncio.run(_until_told(work))


async def _until_told(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    from keyong.cli._logging import capture_loop

    capture_loop()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work())
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            return
        told.set()
        narrate("ending: open steps are being settled")
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return
    if not told.is_set():
        raise asyncio.CancelledError


def report(event: str, sentence: str, /, **data: object) -> None:
    """Print a change of state: one JSON object a line, or a sentence."""
    if as_json():
        emit_line({"event": event, **data})
    else:
        say(sentence, **data)
