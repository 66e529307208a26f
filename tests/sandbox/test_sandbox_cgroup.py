"""inv8: a session's control group holds what the supervisor cannot see, and evidence says which of the two held."""

from __future__ import annotations

import os
import select
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sandbox import Ending, Limits, Runtime, SessionSpec, Tier, open_session
from sandbox._cgroup import Group, _bases, open_group
from sandbox._meter import Meter, Usage
from sandbox._started import Started
from sandbox.canary import empty_runtime
from sandbox.session import Session

MIB = 1 << 20
BUFFERS = """
import socket, time
pairs = []
while len(pairs) < 200:
    one, other = socket.socketpair()
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        while True:
            one.send(b"x" * 65536)
    except BlockingIOError:
        pairs.append((one, other))
time.sleep(1)
"""
SMALL = Limits(memory_bytes=48 * MIB, scratch_bytes=MIB, shm_bytes=MIB)


@pytest.fixture
def group() -> Group:
    found = open_group()
    if found is None:
        pytest.skip("this process may make no control group that bounds memory and processes")
    found.remove()
    return found


class NoGroup(Session):
    _without = frozenset({"cgroup"})


def test_what_lies_in_buffers_counts(runtime: Runtime, group: Group) -> None:
    """The supervisor, which looks at processes, does not see it: without the group the same job goes on."""
    small = SessionSpec(runtime, ("-c", BUFFERS.replace("200", "6000")), limits=SMALL)
    few = SessionSpec(runtime, ("-c", BUFFERS), limits=SMALL)
    with open_session(small) as session:
        assert session.evidence.limits_by == "cgroup"
        ending = session.wait(60)
    with NoGroup(few) as session:
        assert session.evidence.limits_by == "supervisor"
        assert session.wait(60) == Ending("exited", exit_code=0)
    assert ending == Ending("limit", "memory") or ending.exit_code == 1, "or it ran out of descriptors first"


def test_a_burst_between_two_looks_ends_as_memory(runtime: Runtime, group: Group) -> None:
    code = "kept = []\nwhile True: kept.append(bytearray(b'x' * (64 << 20)))"
    with open_session(SessionSpec(runtime, ("-c", code), limits=SMALL)) as session:
        assert session.wait(60) == Ending("limit", "memory")


def test_no_group_is_left(runtime: Runtime, group: Group) -> None:
    folder = group.memory.parent
    before = {place.name for place in folder.iterdir() if place.is_dir()}
    with open_session(SessionSpec(runtime, ("-c", "pass"))) as session:
        held = {place.name for place in folder.iterdir() if place.is_dir()} - before
        assert any(name.startswith(f"keyong-session-{os.getpid()}-") for name in held)
        session.wait(60)
    after = {place.name for place in folder.iterdir() if place.is_dir()}
    assert not {name for name in after - before if name.startswith(f"keyong-session-{os.getpid()}-")}


def test_another_session_does_not_feel_a_bomb(runtime: Runtime, group: Group) -> None:
    """One at its limit of memory and processes; the other has all that it was given."""
    bomb = "import os, time\nfor _ in range(30):\n if os.fork() == 0: break\nkept = bytearray(b'x' * 30_000_000)\ntime.sleep(60)"
    work = "kept = bytearray(b'x' * 15_000_000); print(sum(range(2_000_000)))"
    with open_session(SessionSpec(runtime, ("-c", bomb), limits=SMALL)) as first:
        with open_session(SessionSpec(runtime, ("-c", work), limits=SMALL)) as second:
            assert second.wait(60) == Ending("exited", exit_code=0)
        assert first.wait(60) == Ending("limit", "memory")


def test_where_it_may_make_none_the_supervisor_holds(runtime: Runtime) -> None:
    with NoGroup(SessionSpec(runtime, ("-c", "pass"))) as session:
        assert session.evidence.limits_by == "supervisor"


def _unified(folder: Path, controllers: str, present: str) -> Path:
    """What version 2 shows of a delegated group, as files; the kernel's side of it is not here."""
    group = folder / "fs" / "own"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text(controllers)
    (group / "cgroup.subtree_control").write_text("")
    (group / "cgroup.procs").write_text(present)
    place = folder / "proc" / "self"
    place.mkdir(parents=True)
    (place / "cgroup").write_text("0::/own\n")
    (place / "mountinfo").write_text(f"30 1 0:26 / {folder / 'fs'} rw,relatime - cgroup2 cgroup2 rw\n")
    return group


