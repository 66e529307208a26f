"""A session's memory, arranged once its code is loaded: what stays is not looked through again, and goes soon at its end."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20
_DONTNEED, _COLLAPSE = 4, 25  # MADV_COLLAPSE: Linux 6.1
_LEAST_KILOBYTES = 64
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)\n((?:\w+:.*\n?)*)", re.MULTILINE)
_COUNT = re.compile(r"^(\w+): *(\d+) kB$", re.MULTILINE)


def settle() -> None:
    """Take what is loaded by now, modules above all, out of what Python looks through, and make few pages of it.

    50,000 small pages that a kill would have to give back one by one take longer than a revocation may, and each process
    that the job forks has them once more. Modules' objects go into huge pages; of libraries' code, most of which ran as it
    was loaded and never again, the job has in its page tables what it uses from now on. Where the kernel knows no huge
    pages, or shows no mappings, memory stays as it is.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    try:
        smaps = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for place, size, advice in _advised(smaps):
        libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), advice)


def _advised(smaps: str) -> Iterator[tuple[int, int, int]]:
    """Address, bytes and advice for each mapping of a process to which one applies."""
    mappings = [(*found[:4], dict(_COUNT.findall(found[4]))) for found in _MAPPING.findall(smaps)]
    code = {name for _, _, rights, name, _ in mappings if rights == "r-xp" and name.startswith("/")}
    for first, last, rights, name, counts in mappings:
        place, size = int(first, 16), int(last, 16) - int(first, 16)
        if rights == "rw-p" and name in ("", "[heap]") and size >= HUGE_PAGE_BYTES:
            yield place, size, _COLLAPSE
        elif rights in ("r-xp", "r--p") and name in code and int(counts["Rss"]) >= _LEAST_KILOBYTES and _clean(counts):
            yield place, size, _DONTNEED


def _clean(counts: Mapping[str, str]) -> bool:
    """Whether nothing was ever written there: neither what is in memory nor what is swapped out by now."""
    return counts.get("Anonymous") == counts.get("Swap") == "0"
