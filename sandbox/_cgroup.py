"""A session's own control group: what the kernel holds for the whole of it, pipes, sockets and its own memory included.

Version 1 where memory and pids are mounted and writable (root), version 2 where both are delegated to this process's own
group. Where neither is, the supervisor alone holds the limits, and evidence says so. The bounds here are somewhat above the
named ones, as those of each process are: the supervisor sees the excess first and names it, and what grows faster than it
looks, or where it cannot look, ends here.

Groups lie side by side, directly below this process's own: in a folder of their own all of them together would weigh what
that folder does (one process, in version 1), whatever each is given, and version 2 would bound none of them.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox._proc import read_proc
from sandbox.spec import MIB, LimitName, Limits

_SESSION = "keyong-session-"
_OWN = "keyong-service"
_SLACK = 256 * MIB  # the kernel's own: page tables, tasks, buffers
_PROCESSES = 16  # as the bound of each process (RLIMIT_NPROC)
_REMOVE_SECONDS = 2.0


@dataclass(frozen=True)
class Group:
    """One session's group, by controller; in version 2 both are the same directory."""

    memory: Path
    pids: Path
    cpu: Path | None
    version: int

    def enter(self, process: int) -> None:
        """Put a process, and what it will start, into the group."""
        for place in self._places():
            _write(place / "cgroup.procs", process)

    def bound(self, limits: Limits, scratch_bytes: int) -> None:
        """Let the session have no more than this.

        Args:
            limits: bounds of the whole session.
            scratch_bytes: what its places in memory may hold together, which counts as memory here.

        Raises:
            OSError: it has more already.
        """
        most = limits.memory_bytes + scratch_bytes + _SLACK
        _write(self.memory / ("memory.max" if self.version == 2 else "memory.limit_in_bytes"), min(most, 1 << 62))
        for name, value in (("memory.oom.group", 1), ("memory.swap.max", 0)) if self.version == 2 else ():
            with suppress(OSError):
                _write(self.memory / name, value)
        _write(self.pids / "pids.max", limits.processes + _PROCESSES)

    def give_way(self) -> None:
        """Let the session have half of what others have, where there is not enough for all; once it has started."""
        if self.cpu is not None:
            with suppress(OSError):
                self._weigh(50, 512)

    def far_below(self, limits: Limits) -> bool:
        """Whether by the kernel's own count the session has less than half of the memory and the processes that it may have.

        Memory files that it was given are not in it: they are counted where they were written.
        """
        usage = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        try:  # twenty times a second, by their text: path objects take longer than the reading
            memory, tasks = int(read_proc(f"{self.memory}/{usage}")), int(read_proc(f"{self.pids}/pids.current"))
        except (OSError, ValueError):
            return False
        return 2 * memory < limits.memory_bytes and 2 * tasks < limits.processes

    def broken(self) -> LimitName | None:
        """Return the limit at which the kernel has ended or refused something, or ``None``."""
        events = "memory.events" if self.version == 2 else "memory.oom_control"
        if _count(f"{self.memory}/{events}", "oom_kill"):
            return "memory"
        return "processes" if _count(f"{self.pids}/pids.events", "max") else None

    def kill(self) -> None:
        """Kill every process of the group at once, and let what is left of it go before what others do.

        A pid namespace ends with its first process, but in turn: that one's memory is given back before the others hear
        of it. Whoever forks meanwhile is that namespace's end's to kill, or the reaper's. What is left is the kernel's
        work of taking memory down, which would have to wait for its share of the processors as the job had to.
        """
        self._strike()
        if self.cpu is not None:  # not before: the dying would go before who is about to kill the rest of them
            with suppress(OSError):
                self._weigh(10_000, 1 << 18)  # the most there is

    def _strike(self) -> None:
        handles: dict[str, int] = {}
        with suppress(OSError):
            if self.version == 2 and (switch := self.pids / "cgroup.kill").exists():
                _write(switch, 1)
                return
            for process in self._members():
                with suppress(ProcessLookupError):
                    handles[process] = os.pidfd_open(int(process))
            for process in self._members() & handles.keys():  # listed with the handle held: no other has its number
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handles[process], signal.SIGKILL)
        for handle in handles.values():
            os.close(handle)

    def abandon(self) -> None:
        """Kill who is in the group, and remove it."""
        self.kill()
        self.remove()

    def remove(self) -> None:
        """Remove the group once nobody is in it; one that cannot be removed is left to the next start."""
        end = time.monotonic() + _REMOVE_SECONDS
        for place in self._places():
            while place.exists():
                try:
                    place.rmdir()
                except OSError:
                    if time.monotonic() > end:
                        return
                    time.sleep(0.001)  # the last one is gone, and the kernel is about to notice

    def _weigh(self, weight: int, shares: int) -> None:
        assert self.cpu is not None
        if self.version == 2:
            _write(self.cpu / "cpu.weight", weight)
        else:
            _write(self.cpu / "cpu.shares", shares)

    def _members(self) -> set[str]:
        return set((self.pids / "cgroup.procs").read_text().split()) - {"0"}  # 0: of a pid namespace beside ours

    def _places(self) -> list[Path]:
        return list(dict.fromkeys(place for place in (self.memory, self.pids, self.cpu) if place is not None))


