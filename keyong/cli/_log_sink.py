"""Where a service's log goes: to stderr, and never in the way of what is logged about.

Whoever reads stderr may have gone, its disk may be full, or it may have stopped reading. None of that may fail a step or
hold the event loop up: what cannot be written is lost, and how many events were is said by the next that can.
"""

from __future__ import annotations

import io
import os
import select
import threading
from typing import TextIO

PATIENCE_SECONDS = 0.1
"""A reader that is behind has so long; none once an event was lost, until one can be written again."""
_PIECE = select.PIPE_BUF
"""A pipe that poll(2) calls writable takes so much without waiting."""


class LogSink:
    """Writes lines to a stream; has every method that structlog calls one of its loggers by.

    Args:
        stream: usually stderr; None where the process has none (pythonw, a closed descriptor).

    Attributes:
        lost: events in a row that could not be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.lost = 0
        self._torn = False
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, text: str) -> None:
        """Write one event; returns whatever happens."""
        line = text + "\n"
        with self._lock:
            try:
                self._write(line)
                self.lost = 0
            except (OSError, ValueError):  # ValueError: the stream was closed
                self.lost += 1

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg

    def _write(self, line: str) -> None:
        if self._stream is None:
            raise OSError("no stream")
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:  # a stream in memory
            self._stream.write(line)
            return
        data = memoryview((("\n" if self._torn else "") + line).encode("utf-8", "backslashreplace"))
        while data:
            _wait_for_room(descriptor, 0.0 if self.lost else PATIENCE_SECONDS)
            written = os.write(descriptor, data[:_PIECE])
            data = data[written:]
            self._torn = bool(data)


def _wait_for_room(descriptor: int, seconds: float) -> None:
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    if not room.poll(seconds * 1000):
        raise BlockingIOError("nobody reads")
