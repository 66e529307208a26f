"""What a session uses as a whole, read from the outside: processes, memory, processor time, scratch.

Sees what the kernel shows of processes. It does not see memory that no process maps (pipe and socket buffers, a shared
mapping that was dropped); only cgroups do, and evidence says which of the two held the limits.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sandbox.spec import LimitName, Limits

_TICKS = os.sysconf("SC_CLK_TCK")
_REFRESH = 20  # samples after which processes once found foreign are looked at again


@dataclass(frozen=True)
class Usage:
    """A session's totals at one moment."""

    tasks: int
    memory_bytes: int
    cpu_seconds: float
    scratch_files: int
    scratch_full: bool


class Meter:
    """Reads the totals of the session whose first process is ``init``, from a trusted process outside."""

    def __init__(self, init: int, scratch: tuple[str, ...]) -> None:
        self._init = init
        self._namespace = os.readlink(f"/proc/{init}/ns/pid")
        self._scratch = scratch
        self._foreign: set[str] = set()
        self._samples = 0
        self._spent: dict[tuple[str, str], float] = {}
        self._cpu = 0.0

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
                if os.readlink(f"/proc/{name}/ns/pid") == self._namespace:
                    found.append(name)
                else:
                    self._foreign.add(name)
            except ProcessLookupError:
                continue
            except OSError:  # another user's, or just gone
                self._foreign.add(name)
        return found

    def sample(self, limits: Limits) -> Usage:
        """Return the totals now; shared pages are counted once only where the first sum is above the limit."""
        members = self.members()
        tasks = memory = 0
        cpu = 0.0
        for name in members:
            try:
                fields = Path(f"/proc/{name}/stat").read_text(encoding="latin-1").rsplit(")", 1)[1].split()
                memory += _status_bytes(name, "status", ("RssAnon:", "RssShmem:"))
            except (OSError, IndexError):
                continue
            tasks += int(fields[17])
            own = (int(fields[11]) + int(fields[12])) / _TICKS
            self._spent[name, fields[19]] = own
            cpu += own + (int(fields[13]) + int(fields[14])) / _TICKS
        if memory > limits.memory_bytes:
            memory = self._proportional(members, memory)
        self._cpu = max(self._cpu, cpu, sum(self._spent.values()))
        files, full = self._scratch_usage()
        return Usage(tasks, memory, self._cpu, files, full)

    def _proportional(self, members: list[str], fallback: int) -> int:
        try:
            return sum(_status_bytes(name, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for name in members)
        except OSError:
            return fallback

    def _scratch_usage(self) -> tuple[int, bool]:
        files, full = 0, False
        for place in self._scratch:
            try:
                state = os.statvfs(f"/proc/{self._init}/root{place}")
            except OSError:
                continue  # the session is ending
            files += state.f_files - state.f_ffree
            full = full or state.f_bfree == 0
        return files, full


def exceeded(usage: Usage, limits: Limits) -> LimitName | None:
    """Return the first limit that the totals break, or ``None``."""
    if usage.memory_bytes > limits.memory_bytes:
        return "memory"
    if usage.tasks > limits.processes:
        return "processes"
    if limits.cpu_seconds is not None and usage.cpu_seconds > limits.cpu_seconds:
        return "cpu"
    if usage.scratch_full or usage.scratch_files > limits.scratch_files:
        return "disk"
    return None


def _status_bytes(name: str, file: str, keys: tuple[str, ...]) -> int:
    total = 0
    for line in Path(f"/proc/{name}/{file}").read_text(encoding="latin-1").splitlines():
        if line.startswith(keys):
            total += int(line.split()[1]) << 10
    return total