def open_group(processes: Path = Path("/proc")) -> Group | None:
    """Return a fresh group; ``None`` where this process may make none that bounds memory and processes.

    Args:
        processes: where ``self/cgroup`` and ``self/mountinfo`` are read; for tests.
    """
    name = f"{_SESSION}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        bases = _bases(processes)
        if {"memory", "pids"} <= bases.keys():
            return Group(_make(bases["memory"], name), _make(bases["pids"], name), _optional(bases, name), 1)
        if (base := _unified(processes)) is not None:
            place = _make(base, name)
            return Group(place, place, place, 2)
    except (OSError, ValueError):
        return None
    return None


def limit_files(group: Group | None, processes: Path = Path("/proc")) -> tuple[Path, ...]:
    """Files in which a process of this group (``None``: of our own) finds what it may have; those that are there.

    DuckDB does not start where it sees one and may not read it.
    """
    quota = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    found = [Path("/sys/fs/cgroup/cpu", name) for name in quota]
    if group is not None:
        found += [group.memory / name for name in ("memory.limit_in_bytes", "memory.max", "cpu.max")]
        found += [group.cpu / name for name in quota if group.cpu is not None]
    else:
        for line in (processes / "self/cgroup").read_text().splitlines():
            path = line.split(":", 2)[2].lstrip("/")
            found.append(Path("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
            found += [Path("/sys/fs/cgroup", path, name) for name in ("memory.max", "cpu.max")]
            found += [Path("/sys/fs/cgroup/cpu", path, name) for name in quota]
    return tuple(place for place in dict.fromkeys(found) if place.is_file())


def _optional(bases: dict[str, Path], name: str) -> Path | None:
    try:
        return _make(bases["cpu"], name)
    except (OSError, KeyError):
        return None


def _make(base: Path, name: str) -> Path:
    for left in base.glob(f"{_SESSION}*"):  # of a process that is no more
        if not Path("/proc", left.name.removeprefix(_SESSION).partition("-")[0]).exists():
            with suppress(OSError):
                left.rmdir()
    place = base / name
    place.mkdir()
    return place


def _bases(processes: Path) -> dict[str, Path]:
    """This process's own group in each hierarchy of version 1."""
    own = {}
    for line in (processes / "self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(filter(None, names.split(",")), path))
    found = {}
    for root, mount, kind, options in _mounts(processes):
        for name in set(options.split(",")) & own.keys() if kind == "cgroup" else ():
            below = os.path.relpath(own[name], root)
            place = mount / below if not below.startswith("..") else mount
            found[name] = place if place.is_dir() else mount
    return found


def _unified(processes: Path) -> Path | None:
    """This process's own group in version 2, made so that groups below it are bounded; ``None`` where that may not be."""
    own = next(
        (line[3:] for line in (processes / "self/cgroup").read_text().splitlines() if line.startswith("0::")), None
    )
    mount = next(((root, place) for root, place, kind, _ in _mounts(processes) if kind == "cgroup2"), None)
    if own is None or mount is None:
        return None
    below = os.path.relpath(own, mount[0])
    base = mount[1] / below if not below.startswith("..") else mount[1]
    if base.name == _OWN:
        base = base.parent
    if not {"memory", "pids"} <= set((base / "cgroup.controllers").read_text().split()):
        return None
    enabled = set((base / "cgroup.subtree_control").read_text().split())
    if not {"memory", "pids"} <= enabled:
        _leave(base)
        (base / "cgroup.subtree_control").write_text("+memory +pids")
    with suppress(OSError):
        (base / "cgroup.subtree_control").write_text("+cpu")
    return base


def _leave(base: Path) -> None:
    """Move this process into a leaf: a group with processes cannot bound groups below it. Only where it is alone."""
    present = set((base / "cgroup.procs").read_text().split())
    if not present:
        return
    if present != {str(os.getpid())}:
        raise OSError("others are in this group")
    leaf = base / _OWN
    leaf.mkdir(exist_ok=True)
    _write(leaf / "cgroup.procs", os.getpid())


def _mounts(processes: Path) -> Iterator[tuple[str, Path, str, str]]:
    for line in (processes / "self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, mount = fields.split(" ")[3:5]
        yield root, Path(mount), kind, options


def _write(path: Path, value: int) -> None:
    path.write_text(str(value))


def _count(path: str, key: str) -> int:
    try:
        for line in read_proc(path).splitlines():
            name, _, number = line.partition(" ")
            if name == key:
                return int(number)
    except OSError:
        pass
    return 0
