"""inv4: memory files that a session was given count against its limit, however it keeps them."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import Limits, Runtime, SessionSpec, _memory_files, open_session
from sandbox._meter import _Totals

SIZE = 16 << 20
KEEP = """
import mmap, os, socket, time
channel, kept = socket.socket(fileno=3), []
while True:
    _, (file,), _, _ = socket.recv_fds(channel, 1, 1)
    if {mapped}:
        kept.append(mmap.mmap(file, 0, mmap.MAP_PRIVATE))
        os.close(file)
    channel.send(b"k")
"""


@pytest.mark.parametrize("mapped", [False, True], ids=["open", "mapped"])
def test_kept_files_end_the_session(runtime: Runtime, mapped: bool) -> None:
    limits = Limits(memory_bytes=5 * SIZE)
    with open_session(SessionSpec(runtime, ("-c", KEEP.format(mapped=mapped)), limits=limits)) as session:
        assert session.sees_files
        session.channel.settimeout(20)
        try:
            for _ in range(8):
                file = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                os.write(file, bytes(SIZE))
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
                socket.send_fds(session.channel, [b"f"], [file])
                os.close(file)
                session.channel.recv(1)
        except OSError:
            pass  # it has been ended
        assert session.wait(20).limit == "memory"


HELD = """
import mmap, os
for step in iter(input, "end"):
    exec(step)
    print("done", flush=True)
"""


class Of(_Totals):
    """Takes one process for the session."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = str(pid)

    def _belongs(self, name: str) -> bool:
        return name == self._pid

    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]:
        return 0, False


def test_a_file_counts_once_whether_open_or_mapped_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that does nothing else: this one has threads of other tests, whose memory moves."""
    monkeypatch.setattr(_memory_files, "_SHARE", 0)
    command = [sys.executable, "-I", "-S", "-c", HELD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        meter, limits = Of(process.pid), Limits(memory_bytes=1)

        def held_after(step: str) -> float:
            assert process.stdin is not None and process.stdout is not None
            print(step, file=process.stdin, flush=True)
            assert process.stdout.readline() == "done\n"
            return meter.sample(limits).memory_bytes / SIZE

        before = held_after("pass")
        steps = {
            f"file = os.memfd_create('body'); os.posix_fallocate(file, 0, {SIZE}); again = os.dup(file)": 1,
            f"view = mmap.mmap(file, {SIZE})": 1,
            "assert sum(view[::4096]) == 0": 1,
            "os.close(file); os.close(again)": 1,
            "view.close()": 0,
        }
        for step, counted in steps.items():
            assert held_after(step) - before == pytest.approx(counted, abs=0.2), step
        print("end", file=process.stdin)


@pytest.mark.usefixtures("root_only")
def test_who_may_not_look_says_so() -> None:
    with subprocess.Popen(["sleep", "60"], user=12346) as other:
        code = f"from sandbox._memory_files import can_look\nprint(can_look('{other.pid}'))"
        for options, seen in (([], "True"), (["--bounding-set=-sys_ptrace"], "False")):
            command = ["setpriv", *options, sys.executable, "-c", code]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == seen
        other.kill()
