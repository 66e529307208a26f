"""Trees that a job made, walked and removed by a trusted process: as deep, as long named and as closed as it likes.

Nothing here recurses, follows a link, or names a place by a path that the job made: such a path may be longer than the
kernel takes, and a part of it may have become a link meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

DEEPEST = 64
"""Levels of directories that are looked into; each costs a descriptor. No program of use nests deeper in its scratch."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def entries(place: Path) -> Iterator[os.stat_result]:
    """Yield the state of everything below ``place``; what goes away meanwhile is left out.

    Raises:
        OSError: a directory cannot be looked into, or lies deeper than ``DEEPEST``.
    """
    levels: list[tuple[int, list[str]]] = []
    try:
        levels.append(_opened(place))
        while levels:
            here, names = levels[-1]
            if not names:
                os.close(levels.pop()[0])
                continue
            name = names.pop()
            try:
                state = os.lstat(name, dir_fd=here)
                yield state
                if stat.S_ISDIR(state.st_mode):
                    if len(levels) == DEEPEST:
                        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                    levels.append(_opened(name, here))
            except (FileNotFoundError, NotADirectoryError):  # just removed, or something else now
                continue
    finally:
        for here, _names in levels:
            os.close(here)


def _opened(place: Path | str, parent: int | None = None) -> tuple[int, list[str]]:
    here = os.open(place, _DIRECTORY, dir_fd=parent)
    try:
        return here, os.listdir(here)
    except BaseException:
        os.close(here)
        raise


def remove_tree(place: Path) -> None:
    """Remove a file, or a directory and all in it; nobody may be left who changes it meanwhile.

    Goes up by ``..``: one level is open at a time, however many there are.
    """
    if not stat.S_ISDIR(place.lstat().st_mode):
        place.unlink()
        return
    here = os.open(place, _DIRECTORY)
    try:
        levels = [(_number(here), _unlink_files(here))]
        while True:
            folders = levels[-1][1]
            there = os.open(folders[-1] if folders else "..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
            if folders:
                levels.append((_number(here), _unlink_files(here)))
                continue
            levels.pop()
            if not levels:
                break
            number, folders = levels[-1]
            if _number(here) != number:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            os.rmdir(folders.pop(), dir_fd=here)
    finally:
        os.close(here)
    place.rmdir()


def _number(directory: int) -> tuple[int, int]:
    state = os.fstat(directory)
    return state.st_dev, state.st_ino


def _unlink_files(directory: int) -> list[str]:
    """Unlink all but directories; returns their names."""
    if os.fstat(directory).st_uid != os.geteuid():
        os.fchown(directory, os.geteuid(), -1)  # a sticky one lets its owner remove, and root only with CAP_FOWNER
    folders = []
    with os.scandir(directory) as found:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in names:
        if is_folder:
            folders.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    return folders
