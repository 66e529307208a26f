"""inv4: memory files that a session was given count against its limit, however it keeps them."""

from __future__ import annotations

import fcntl
import gc
import mmap
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


class Own(_Totals):
    """Takes this process for the session."""

    def _belongs(self, name: str) -> bool:
        return name == str(os.getpid())

    def _scratch_usage(self, limits: Limits) -> tuple[int, bool]:
        return 0, False


def test_a_file_counts_once_whether_open_or_mapped_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory_files, "_SHARE", 0)
    meter, limits = Own(), Limits(memory_bytes=1)
    gc.collect()
    before = meter.sample(limits).memory_bytes
    file = os.memfd_create("body")
    os.posix_fallocate(file, 0, SIZE)  # nothing passes through this process's own heap
    again = os.dup(file)

    def more() -> float:
        return (meter.sample(limits).memory_bytes - before) / SIZE

    assert more() == pytest.approx(1, abs=0.2)
    with mmap.mmap(file, SIZE) as view:
        assert more() == pytest.approx(1, abs=0.2)
        assert sum(view[::4096]) == 0
        assert more() == pytest.approx(1, abs=0.2)
        os.close(file)
        os.close(again)
        assert more() == pytest.approx(1, abs=0.2)
    assert more() == pytest.approx(0, abs=0.2)


@pytest.mark.usefixtures("root_only")
def test_who_may_not_look_says_so() -> None:
    with subprocess.Popen(["sleep", "60"], user=12346) as other:
        code = f"from sandbox._memory_files import can_look\nprint(can_look('{other.pid}'))"
        for options, seen in (([], "True"), (["--bounding-set=-sys_ptrace"], "False")):
            command = ["setpriv", *options, sys.executable, "-c", code]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == seen
        other.kill()
