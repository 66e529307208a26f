"""A session's memory, arranged once its code is loaded: what stays is not looked through again, and goes soon at its end."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1


def settle() -> None:
    """Take what is loaded by now, modules above all, out of what Python looks through, and into huge pages.

    50,000 small pages that a kill would have to give back one by one take longer than a revocation may, and each process
    that the job forks has them once more. Where the kernel knows no such pages, memory stays as it is.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    try:
        rows = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:  # a kernel that shows none (gVisor's)
        return
    for row in rows:
        fields = row.split()
        first, last = (int(part, 16) for part in fields[0].split("-"))
        if fields[1] == "rw-p" and fields[5:] in ([], ["[heap]"]) and last - first >= HUGE_PAGE_BYTES:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _COLLAPSE)
