"""The system call filter: an allow-list as a classic BPF program, built by hand.

Order: a foreign architecture or x32 call kills the process; calls that cannot be judged by number look at one argument;
listed calls pass; calls newer than the list do not exist (ENOSYS); everything else is refused (EPERM).
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Iterable
from functools import lru_cache

from sandbox._syscalls import ALLOWED, JUDGED, NEWEST

_LOAD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_KILL, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_NR, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data; low words, little endian
_X32 = 0x4000_0000

MACHINES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}

_AF_UNIX = 1
# Without a network namespace (T1), a socket of any kind may reach another's, by path or by name. Pairs that are born
# connected cannot; a datagram pair can be connected anew, so only stream and seqpacket pairs are left.
_PAIRED = (1, 5)
_ADDRESSING = ("accept", "accept4", "bind", "connect", "listen")
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME cannot be asked of clone().
_NEW_NAMESPACES = 0x7E02_0000
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS2. TIOCSTI and every device's own are thereby refused.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C_542A)
# GET_PDEATHSIG, GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, SET/GET_TIMERSLACK, SET/GET_NO_NEW_PRIVS,
# SET/GET_THP_DISABLE, SVE_GET_VL, SET_VMA (names of mappings).
_PRCTLS = (2, 3, 15, 16, 21, 23, 29, 30, 38, 39, 41, 42, 51, 0x5356_4D41)
_PR_SET_PDEATHSIG = 1

_Code = list[tuple[int, int, int, int]]


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RET, 0, 0, _ERRNO | number)


def _only(offset: int, values: Iterable[int], denied: int) -> _Code:
    """Judge one argument by a list of values; the program ends here either way."""
    code: _Code = [(_LOAD, 0, 0, offset)]
    for value in values:
        code += [(_JEQ, 0, 1, value), (_RET, 0, 0, _ALLOW)]
    return [*code, _refuse(denied)]


def _pairs() -> _Code:
    code: _Code = [(_LOAD, 0, 0, _ARGUMENT_0), (_JEQ, 1, 0, _AF_UNIX), _refuse(errno.EPERM)]
    code += [(_LOAD, 0, 0, _ARGUMENT_1), (_AND, 0, 0, 0xF)]  # the type without SOCK_NONBLOCK and SOCK_CLOEXEC
    for kind in _PAIRED:
        code += [(_JEQ, 0, 1, kind), (_RET, 0, 0, _ALLOW)]
    return [*code, _refuse(errno.EPERM)]


def _judgements(*, sockets: bool) -> dict[str, _Code]:
    prctl = _only(_ARGUMENT_0, _PRCTLS, errno.EPERM)
    # The death signal is what ends the session with its supervisor, so a job must not clear it. Libraries set one for
    # their own workers (torch.multiprocessing); they are told it worked: workers end with the session anyhow.
    prctl[1:1] = [(_JEQ, 0, 1, _PR_SET_PDEATHSIG), _refuse(0)]
    return {
        "clone": [
            (_LOAD, 0, 0, _ARGUMENT_0),
            (_JSET, 0, 1, _NEW_NAMESPACES),
            _refuse(errno.EPERM),
            (_RET, 0, 0, _ALLOW),
        ],
        "clone3": [
            _refuse(errno.ENOSYS)
        ],  # its flags lie in memory, where a filter cannot look; libc falls back to clone
        "socket": _only(_ARGUMENT_0, (_AF_UNIX,), errno.EPERM) if sockets else [_refuse(errno.EPERM)],
        "socketpair": _only(_ARGUMENT_0, (_AF_UNIX,), errno.EPERM) if sockets else _pairs(),
        "ioctl": _only(_ARGUMENT_1, _IOCTLS, errno.EPERM),
        "prctl": prctl,
    }


@lru_cache
def build_filter(machine: str, *, sockets: bool = True) -> bytes:
    """Return the filter for ``machine`` as an array of ``struct sock_filter``.

    Args:
        machine: as ``os.uname().machine`` names it; one of ``MACHINES``.
        sockets: whether local sockets (``AF_UNIX``) may be made, which only a network namespace makes safe.

    Raises:
        KeyError: no filter exists for this machine.
    """
    architecture, column = MACHINES[machine]
    code: _Code = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, architecture),
        (_RET, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
        (_JGE, 0, 1, _X32),
        (_RET, 0, 0, _KILL),
    ]
    for name, judgement in _judgements(sockets=sockets).items():
        number = JUDGED[name][column]
        if number is not None:
            code += [(_JEQ, 0, len(judgement), number), *judgement]
    for name, numbers in ALLOWED.items():
        number = numbers[column]
        if number is not None and (sockets or name not in _ADDRESSING):
            code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ALLOW)]
    code += [(_JGE, 0, 1, NEWEST + 1), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]
    return b"".join(struct.pack("=HBBI", operation, yes, no, value) for operation, yes, no, value in code)


def filter_digest(program: bytes) -> str:
    """Return the name of a filter in evidence: ``sha256:`` and the digest of its bytes."""
    return "sha256:" + hashlib.sha256(program).hexdigest()
