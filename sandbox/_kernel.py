"""What is asked of the kernel, and the few calls that Python's library does not have, each raising ``OSError`` on failure.

They act on the calling thread alone (``unshare``, ``prctl``), which is what lets one thread of a large process
prepare a session while the others go on untouched.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from sandbox._seccomp import MACHINES
from sandbox.errors import SandboxError

LANDLOCK_ABI = 3
"""Least version of Landlock: with 3 (Linux 6.2) no way to change a file, truncation included, is left out."""

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x0002_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
_LANDLOCK_CREATE_RULESET_VERSION = 1


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare_mounts() -> None:
    """Give the calling thread a mount table of its own, from which nothing flows back."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount(None, Path("/"), None, MS_REC | MS_PRIVATE)


def mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount, as mount(2)."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, str(target), kind, options)]
    _check(_libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[3]), "mount")


def forbid_new_privileges() -> None:
    """Take from the calling thread, and all that it starts, the way to gain privileges by exec."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def drop_bounding_set() -> None:
    """Take every capability from what the calling thread starts; raise where one cannot be taken."""
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "capability bounding set")


def landlock_abi() -> int:
    """Return the version of Landlock that this kernel offers; 0 where it has none or it is off."""
    version = _libc.syscall(
        ctypes.c_long(_SYS_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION
    )
    return max(int(version), 0)


def check_kernel() -> str:
    """Return the machine's architecture; raise where its kernel lacks what every tier rests on."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise SandboxError(
            "there is no system call filter for {machine}", code="layer", hint="use x86_64 or aarch64", machine=machine
        )
    abi = landlock_abi()
    if abi < LANDLOCK_ABI:
        raise SandboxError(
            "this kernel offers Landlock {abi}; {needed} is needed",
            code="layer",
            hint="use Linux 6.2 or newer, with landlock among the modules of the kernel's lsm= parameter",
            abi=abi,
            needed=LANDLOCK_ABI,
        )
    return machine
