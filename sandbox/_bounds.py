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
