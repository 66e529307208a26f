"""A process that gives up the network: no socket of any kind, from here on, for all its threads."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from federation.errors import UnavailableError

_LOAD, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06
_KILL, _EPERM, _ALLOW = 0x8000_0000, 0x0005_0001, 0x7FFF_0000
_NR, _ARCH = 0, 4
_X32: Final = 0x4000_0000
_MACHINES: Final = {"x86_64": (0xC000_003E, (41, 53, 425)), "aarch64": (0xC000_00B7, (198, 199, 425))}
"""AUDIT_ARCH, and the numbers of socket, socketpair and io_uring_setup."""
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def give_up_network() -> None:
    """Refuse every later ``socket`` call of this process (seccomp); call it before any thread is started.

    Raises:
        UnavailableError: this kernel or machine cannot; nothing is read then.
    """
    machine = _MACHINES.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if machine is not None:
        architecture, numbers = machine
        code = [(_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, architecture), (_RET, 0, 0, _KILL), (_LOAD, 0, 0, _NR)]
        code += [(_JGE, 0, 1, _X32), (_RET, 0, 0, _KILL)]
        for number in numbers:
            code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _EPERM)]
        code.append((_RET, 0, 0, _ALLOW))
        program = b"".join(struct.pack("=HBBI", *line) for line in code)
        filled = _Program(len(code), program)
        if (
            libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            and libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(filled), 0, 0) == 0
        ):
            return
    raise UnavailableError("the process that reads the data cannot give up the network here (seccomp)")
