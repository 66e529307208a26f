"""Message bodies: held in memory while small, in an unlinked file once large, so that a model costs page cache, not heap."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from federation.errors import VerificationError

CHUNK_BYTES = 1024 * 1024
"""Bytes a frame carries: large enough to amortise a frame, small enough that exchanges interleave."""
MEMORY_BYTES = 4 * 1024 * 1024
"""Bodies up to this size stay in memory."""

Buffer = bytes | bytearray | memoryview


class BodyError(VerificationError):
    """A body is longer or shorter than its head announced, or than this party takes."""

    code = "body"


class Body:
    """A received body: exactly ``size`` bytes, written once in order, then read as one view."""

    def __init__(self, size: int, spool: Path | None) -> None:
        self.size = size
        self._written = 0
        self._map: mmap.mmap | None = None
        if size > MEMORY_BYTES and spool is not None:
            with tempfile.TemporaryFile(dir=spool) as file:
                file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
            self._view = memoryview(self._map)
        else:
            self._view = memoryview(bytearray(size))

    def write(self, data: bytes) -> None:
        """Append a chunk; more than was announced is refused."""
        end = self._written + len(data)
        if end > self.size:
            raise BodyError("a message body is longer than its head announced")
        self._view[self._written : end] = data
        self._written = end

    def writable(self) -> memoryview:
        """The whole buffer, for a reader that receives straight into it and says so with :meth:`filled`."""
        return self._view

    def filled(self, count: int) -> None:
        """``count`` further bytes were received in place."""
        self._written += count

    @property
    def complete(self) -> bool:
        """Whether all announced bytes have arrived."""
        return self._written == self.size

    @property
    def view(self) -> memoryview:
        """The bytes, read-only. Valid as long as this object or a slice of the view lives."""
        if not self.complete:
            raise BodyError("a message body is shorter than its head announced")
        return self._view.toreadonly()


def chunks(buffers: Sequence[Buffer]) -> Iterator[bytes]:
    """Cut buffers into pieces of at most :data:`CHUNK_BYTES`, in order."""
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


def total_bytes(buffers: Sequence[Buffer]) -> int:
    """Length of all buffers together, in bytes."""
    return sum(memoryview(buffer).nbytes for buffer in buffers)
