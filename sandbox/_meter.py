"""What a session uses as a whole, read from the outside: processes, memory, processor time, scratch.

Sees what the kernel shows of processes: their pages, and the memory files they have open or mapped. It does not see
what lies in pipe and socket buffers, a descriptor on its way among them; only cgroups do, and evidence says
which of the two held the limits.
"""

from __future__ import annotations

import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox._memory_files import MemoryFiles, resident
from sandbox._proc import read_proc
from sandbox._trees import entries
from sandbox.spec import LimitName, Limits

_TICKS = os.sysconf("SC_CLK_TCK")
_WALK_SHARE = 20  # a walk through scratch is at most this part of the time
_REFRESH = 20  # samples after which processes once found foreign are looked at again


@dataclass(frozen=True)
class Usage:
    """A session's totals at one moment."""

    tasks: int
    memory_bytes: int
    cpu_seconds: float
    scratch_files: int
    scratch_full: bool


class _Totals(ABC):
    """Reads a session's totals from a trusted process outside; which processes are its own is the tier's to say."""

    def __init__(self) -> None:
        self._foreign: set[str] = set()
        self._samples = 0
        self._spent: dict[tuple[str, str], float] = {}
        self._cpu = 0.0
        self._files = MemoryFiles()

    def members(self) -> list[str]:
        """Return the session's processes, by host pid."""
        present = [name for name in os.listdir("/proc") if name.isdecimal()]
        self._samples += 1
        if self._samples % _REFRESH == 0:
            self._foreign.clear()
        self._foreign.intersection_update(present)
        found = []
        for name in present:
            if name in self._foreign:
                continue
            try:
                if self._belongs(name):
                    found.append(name)
                else:
                    self._foreign.add(name)
            except ProcessLookupError:
                continue
            except OSError:  # another user's, or just gone
                self._foreign.add(name)
        return found

    def alive(self) -> list[str]:
        """Return those of the members that run; what has died may wait for its parent for as long as that likes."""
        found = []
        for name in self.members():
            try:
                if read_proc(f"/proc/{name}/stat").rsplit(")", 1)[1].split()[0] not in "ZX":
                    found.append(name)
            except OSError:
                continue  # gone
        return found

    @abstractmethod
    def _belongs(self, name: str) -> bool: ...

    @abstractmethod
    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]: ...

    def disk(self, limits: Limits) -> LimitName | None:
        """Return the limit that what the session has written breaks, or ``None``; looks at no process."""
        files, full = self._scratch_usage(limits)
        return "disk" if full or files > limits.scratch_files else None

    def left_full(self, limits: Limits) -> bool:
        """Whether a session that has ended left its scratch full, as far as that outlives it."""
        return False

    def sample(self, limits: Limits) -> Usage:
        """Return the totals now; shared pages are counted once only where the first sum is above the limit."""
        members = self.members()
        tasks = memory = 0
        cpu = 0.0
        for name in members:
            try:
                fields = read_proc(f"/proc/{name}/stat").rsplit(")", 1)[1].split()
                memory += _status_bytes(name, "status", ("RssAnon:", "RssShmem:"))
            except (OSError, IndexError):
                continue
            tasks += int(fields[17])
            own = (int(fields[11]) + int(fields[12])) / _TICKS
            self._spent[name, fields[19]] = own
            cpu += own + (int(fields[13]) + int(fields[14])) / _TICKS
        held = self._files.held(members)
        memory += sum(held.values())
        if memory > limits.memory_bytes and tasks <= limits.processes:  # a bomb of processes makes the look a slow one
            memory = self._proportional(members, held, memory)
        self._cpu = max(self._cpu, cpu, sum(self._spent.values()))
        files, full = self._scratch_usage(limits)
        return Usage(tasks, memory, self._cpu, files, full)

    def _proportional(self, members: list[str], held: Mapping[str, int], fallback: int) -> int:
        try:
            counted: dict[str, int] = {}
            for name in members if held else ():
                for inode, size in resident(name).items():
                    counted[inode] = counted.get(inode, 0) + size
            rest = sum(max(0, size - counted.get(inode, 0)) for inode, size in held.items())
            return rest + sum(_status_bytes(name, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for name in members)
        except OSError:
            return fallback


class Meter(_Totals):
    """Reads the totals of the session whose first process is ``init``, in a pid namespace of its own."""

    def __init__(self, init: int, scratch: tuple[str, ...]) -> None:
        super().__init__()
        self._init = init
        self._namespace = os.readlink(f"/proc/{init}/ns/pid")
        self._scratch = scratch

    def _belongs(self, name: str) -> bool:
        return os.readlink(f"/proc/{name}/ns/pid") == self._namespace

    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]:
        files, full = 0, False
        for place in self._scratch:
            try:
                state = os.statvfs(f"/proc/{self._init}/root{place}")
            except OSError:
                continue  # the session is ending
            files += state.f_files - state.f_ffree
            full = full or state.f_bfree == 0
        return files, full


