"""Figures of this process and its disk that no library counts."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write where this folder lies."""
    return shutil.disk_usage(folder).free


def spooled_bytes(folder: Path) -> int:
    """Bytes of message bodies that this process holds in a spool folder.

    They lie in unlinked files, which no listing of the folder shows: the process's own descriptors and maps do.
    """
    below = f"{folder.resolve()}/"
    return _open_files(below) + _mapped(below)


def _open_files(below: str) -> int:
    size = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in between
            if str(link.readlink()).startswith(below):
                size += link.stat().st_size
    return size


def _mapped(below: str) -> int:
    size = 0
    with Path("/proc/self/maps").open(encoding="utf-8", errors="replace", buffering=2**16) as maps:
        for line in maps:
            parts = line.split(maxsplit=5)
            if len(parts) == 6 and parts[5].startswith(below):
                start, _, end = parts[0].partition("-")
                size += int(end, 16) - int(start, 16)
    return size
