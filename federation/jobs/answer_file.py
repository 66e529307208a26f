"""The file that was lent for an answer, filled while the app makes its arrays: no copy of a model stands beside it.

An app that turns its numbers into an `ArrayRecord` gets a copy of them that nobody changes. Here that copy is made in the
file that the answer has to be in anyway, at the place that it has in an answer of all arrays made so far, in order. Where
the app answers with something else, what it made stays as it is and the answer goes another way.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class AnswerFile:
    """Takes copies of arrays from any thread of this process.

    Args:
        descriptor: of the file, closed with :meth:`close`.
        least: bytes from which an array is put here; of a shorter one only the place is kept.
    """

    def __init__(self, descriptor: int, least: int) -> None:
        self.descriptor = descriptor
        self._least = least
        self.size = os.fstat(descriptor).st_size
        self._process = os.getpid()
        self._lock = Lock()
        self._end = 0
        self._stored: list[tuple[int, int]] = []
        self._map: mmap.mmap | None = None
        self._address = 0

    def store(self, numbers: Array) -> Array | None:
        """A read-only copy of numbers, in C order; None where the file has no room for it, or another process's it is."""
        with self._lock:
            start, self._end = self._end, self._end + numbers.nbytes
            if numbers.nbytes < self._least or self._end > self.size or os.getpid() != self._process:
                return None
            self._write(np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data, start)
            self._stored.append((start, numbers.nbytes))
            if self._map is None:
                # Private, so that the file can be sealed while it is mapped.
                self._map = mmap.mmap(self.descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ)
                self._address = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
            copy: Array = np.frombuffer(self._map, dtype=numbers.dtype, count=numbers.size, offset=start)
            return copy.reshape(numbers.shape)

    def take(self, buffers: Sequence[memoryview]) -> bool:
        """Make these buffers, one after another, what the file begins with, and tell whether that could be done.

        Not where something that was stored would have to be moved, or written over: the app may hold it yet.
        """
        with self._lock:
            missing: list[tuple[memoryview, int]] = []
            at = 0
            for buffer in buffers:
                end = at + buffer.nbytes
                if self._lies_here(buffer):
                    if self._offset(buffer) != at:
                        return False
                elif any(start < end and at < start + size for start, size in self._stored):
                    return False
                else:
                    missing.append((buffer, at))
                at = end
            for buffer, place in missing:
                self._write(buffer, place)
            return True

    def close(self) -> None:
        """Let go of the file; copies in it stay."""
        os.close(self.descriptor)

    def _lies_here(self, buffer: memoryview) -> bool:
        return bool(buffer.nbytes and self._stored) and 0 <= self._offset(buffer) < self.size

    def _offset(self, buffer: memoryview) -> int:
        return int(np.frombuffer(buffer, dtype=np.uint8).ctypes.data) - self._address

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            done = os.pwrite(self.descriptor, data, at)
            data, at = data[done:], at + done