class UidMeter(_Totals):
    """Reads the totals of the session that runs under ``uid``, where there is no pid namespace and no file system of
    its own (T1): scratch is counted by walking it, so what is deleted and held open is not seen.

    Args:
        uid: the session's own.
        scratch: directories of the session to the bytes each may hold.
    """

    def __init__(self, uid: int, scratch: Mapping[Path, int]) -> None:
        super().__init__()
        self._uid = str(uid)
        self._places = scratch
        self._walked = (0, False)
        self._next_walk = 0.0

    def _belongs(self, name: str) -> bool:
        for line in read_proc(f"/proc/{name}/status").splitlines():
            if line.startswith("Uid:"):
                return self._uid in line.split()
        return False

    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]:
        began = time.monotonic()
        if began >= self._next_walk:
            self._walked = self._walk(limits.scratch_files)
            self._next_walk = began + _WALK_SHARE * (time.monotonic() - began)
        return self._walked

    def left_full(self, limits: Limits) -> bool:
        """Whether a session that has ended left its scratch full: it may have been faster than the supervisor looks."""
        return self._walk(limits.scratch_files, written=True)[1]

    def _walk(self, most: int, *, written: bool = False) -> tuple[int, bool]:
        files = 0
        for place, bound in self._places.items():
            held = 0
            try:
                for state in entries(place):
                    files += 1
                    if not stat.S_ISDIR(state.st_mode):  # what was just written may have no block yet
                        held += max(state.st_blocks << 9, state.st_size if written else 0)
                    if held >= bound or files > most:
                        return files, True
            except FileNotFoundError:  # the session is ending
                continue
            except OSError:  # what cannot be looked into may hold anything
                return files, True
        return files, False


class TreeMeter(UidMeter):
    """Reads the totals of the session whose processes all descend from ``parent``, which is none of it (T0).

    Args:
        parent: by pid; orphans of the session come to it.
        scratch: directories of the session to the bytes each may hold.
    """

    def __init__(self, parent: int, scratch: Mapping[Path, int]) -> None:
        super().__init__(os.geteuid(), scratch)
        self._parent = parent

    def _belongs(self, name: str) -> bool:
        above = int(read_proc(f"/proc/{name}/stat").rsplit(")", 1)[1].split()[1])
        while above > 1 and above != self._parent:
            above = int(read_proc(f"/proc/{above}/stat").rsplit(")", 1)[1].split()[1])
        return above == self._parent


def exceeded(usage: Usage, limits: Limits) -> LimitName | None:
    """Return the first limit that the totals break, or ``None``."""
    if usage.tasks > limits.processes:
        return "processes"
    if usage.memory_bytes > limits.memory_bytes:
        return "memory"
    if limits.cpu_seconds is not None and usage.cpu_seconds > limits.cpu_seconds:
        return "cpu"
    if usage.scratch_full or usage.scratch_files > limits.scratch_files:
        return "disk"
    return None


def _status_bytes(name: str, file: str, keys: tuple[str, ...]) -> int:
    total = 0
    for line in read_proc(f"/proc/{name}/{file}").splitlines():
        if line.startswith(keys):
            total += int(line.split()[1]) << 10
    return total
