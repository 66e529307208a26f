"""What both kinds of session do before user code is imported: take hold of the channel, lay out the imports."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from .frames import FILE_FROM, Channel

CHANNEL_VARIABLE = "KEYONG_CHANNEL_FD"
MAX_BODY = 2**40  # what comes in is from the trusted side; the session's own memory limit bounds it
_HEAVY = frozenset({"torch", "pandas", "pyarrow", "scipy", "sklearn"})  # the runtime's own, imported late if at all


def open_channel() -> Channel:
    """Return the channel whose descriptor the environment names, out of reach of what inherits stdin, stdout or stderr.

    The descriptor is moved above 2 and closed in every child, so that an app's prints and an app's worker processes
    cannot write into a frame by accident. (That they do it on purpose is for the trusted side to survive.)
    """
    given = int(os.environ.pop(CHANNEL_VARIABLE))
    moved = fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 3)
    if given <= 2:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, given)
        os.close(null)
    else:
        os.close(given)
    channel = Channel(socket.socket(fileno=moved))
    os.register_at_fork(after_in_child=channel.close)
    return channel


class _RuntimeFirst(MetaPathFinder):
    """Finds the standard library's and the runtime's own modules before the app's folder is searched.

    Else an app's ``queue.py`` or ``secrets.py`` would become the standard library's for everything imported after it.
    Any other name is the app's if the app has it, also where some package has a top-level ``tests`` or ``task`` of its
    own.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._names = frozenset(sys.stdlib_module_names) | _HEAVY

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self._names:
            return None
        return PathFinder.find_spec(fullname, [entry for entry in sys.path if entry != self._app])


def lay_out_imports(app: Path) -> None:
    """Make the app's modules importable, after all of ours and Flower's have been imported.

    The working directory leaves ``sys.path``: a server part writes into it.
    """
    ours = Path(__file__).resolve().parent.parent
    here = Path.cwd()
    sys.path[:] = [
        entry for entry in sys.path if entry and (Path(entry).resolve() == ours or Path(entry).resolve() != here)
    ]
    sys.path.insert(0, str(app))  # where Flower puts it
    sys.meta_path.insert(0, _RuntimeFirst(str(app)))
    sys.dont_write_bytecode = True


def collect(size: int) -> None:
    """Give back the messages of an exchange that nobody holds any more, where a body of it was large.

    Flower's RecordDict refers to itself, so that counting references never frees one; without this each exchange
    would leave a model behind until Python looks for cycles by itself, which is many rounds later.
    """
    if size >= FILE_FROM:
        gc.collect()


def finish() -> None:
    """Leave the process now, logs written, whatever threads the app has left running."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def integer(header: Mapping[str, object], key: str) -> int:
    """Return a whole number from a frame of the trusted side."""
    value = header[key]
    if not isinstance(value, int):
        raise TypeError(key)
    return value


def table(header: Mapping[str, object], key: str) -> dict[str, object]:
    """Return an object from a frame of the trusted side; an empty one where the key is missing."""
    value = header.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(key)
    return value
