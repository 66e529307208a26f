"""A session's memory is had in huge pages, which its end gives back at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import Ending, _launch

HEAP = """
kept = [bytes(100_000) for _ in range(100)]
rows = open("/proc/self/smaps").read().split("[heap]")[1].splitlines()
print("hg" in next(row for row in rows if row.startswith("VmFlags:")).split())
"""


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="a kernel without huge pages")
@pytest.mark.skipif(
    tuple(map(int, (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0.0").split()[1].split(".")[:2])) < (2, 35),
    reason="a C library that knows no huge pages",
)
@pytest.mark.parametrize("told", [True, False])
def test_what_a_job_allocates_is_asked_for_in_huge_pages(
    run: Callable[..., tuple[Ending, str, str]], monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Only where the C library finds at its start what it looks for: the job sees no /sys else."""
    if not told:
        monkeypatch.setattr(_launch, "HUGE_PAGES", {})
    _, out, errors = run(HEAP)
    assert out == f"{told}\n", errors


def test_a_job_sees_nothing_else_of_the_kernels_settings(run: Callable[..., tuple[Ending, str, str]]) -> None:
    """The files are the same on every machine; Landlock lets nobody read them once the session has begun."""
    places = ["/sys", "/sys/kernel", *_launch.HUGE_PAGES]
    code = "import os, sys\nfor place in sys.argv[1:]:\n    try: os.open(place, os.O_RDONLY)\n    except OSError: print('no')"
    _, out, _ = run(code, *places)
    assert out == "no\n" * len(places)
