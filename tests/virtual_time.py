"""An event loop whose time passes only while everybody waits for it: a machine that stalls makes nothing late."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class VirtualTime(asyncio.SelectorEventLoop):
    """Goes from one timer to the next at once. Its time stands still while anything is ready or a thread is at work.

    For what is in this process alone: it knows nothing of who answers through a socket.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._threads = 0
        self._pool = ThreadPoolExecutor()
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Seconds since it began."""
        return self._now

    def jump(self, seconds: float) -> bool:
        """Let time pass, where nobody is at work; returns whether it did."""
        if self._threads:
            return False
        self._now += seconds
        return True

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """As everywhere; time waits for it."""
        self._threads += 1
        work = (executor or self._pool).submit(func, *args)
        answer: asyncio.Future[Any] = asyncio.wrap_future(work, loop=self)
        work.add_done_callback(self._over)  # after the answer's own, or time would pass before it is heard
        return answer

    def _over(self, _: object) -> None:
        def less() -> None:
            self._threads -= 1

        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.call_soon_threadsafe(less)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for its threads, in no time."""
        self._pool.shutdown()


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTime) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and (timeout <= 0 or self._loop.jump(timeout))):
            return ready
        return super().select(None)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in such a loop, for what it asserts about seconds."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            runner.run(test(*args, **named))

    return run
