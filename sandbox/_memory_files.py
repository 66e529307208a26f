"""Memory files (memfd) that a session holds: memory that stays allocated though no process has a page of it mapped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from sandbox._proc import read_proc

_MARK = "/memfd:"
_SHARE = 20  # looks at mappings are at most this part of the time


class MemoryFiles:
    """Which memory files a session's processes have open or mapped, and how much memory each may take.

    The session makes none itself (its filter), so each is one that it was given. One that is only mapped is taken to be
    as large as it was when it was seen open, or as far as its mapping reaches. One that is in flight between two of the
    session's own sockets is not seen.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._mapped: dict[str, int] = {}
        self._next_look = 0.0

    def held(self, members: Iterable[str]) -> dict[str, int]:
        """Return each such file's inode and its bytes."""
        members = list(members)
        opened: dict[str, int] = {}
        for name in members:
            for state in _opened(name):
                inode = str(state.st_ino)
                opened[inode] = state.st_blocks << 9
                self._sizes[inode] = state.st_size
        began = time.monotonic()
        if began >= self._next_look:
            self._mapped = {}
            for name in members:
                for inode, reach in _mappings(name):
                    self._mapped[inode] = max(self._mapped.get(inode, 0), self._sizes.get(inode, reach))
            self._sizes = {inode: size for inode, size in self._sizes.items() if inode in opened | self._mapped}
            self._next_look = began + _SHARE * (time.monotonic() - began)
        return self._mapped | opened


def can_look(process: str) -> bool:
    """Whether this process may see what files that one holds: root without CAP_SYS_PTRACE may not see another uid's."""
    try:
        for name in os.listdir(f"/proc/{process}/fd"):
            os.readlink(f"/proc/{process}/fd/{name}")
    except PermissionError:
        return False
    except OSError:  # it is just gone
        return True
    return True


def resident(process: str) -> dict[str, int]:
    """Return how much of each memory file is counted in a process's proportional shared memory already."""
    found: dict[str, int] = {}
    inode, pss = "", 0
    for line in read_proc(f"/proc/{process}/smaps").splitlines():
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):
            inode = line.split(None, 5)[4] if _MARK in line else ""
        elif inode and key == "Pss:":
            pss = int(rest.split()[0]) << 10
        elif inode and key == "Anonymous:":
            found[inode] = found.get(inode, 0) + max(0, pss - (int(rest.split()[0]) << 10))
    return found


def _opened(process: str) -> Iterable[os.stat_result]:
    try:
        names = os.listdir(f"/proc/{process}/fd")
    except OSError:
        return
    for name in names:
        place = f"/proc/{process}/fd/{name}"
        try:
            if os.readlink(place).startswith(_MARK):
                yield os.stat(place)
        except OSError:  # just closed
            continue


def _mappings(process: str) -> Iterable[tuple[str, int]]:
    try:
        text = read_proc(f"/proc/{process}/maps")
    except OSError:
        return
    for line in text.splitlines() if _MARK in text else ():
        if _MARK in line:
            span, _, offset, _, inode, _ = line.split(None, 5)
            first, end = (int(part, 16) for part in span.split("-"))
            yield inode, int(offset, 16) + end - first
