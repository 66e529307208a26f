"""What a set of processes costs: memory and processor time of everything below some process, read from /proc.

Memory is the sum of proportional set sizes (PSS): a page that several processes share counts once in all, so that sums
are what the machine really holds. Where the kernel does not let us see a process's PSS, its resident size (RSS, never
smaller) stands in.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def below(roots: Iterable[int]) -> dict[int, str]:
    """Every process that descends from one of ``roots``, those included, with its name."""
    children: dict[int, list[int]] = defaultdict(list)
    names: dict[int, str] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is not None:
            children[stat.parent].append(int(entry.name))
            names[int(entry.name)] = stat.name
    found: dict[int, str] = {}
    waiting = [root for root in roots if root in names]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found[process] = names[process]
            waiting.extend(children[process])
    return found


def pss_bytes(process: int) -> int:
    """Proportional set size of one process; 0 once it is gone."""
    try:
        for row in (_PROC / str(process) / "smaps_rollup").read_bytes().splitlines():
            if row.startswith(b"Pss:"):
                return int(row.split()[1]) * 1024
    except PermissionError:
        return rss_bytes(process)
    except OSError:
        pass
    return 0


def rss_bytes(process: int) -> int:
    """Resident set size of one process; 0 once it is gone."""
    try:
        return int((_PROC / str(process) / "statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def cpu_seconds(process: int) -> float:
    """User and system time of one process and of the children it has waited for; 0 once it is gone."""
    stat = _stat(process)
    return stat.ticks / _TICKS if stat is not None else 0.0


@dataclass(frozen=True)
class _Stat:
    name: str
    state: str
    parent: int
    ticks: int


def _stat(process: int) -> _Stat | None:
    try:
        text = (_PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")  # a name may hold anything, brackets and spaces too
    parts = rest.split()
    return _Stat(name, parts[0], int(parts[1]), sum(int(one) for one in parts[11:15]))


@dataclass
class Peak:
    """Samples the memory of all processes below some, until it is left; then says the most that was seen at once.

    Args:
        roots: gives the processes to begin from, anew for each sample.
        leave_out: processes that do not count, whatever is below them.

    Attributes:
        total: most bytes that all had at one moment.
        single: most bytes that any one process had.
        name: that process's name.
        samples: how many moments were looked at.
    """

    roots: Callable[[], Iterable[int]]
    leave_out: frozenset[int] = frozenset()
    total: int = 0
    single: int = 0
    name: str = ""
    samples: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def sample(self) -> None:
        """Look once."""
        total = 0
        for process, name in below(self.roots()).items():
            if process in self.leave_out:
                continue
            size = pss_bytes(process)
            total += size
            if size > self.single:
                self.single, self.name = size, name
        self.total = max(self.total, total)
        self.samples += 1

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="memory-samples", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.sample()


def until_quiet(processes: Iterable[int], *, share: float = 0.05, window: float = 1.0, limit: float = 60.0) -> float:
    """Wait until these processes together use less than ``share`` of one core over a window; returns the seconds waited."""
    chosen = list(processes)
    began = time.monotonic()
    last = sum(map(cpu_seconds, chosen))
    while time.monotonic() - began < limit:
        time.sleep(window)
        spent = sum(map(cpu_seconds, chosen))
        if spent - last < share * window:
            break
        last = spent
    return time.monotonic() - began
