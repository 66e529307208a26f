"""Work in threads that a cancelled caller cannot leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def until_done(task: asyncio.Future[Any]) -> None:
    """Wait for a task whatever happens to the waiter; what became of the task is for the caller to look at."""
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            continue


async def in_thread(work: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
    """Run blocking work in a thread; a caller that is cancelled waits for its end and undoes it before it goes.

    A thread cannot be cancelled: one that nobody waits for would go on to make a snapshot, or a sandbox, that nobody
    holds.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await until_done(task)
        if not task.cancelled() and task.exception() is None:
            undoing = asyncio.ensure_future(asyncio.to_thread(undo, task.result()))
            await until_done(undoing)
        raise
