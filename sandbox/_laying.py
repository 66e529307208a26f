"""Lays files where a session will read them: hard links where source and target share a disk, else copies."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


def make_directory(directory: Path, mode: int) -> None:
    """Make a directory with exactly this mode, whatever the umask; one that is there stays as it is."""
    with suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(mode)


def lay(source: Path, target: Path) -> None:
    """Put a file or a tree at ``target``, with the modes it has; a directory that is there already takes the tree in.

    Raises:
        OSError: there is no room, or the source cannot be read.
    """
    if not source.is_dir():
        _link_or_copy(source.resolve(), target)
        return
    make_directory(target, stat.S_IMODE(source.stat().st_mode) | 0o700)
    for directory, folders, files in os.walk(source):
        there = target / Path(directory).relative_to(source)
        for name in folders + files:
            entry = Path(directory, name)
            if entry.is_symlink():
                (there / name).symlink_to(entry.readlink())
            elif name in folders:
                make_directory(there / name, stat.S_IMODE(entry.stat().st_mode) | 0o700)
            else:
                _link_or_copy(entry, there / name)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another disk
        shutil.copyfile(source, target, follow_symlinks=False)
        shutil.copymode(source, target, follow_symlinks=False)
