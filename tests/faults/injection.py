"""A fault of the disk, or death at an exact system call, armed in a running process (see ``faultlib.c``)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faultlib.c")

SYNC, WRITE, RENAME, UNLINK, TRUNCATE, MKDIR = 1, 2, 4, 8, 16, 32
ANY = SYNC | WRITE | RENAME | UNLINK | TRUNCATE | MKDIR
DIE_BEFORE, DIE_AFTER, DIE_TORN, FAIL, DELAY = 1, 2, 3, 4, 5

_LAYOUT = struct.Struct("=iiiiqqqq1000s")
NO_COMPILER = "faults are injected by a small preloaded library, and there is no C compiler (cc) to build it with"


@dataclass(frozen=True)
class Fault:
    """What happens at the ``nth`` call of some kinds on a path that holds ``text``, and ``times`` - 1 times after it."""

    kinds: int
    action: int
    text: str = "/"
    nth: int = 1
    times: int = -1
    argument: int = 0
    """An errno, or milliseconds."""


def no_space(text: str, kinds: int = WRITE, nth: int = 1, times: int = -1) -> Fault:
    """A full disk."""
    return Fault(kinds, FAIL, text, nth, times, errno.ENOSPC)


def io_error(text: str, kinds: int = SYNC, nth: int = 1, times: int = -1) -> Fault:
    """A disk that fails, by default to make durable what was written."""
    return Fault(kinds, FAIL, text, nth, times, errno.EIO)


def slow(text: str, milliseconds: int) -> Fault:
    """A disk that takes its time to make things durable."""
    return Fault(SYNC, DELAY, text, argument=milliseconds)


def build(folder: Path) -> Path | None:
    """Compile the library; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "faultlib.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Control:
    """The test's end of a process's faults: a file that both map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def arm(self, fault: Fault) -> None:
        """Let a fault happen from now on; counting begins anew."""
        self.disarm()
        text = fault.text.encode()
        values = (fault.kinds, fault.action, fault.argument, fault.nth, fault.times, 0, 0, text)
        self._map[:] = _LAYOUT.pack(0, *values)
        self._map[0:4] = struct.pack("=i", 1)

    def disarm(self) -> None:
        """Let nothing happen any more."""
        self._map[0:4] = bytes(4)

    @property
    def seen(self) -> int:
        """Matching calls since the fault was armed."""
        return int(_LAYOUT.unpack(self._map[:])[6])

    @property
    def hit(self) -> int:
        """How many of them were hit."""
        return int(_LAYOUT.unpack(self._map[:])[7])


def join(library: str, control: str) -> None:
    """In the process: obey a control file. The library was preloaded, so this finds it there."""
    loaded = ctypes.CDLL(library)
    if loaded.fault_control(control.encode()) != 0:
        raise OSError("the control file cannot be mapped")
