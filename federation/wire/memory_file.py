"""Bodies in memory files, handed to a session and taken from it without a copy through a socket.

The trusted side makes every such file itself. The session's filter has no ``memfd_create``, so what a session may write
into has the size that it was lent, and what is read here can no longer be changed by whoever still holds the file:

- a body that is sent is sealed against writing, growing and shrinking before the session gets it;
- a file that is lent has its size sealed; once the session says that its answer is in it, writing is sealed too. The kernel
  refuses that while anyone still has the file mapped for writing, and such an answer is no answer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from federation.errors import VerificationError
from federation.jobs.frames import Buffer, write_file

_FIXED = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_SEALED = _FIXED | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class UnsealedError(VerificationError):
    """A lent file cannot be sealed: the session could still change what was judged."""

    code = "session-frame"


class SealedMap(mmap.mmap):
    """The bytes of a sealed file, read-only; who is handed a view of them can hand on the file itself."""

    file: MemoryFile


def file_of(body: Sequence[Buffer]) -> MemoryFile | None:
    """The sealed file whose bytes, all of them, a body is; None where there is no such file."""
    if len(body) != 1 or not isinstance(body[0], memoryview) or not isinstance(body[0].obj, SealedMap):
        return None
    file = body[0].obj.file
    return file if body[0].nbytes == file.size and body[0].contiguous else None


class MemoryFile:
    """A memory file of a fixed size; its memory is given back with the last who maps or holds it."""

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = size
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _FIXED)
        except OSError:
            self.close()
            raise

    @classmethod
    def holding(cls, buffers: Sequence[Buffer], size: int) -> MemoryFile:
        """A sealed file of these buffers, ``size`` bytes together. Blocks while it copies them."""
        file = cls(size)
        try:
            write_file(file.descriptor, buffers)
            file.seal()
        except BaseException:
            file.close()
            raise
        return file

    def write(self, data: Buffer, at: int) -> None:
        """Write bytes at a place."""
        view = memoryview(data).cast("B")
        while view:
            done = os.pwrite(self.descriptor, view, at)
            view, at = view[done:], at + done

    def seal(self) -> None:
        """Make its bytes what they are now, for good.

        Raises:
            UnsealedError: it is mapped for writing somewhere.
        """
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALED)
        except OSError:
            raise UnsealedError("the job's session kept a hold on its answer") from None

    def view(self, size: int) -> memoryview:
        """The first ``size`` bytes, read-only; the map outlives the file."""
        # Private: before Linux 6.7 a sealed file cannot be mapped shared, not even for reading.
        return memoryview(mmap.mmap(self.descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ))

    def sealed(self) -> memoryview:
        """All its bytes, sealed and read-only; whoever is given this view is given the file (see `file_of`)."""
        self.seal()
        sealed = SealedMap(self.descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        sealed.file = self
        return memoryview(sealed)

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()
