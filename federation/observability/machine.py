"""Figures of this process and its disk that no library counts."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write where this folder lies."""
    return shutil.disk_usage(folder).free


def spooled_bytes(folder: Path) -> int:
    """Bytes of message bodies that this process holds in a spool folder.

    They lie in unlinked files, which no listing of the folder shows: the process's own descriptors and maps do.
    """
    below = f"{folder.resolve()}/"
    files = _open_files(below)
    return sum(files.values()) + sum(size for inode, size in _mapped(below) if inode not in files)


def _open_files(below: str) -> dict[int, int]:
    sizes = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in between
            if str(link.readlink()).startswith(below):
                found = link.stat()
                sizes[found.st_ino] = found.st_size
    return sizes


def _mapped(below: str) -> Iterator[tuple[int, int]]:
    with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
        for line in maps:
            parts = line.split(maxsplit=5)
            if len(parts) == 6 and parts[5].startswith(below):
                start, _, end = parts[0].partition("-")
                yield int(parts[4]), int(end, 16) - int(start, 16)
