"""Runs a command as root in what Docker gives a container by default: no new namespaces, no mounts, few capabilities.

    python tests/integration/contained.py COMMAND...

Its capabilities are Docker's default ones, its system call filter refuses what Docker's default profile refuses and a
session of tier T2 needs. Files, network and processes stay the machine's, so that parties reach each other as ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
AUDIT_WRITE, SETFCAP."""
REFUSED = {
    "x86_64": (272, 308, 165, 166, 155, 428, 430, 432, 442),
    "aarch64": (97, 268, 40, 39, 41, 428, 430, 432, 442),
}
"""unshare, setns, mount, umount2, pivot_root, open_tree, fsopen, fsmount, mount_setattr."""
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
NEW_NAMESPACES = 0x7E02_0000

_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 24, 22, 2
_LOAD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ERRNO, _ALLOW = 0x0005_0000, 0x7FFF_0000


def confine() -> None:
    """Give up for good what a container by default does not have; raises OSError where that cannot be done."""
    machine = os.uname().machine
    code = [(_LOAD, 0, 0, 0)]
    for number in REFUSED[machine]:
        code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | errno.EPERM)]
    code += [(_JEQ, 0, 1, CLONE3), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]  # libc falls back to clone
    code += [(_JEQ, 0, 3, CLONE[machine]), (_LOAD, 0, 0, 16), (_JSET, 0, 1, NEW_NAMESPACES)]
    code += [(_RET, 0, 0, _ERRNO | errno.EPERM), (_RET, 0, 0, _ALLOW)]
    program = b"".join(struct.pack("=HBBI", *one) for one in code)
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(code), ctypes.addressof(held))
    _done(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0))
    for capability in range(64):
        if capability not in CAPABILITIES and libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # the kernel knows no more of them


def _done(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    confine()
    os.execv(sys.argv[1], sys.argv[1:])  # which leaves root the bounding set alone