def test_version_2_where_it_is_delegated(tmp_path: Path) -> None:
    base = _unified(tmp_path, "cpu memory pids\n", f"{os.getpid()}\n")
    group = open_group(tmp_path / "proc")
    assert group is not None
    assert group.version == 2
    assert (base / "keyong-service" / "cgroup.procs").read_text() == str(os.getpid()), (
        "a group with processes bounds none"
    )
    assert group.memory.parent == base, "what is enabled in a group bounds those directly below it, and nothing deeper"
    group.bound(Limits(memory_bytes=100 * MIB, processes=20), MIB)
    assert int((group.memory / "memory.max").read_text()) > 100 * MIB
    assert (group.pids / "pids.max").read_text() == "36"
    (group.memory / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert group.broken() == "memory"


@pytest.mark.parametrize(("controllers", "present"), [("cpu pids\n", ""), ("cpu memory pids\n", "1\n2\n")])
def test_version_2_where_it_is_not(tmp_path: Path, controllers: str, present: str) -> None:
    _unified(tmp_path, controllers, present)
    assert open_group(tmp_path / "proc") is None


def test_t1_has_one_too(group: Group, root_only: None) -> None:
    with empty_runtime() as runtime, open_session(SessionSpec(runtime, ("-c", "pass"), tier=Tier.T1)) as session:
        assert session.evidence.limits_by == "cgroup"
        session.wait(60)


def test_a_kill_reaches_whoever_is_in_the_group_and_nobody_else(group: Group) -> None:
    mine = open_group()
    assert mine is not None
    script = "read go; setsid sleep 99 & setsid sleep 99 & sleep 99"
    with (
        subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as inside,
        subprocess.Popen(["sleep", "99"]) as outside,
    ):
        try:
            mine.enter(inside.pid)
            assert inside.stdin is not None
            inside.stdin.write(b"\n")
            inside.stdin.flush()
            while len(found := mine._members()) < 4:
                assert inside.poll() is None
            handles = [os.pidfd_open(int(process)) for process in found]
            mine.kill()
            assert all(select.select([handle], [], [], 30)[0] for handle in handles)
            assert outside.poll() is None
            if mine.cpu is not None:
                weight = (mine.cpu / ("cpu.weight" if mine.version == 2 else "cpu.shares")).read_text().strip()
                assert weight == ("10000" if mine.version == 2 else "262144"), "they go before what others do"
                own = _bases(Path("/proc")).get("cpu")
                assert mine.version == 2 or mine.cpu.parent == own, "not only before what other sessions do"
        finally:
            outside.kill()
            mine.abandon()
    assert not mine.pids.exists()


@pytest.mark.parametrize("version", [1, 2])
def test_far_below_is_said_only_where_both_counts_say_it(tmp_path: Path, version: int) -> None:
    limits = Limits(memory_bytes=1000, processes=10)
    group = Group(tmp_path, tmp_path, None, version)
    usage = tmp_path / ("memory.usage_in_bytes" if version == 1 else "memory.current")
    assert not group.far_below(limits), "what cannot be read says nothing"
    for memory, tasks, far in ((499, 4, True), (500, 4, False), (499, 5, False), (4000, 40, False)):
        usage.write_text(f"{memory}\n")
        (tmp_path / "pids.current").write_text(f"{tasks}\n")
        assert group.far_below(limits) is far


class Walks(Meter):
    """Says how often the processes were walked through; they have more than they may."""

    def __init__(self) -> None:
        self.count = 0

    def sample(self, limits: Limits) -> Usage:
        self.count += 1
        return Usage(limits.processes + 1, 0, 0.0, 0, False)

    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]:
        return 0, self.count == 3


def test_processes_are_walked_through_seldom_while_the_kernel_counts_little(tmp_path: Path) -> None:
    """Now and then far below the bounds, at each look near them, with a bound of processor time, and without a group."""
    group = Group(tmp_path, tmp_path, None, 2)
    (tmp_path / "memory.current").write_text("100")
    (tmp_path / "pids.current").write_text("1")
    meter = Walks()
    session = Session.__new__(Session)
    session._next_walk = 0.0

    def looks(limits: Limits, held: Group | None, *moments: float) -> list[str | None]:
        started = cast(Started, SimpleNamespace(group=held, meter=meter))
        return [session._look(started, limits, at) for at in moments]

    limits = Limits(memory_bytes=1000, processes=10)
    assert looks(limits, group, 1.0, 1.05, 1.1, 1.2) == ["processes", None, None, None]
    assert looks(limits, group, 1.26) == ["processes"], "the walk that was put off"
    assert looks(replace(limits, cpu_seconds=9.0), group, 1.3) == ["processes"]
    assert meter.count == 3
    assert looks(limits, group, 1.35) == ["disk"], "what is written is looked at each time"
    assert looks(limits, None, 1.4) == ["processes"]
    (tmp_path / "memory.current").write_text("501")
    assert looks(limits, group, 1.45) == ["processes"]
