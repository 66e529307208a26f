"""A service's threads share few arenas, so that what one job leaves free serves the next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyong.cli._allocator import ARENAS

ROOT = Path(__file__).resolve().parents[2]
THREADS = """
import ctypes, sys, threading
from keyong.cli._allocator import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
libc, together = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]


def allocate():
    together.wait()
    libc.malloc(100_000)  # ctypes lets the others run meanwhile
    together.wait()


threads = [threading.Thread(target=allocate) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fopen(b"/proc/self/fd/1", b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc alone")
@pytest.mark.parametrize("form", ["shared", "apart"])
def test_threads_share_arenas(form: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS, form],
        env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout.count("<heap nr=") <= ARENAS) is (form == "shared"), done.stdout[:2000]


PIECES = """
import ctypes, resource, sys
from keyong.cli._allocator import share_arenas

if sys.argv[1] == "kept":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def pass_on():
    pieces = [libc.malloc(1 << 20) for _ in range(8)]
    for piece in pieces:
        ctypes.memset(piece, 1, 1 << 20)
    for piece in pieces:
        libc.free(piece)


pass_on()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    pass_on()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc alone")
@pytest.mark.parametrize("form", ["kept", "given back"])
def test_pieces_of_a_model_take_the_same_pages_again(form: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PIECES, form],
        env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    pages = 20 * 8 * 256
    assert (int(done.stdout) < pages // 10) is (form == "kept"), done.stdout
