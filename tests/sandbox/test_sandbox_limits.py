"""inv8: a session's totals are bounded, and the bound that ended it is named."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sandbox import Ending, Limits

MIB = 1 << 20
Run = Callable[..., tuple[Ending, str, str]]


def test_fork_bomb(run: Run) -> None:
    code = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    assert run(code, limits=Limits(processes=40))[0] == Ending("limit", "processes")


def test_thread_bomb(run: Run) -> None:
    code = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"
    assert run(code, limits=Limits(processes=40))[0] == Ending("limit", "processes")


def test_processes_have_a_bound_of_the_kernel_too(run: Run) -> None:
    """Between two looks of the supervisor the kernel holds the number."""
    code = """
import os, time
count = 0
try:
    while count < 2000:
        if os.fork() == 0: time.sleep(99)
        count += 1
except OSError: pass
print(count, flush=True); time.sleep(99)
"""
    ending, out, _ = run(code, limits=Limits(processes=40))
    assert ending == Ending("limit", "processes")
    assert not out or int(out) <= 60


def test_memory_bomb(run: Run) -> None:
    code = "import time\nkept = []\nwhile True: kept.append(bytearray(b'x' * 4_000_000)); time.sleep(0.005)"
    assert run(code, limits=Limits(memory_bytes=128 * MIB))[0] == Ending("limit", "memory")


def test_memory_of_many_processes_is_one_sum(run: Run) -> None:
    code = "import os, time\nos.fork(); os.fork()\nkept = bytearray(b'x' * 60_000_000)\ntime.sleep(99)"
    assert run(code, limits=Limits(memory_bytes=160 * MIB))[0] == Ending("limit", "memory")


def test_memory_shared_by_forks_counts_once(run: Run) -> None:
    # written in place: a copy on its way would count as well
    fill = "kept = bytearray(60_000_000)\nfor at in range(0, len(kept), 4096): kept[at] = 1"
    code = f"import os, time\n{fill}\nos.fork(); os.fork()\ntime.sleep(1)"
    assert run(code, limits=Limits(memory_bytes=160 * MIB))[0] == Ending("exited", exit_code=0)


def test_shared_mappings_count(run: Run) -> None:
    code = "import mmap, time\nkept = mmap.mmap(-1, 200_000_000)\nkept.write(b'x' * 200_000_000)\ntime.sleep(99)"
    assert run(code, limits=Limits(memory_bytes=128 * MIB))[0] == Ending("limit", "memory")


def test_one_huge_allocation_fails_at_once(run: Run) -> None:
    ending, _, errors = run("bytearray(8 << 30)", limits=Limits(memory_bytes=128 * MIB))
    assert ending == Ending("exited", exit_code=1)
    assert "MemoryError" in errors


def test_spin_ends_at_processor_time(run: Run) -> None:
    ending = run("import os\nos.fork()\nwhile True: pass", limits=Limits(cpu_seconds=0.5))[0]
    assert ending == Ending("limit", "cpu")


def test_hang_ends_at_wall_clock(run: Run) -> None:
    started = time.monotonic()
    code = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(999)"
    assert run(code, limits=Limits(wall_seconds=0.5))[0] == Ending("limit", "wall")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/work"])
def test_full_scratch(run: Run, place: str) -> None:
    code = f"""
import time
file = open("{place}/fill", "wb", buffering=0)
try:
    while True: file.write(bytes(1 << 20))
except OSError as error: print(error.errno, flush=True)
time.sleep(99)
"""
    small = 8 * MIB
    limits = Limits(scratch_bytes=small, shm_bytes=small)
    ending, out, _ = run(code, limits=limits, scratch={"/work": small})
    assert ending == Ending("limit", "disk")
    assert out.strip() in ("", "28")  # ENOSPC, where the job saw it before its end


def test_scratch_files(run: Run) -> None:
    code = "import time\nfor n in range(10**9): open(f'/tmp/{n}', 'w').close()"
    assert run(code, limits=Limits(scratch_files=2000))[0] == Ending("limit", "disk")


def test_one_file(run: Run) -> None:
    code = "open('/tmp/f', 'wb').write(bytes(3 << 20))"
    ending, _, errors = run(code, limits=Limits(file_bytes=2 * MIB))
    assert ending == Ending("exited", exit_code=1)
    assert "File too large" in errors


def test_open_files(run: Run) -> None:
    code = "kept = [open('/dev/null') for _ in range(100)]"
    ending, _, errors = run(code, limits=Limits(open_files=50))
    assert ending == Ending("exited", exit_code=1)
    assert "Too many open files" in errors


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_flood_of_output(run: Run, stream: str) -> None:
    ending, out, errors = run(
        f"import sys\nwhile True: sys.{stream}.write('x' * 65536)", limits=Limits(output_bytes=MIB)
    )
    assert ending == Ending("limit", "output")
    assert len(out if stream == "stdout" else errors) == MIB


def test_long_output_is_cut_and_the_job_goes_on(run: Run) -> None:
    ending, out, _ = run("print('x' * 30_000, end='')\nprint('y' * 30_000)", limits=Limits(output_bytes=10_000))
    assert ending == Ending("exited", exit_code=0)
    assert out == "x" * 10_000


def test_output_up_to_the_end_is_kept(run: Run) -> None:
    ending, out, _ = run("import os\nos.write(1, b'x' * 60_000)\nos._exit(7)")
    assert ending == Ending("exited", exit_code=7)
    assert len(out) == 60_000
