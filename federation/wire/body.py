"""Message bodies: held in memory while small, in an unlinked file once large, so that a model costs page cache, not
heap."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from federation.errors import VerificationError
from federation.pages import LEAST_BYTES, PAGES
from federation.wire.memory_file import MemoryFile

CHUNK_BYTES = 1024 * 1024
"""Bytes a frame carries: large enough to amortise a frame, small enough that exchanges interleave."""
JOINED_BYTES = 512 * 1024
"""Buffers of a body are joined up to this size: a frame of its own takes longer than a copy."""
MEMORY_BYTES = 4 * 1024 * 1024
"""Bodies up to this size stay in memory."""
_SHARE = 4
"""Bodies go into memory files where all that arrive take at most this part of the memory that is free."""
SPOOLLESS_BYTES = 64 * 1024 * 1024
"""Longest body of a party that has no folder to spool to."""
_KEPT_BYTES = 128 * 1024 * 1024
"""Longest body that memory which is kept takes the place of a file for: several of them arrive at a time."""


Buffer = bytes | bytearray | memoryview


class BodyError(VerificationError):
    """A body is longer or shorter than its head announced, or than this party takes or has room for."""

    code = "body"


class Body:
    """A received body: exactly ``size`` bytes, written once in order, then read as one view.

    What is announced costs nothing; only bytes that arrived take room. They are written to the file, not through a map
    of
    it: a full disk is then an error of this body, where a page of a map that finds no room ends the whole process
    (SIGBUS).

    Args:
        hashed: take its digest as it comes.
        lent: a session is to have it, and others that arrive for sessions take so many bytes: a large one goes into a memory
            file then, which the session is given as it is, in place of the copy in memory that it would need beside the file.
    """

    def __init__(self, size: int, spool: Path | None, *, hashed: bool = False, lent: int | None = None) -> None:
        if spool is None and size > SPOOLLESS_BYTES:
            raise _no_room(size)
        self.size = size
        self._written = 0
        self._gone = False
        self._lock = threading.RLock()
        self._file: BinaryIO | None = None
        self._memory = bytearray()
        self._view: memoryview | None = None
        self._pages: NDArray[np.uint8] | None = None
        self._hash = hashlib.sha256() if hashed and size > MEMORY_BYTES else None
        lends = lent is not None and size > MEMORY_BYTES and lent + size <= free_memory() // _SHARE
        self._lent = MemoryFile(size) if lends else None
        if size > MEMORY_BYTES and spool is not None and self._lent is None:
            try:
                self._file = tempfile.TemporaryFile(dir=spool, buffering=0)  # noqa: SIM115  # closed when it is mapped
            except OSError:
                raise _no_room(size) from None

    @property
    def large(self) -> bool:
        """Whether a chunk of it takes long enough to be written, and hashed, in a thread."""
        return self.size > MEMORY_BYTES

    def in_memory(self, others: int) -> None:
        """Take a large body that is about to arrive into memory that is kept for such, where there is some.

        For one that is added and let go at once: its pages are there already, where those of a file are made for it.

        Args:
            others: so many bodies of its size may lie there beside it, in this process.
        """
        with self._lock:
            if self._file is None or self._written or self._gone or not LEAST_BYTES <= self.size <= _KEPT_BYTES:
                return
            if (
                self.size <= free_memory() // _SHARE
                and (pages := PAGES.spare(self.size, (others + 1) * self.size)) is not None
            ):
                self._pages = pages
                self._file.close()
                self._file = None

    def write(self, data: Buffer) -> None:
        """Append a chunk, one at a time, from any thread; more than was announced, or than the disk takes, is refused.

        What comes after :meth:`discard` is let go.
        """
        with self._lock:
            if self._gone:
                return
            end = self._written + len(data)
            if end > self.size:
                raise BodyError("a message body is longer than its head announced")
            if self._pages is not None:
                np.copyto(self._pages[self._written : end], np.frombuffer(data, dtype=np.uint8))
            elif self._lent is None and self._file is None:
                self._memory += data
            else:
                self._spool(memoryview(data))
            if self._hash is not None:
                self._hash.update(data)  # while the chunk lies in the core's cache
            self._written = end

    def _spool(self, data: memoryview) -> None:
        try:
            if self._lent is not None:
                self._lent.write(data, self._written)
                return
            assert self._file is not None
            while data:
                data = data[os.write(self._file.fileno(), data) :]
        except OSError:
            self.discard()
            raise _no_room(self.size) from None

    @property
    def complete(self) -> bool:
        """Whether all announced bytes have arrived."""
        return self._written == self.size

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of a complete body; empty for one up to :data:`MEMORY_BYTES`, or not hashed."""
        return "sha256:" + self._hash.hexdigest() if self._hash is not None and self.complete else ""

    @property
    def view(self) -> memoryview:
        """The bytes, read-only. Valid as long as this object or a slice of the view lives."""
        if not self.complete:
            raise BodyError("a message body is shorter than its head announced")
        if self._view is None:
            if self._pages is not None:
                self._view, self._pages = self._pages.data.toreadonly(), None
            elif self._lent is not None:
                self._view = self._lent.sealed()
            elif self._file is not None:
                with self._file as file:
                    self._view = memoryview(mmap.mmap(file.fileno(), self.size, prot=mmap.PROT_READ))
                self._file = None
            else:
                self._view = memoryview(self._memory).toreadonly()
        return self._view

    def discard(self) -> None:
        """Give back the room of a body nobody will read; without complaint where it was given back.

        Waits for a chunk that is being written: its descriptor may be another file's as soon as it is closed.
        """
        with self._lock:
            self._gone = True
            self._memory = bytearray()
            self._pages = None
            if self._lent is not None:
                self._lent.close()
            if self._file is not None:
                self._file.close()


def free_memory() -> int:
    """Bytes that may be had on this machine without taking them from anyone; 0 where the kernel does not say."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open("rb") as rows:
        for row in rows:
            if row.startswith(b"MemAvailable:"):
                return int(row.split()[1]) * 1024
    return 0


def _no_room(size: int) -> BodyError:
    return BodyError(
        "there is no room here for a message body of {size} bytes",
        hint="free space on the disk that holds the home folder",
        code="spool",
        size=size,
    )


def chunks(buffers: Sequence[Buffer]) -> Iterator[memoryview]:
    """Cut and join buffers into pieces of at most :data:`CHUNK_BYTES`, in order; what is small goes together."""
    small: list[memoryview] = []
    size = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        if small and size + len(view) > JOINED_BYTES:
            yield _joined(small)
            small, size = [], 0
        if len(view) > JOINED_BYTES:
            for start in range(0, len(view), CHUNK_BYTES):
                yield view[start : start + CHUNK_BYTES]
        elif view:
            small.append(view)
            size += len(view)
    if small:
        yield _joined(small)


def _joined(views: Sequence[memoryview]) -> memoryview:
    return views[0] if len(views) == 1 else memoryview(b"".join(views))


def total_bytes(buffers: Sequence[Buffer]) -> int:
    """Length of all buffers together, in bytes."""
    return sum(memoryview(buffer).nbytes for buffer in buffers)
