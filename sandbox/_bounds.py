"""Narrows what the kernel holds for a process that runs already: by prlimit(2), under that process's own uid if need be."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Mapping

_SECONDS = 10.0
_AS_ITS_UID = """
import resource, sys
for item in sys.argv[2:]:
    number, bound = map(int, item.split(":"))
    most = min(bound, resource.prlimit(int(sys.argv[1]), number)[1] % (1 << 64))
    resource.prlimit(int(sys.argv[1]), number, (most, most))
"""


_WHEN_TOLD = """
import resource, sys
for item in sys.stdin.readline().split():
    number, bound = map(int, item.split(":"))
    most = min(bound, resource.prlimit(int(sys.argv[1]), number)[1] % (1 << 64))
    resource.prlimit(int(sys.argv[1]), number, (most, most))
"""


class WaitingBounds:
    """A process of a session's uid that waits for the word to narrow its bounds: its start would take longer than the
    rest of a hand-over. It ends with that word, before the session has its work, or with whoever could say it.

    Args:
        process: the session's first, by host pid.
        uid: the session's own.
    """

    def __init__(self, process: int, uid: int) -> None:
        self._helper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WHEN_TOLD, str(process)],
            env={},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=[],
        )

    def narrow(self, bounds: Mapping[int, int]) -> None:
        """Let the session have no more than this from now on; once.

        Raises:
            OSError: it cannot be done, or one of the two processes is gone.
        """
        told = " ".join(f"{number}:{bound}" for number, bound in bounds.items()) + "\n"
        try:
            self._helper.communicate(told.encode(), timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self.close()
        if self._helper.returncode:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None

    def close(self) -> None:
        """End it, told or not."""
        self._helper.kill()
        self._helper.communicate()


def may_narrow(process: int) -> bool:
    """Whether this process may narrow another uid's bounds itself."""
    try:
        resource.prlimit(process, resource.RLIMIT_CORE, resource.prlimit(process, resource.RLIMIT_CORE))
    except PermissionError:
        return False
    return True


def narrow_bounds(process: int, uid: int | None, bounds: Mapping[int, int]) -> None:
    """Let a process, and all that it starts from now on, have no more than this; what is lower already stays.

    Root without CAP_SYS_RESOURCE, as in most containers, may not change another uid's process; a process of that uid
    may. It must not run anything of a job yet: the two could look at each other.

    Args:
        process: by host pid.
        uid: its uid where root gave it one of its own.
        bounds: by resource.

    Raises:
        OSError: it cannot be done, or the process is gone.
    """
    try:
        for number, bound in bounds.items():
            most = min(bound, resource.prlimit(process, number)[1] % (1 << 64))
            resource.prlimit(process, number, (most, most))
    except PermissionError:
        if uid is None:
            raise
        command = [sys.executable, "-I", "-S", "-c", _AS_ITS_UID, str(process)]
        done = subprocess.run(
            [*command, *(f"{number}:{bound}" for number, bound in bounds.items())],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            user=uid,
            group=uid,
            extra_groups=[],
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
