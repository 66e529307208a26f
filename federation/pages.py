"""Memory for vectors as large as a model, whose pages serve the next one.

A page that is new costs the kernel a fault and a zeroing: some 70 ms of processor time for each 100 MB, four times what
filling it takes. A round takes and gives back such memory several times over, always in the same sizes. So what nobody
refers to any more stays here for the next who asks for as much, and goes back to the machine when no large body has
crossed this process's links for a while (see ``federation.wire.heap``).

What lay in it before is still there when it is taken: who takes it writes all of it before anything of it is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_BYTES = 16 * 1024 * 1024
"""Smaller ones are the allocator's."""
MOST_BYTES = 512 * 1024 * 1024
"""What one process holds here for later, at most."""


class KeptPages:
    """Gives memory, and takes it back by itself when the last view of it is gone; from any thread.

    Args:
        most: bytes that are kept together; what comes back beyond them goes to the machine.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._free: deque[mmap.mmap] = deque()  # its appends and pops need no lock, which a finaliser could not take
        self._spared: dict[int, int] = {}

    def take(self, size: int) -> NDArray[np.uint8]:
        """Bytes of any content.

        Raises:
            MemoryError: the machine does not give them.
        """
        if size < LEAST_BYTES:
            return np.empty(size, dtype=np.uint8)
        return self._given(self._found(size) or _mapped(size))

    def spare(self, size: int, most: int) -> NDArray[np.uint8] | None:
        """The same for who can do without: None where more than ``most`` would be in use so, or the machine has none."""
        if sum(tuple(self._spared.values())) + size > most:
            return None
        try:
            pages = self._found(size) or _mapped(size)
        except (MemoryError, OSError):
            return None
        self._spared[id(pages)] = size
        return self._given(pages)

    def _given(self, pages: mmap.mmap) -> NDArray[np.uint8]:
        # What views refer to in the end: numpy's own arrays pass over each other to their owner.
        owner = (ctypes.c_uint8 * len(pages)).from_buffer(pages)
        weakref.finalize(owner, self._back, pages).atexit = False
        return np.frombuffer(memoryview(owner), dtype=np.uint8)

    def let_go(self) -> None:
        """Give the machine what nobody uses."""
        self._free.clear()

    @property
    def kept(self) -> int:
        """Bytes that nobody uses."""
        return sum(len(pages) for pages in tuple(self._free))

    def _found(self, size: int) -> mmap.mmap | None:
        for _ in range(len(self._free)):
            try:
                pages = self._free.popleft()
            except IndexError:  # another thread was faster
                return None
            if len(pages) == size:
                return pages
            self._free.append(pages)
        return None

    def _back(self, pages: mmap.mmap) -> None:
        self._spared.pop(id(pages), None)
        self._free.append(pages)
        while self.kept > self._most:
            try:
                self._free.popleft()
            except IndexError:
                return


def _mapped(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


PAGES = KeptPages()
"""This process's."""


def empty(size: int, dtype: np.dtype[Any] | type[Any]) -> NDArray[Any]:
    """So many elements of any content, as ``numpy.empty``; large ones of :data:`PAGES`."""
    kind = np.dtype(dtype)
    return PAGES.take(size * kind.itemsize).view(kind)
