"""What an attack is: a function of a job that returns what it got, with the layers that alone hold it off."""

import ctypes
import os

ATTACKS = {}
COLUMN = 0 if os.uname().machine == "x86_64" else 1
libc = ctypes.CDLL(None, use_errno=True)


class Attack:
    """One attack.

    Attributes:
        name: group and function.
        kind: ``act`` says itself what it got; ``limit`` succeeds where its job goes on; ``reply`` succeeds where what it
            replied leaves the node.
        only: layers each of which alone holds it off, at T2: without any of them it succeeds. Empty: two walls or more.
        conceded: tiers at which it succeeds, and is said to.
        codes: what the node's owner reads as the end of it, exactly, where it does not end well; more than one where
            kernel and supervisor race for it.
        bounded: tiers whose kernel refuses what is above the bound, and lets the job go on.
        slow: left to ``make attack``.
        alone: is about the session's first process, so not tried in a child of it.
    """

    def __init__(self, function, kind, only, conceded, codes, bounded, slow, alone):
        self.function = function
        self.kind = kind
        self.only = frozenset(only.split())
        self.conceded = frozenset(conceded.split())
        self.codes = frozenset(codes.split())
        self.bounded = frozenset(bounded.split())
        self.slow = slow
        self.alone = alone
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.text = " ".join((function.__doc__ or "").split())

    def __call__(self, job):
        return self.function(job)


def attack(kind="act", only="", conceded="", codes="", bounded="", slow=False, alone=False):
    """Enter a function among the attacks."""

    def enter(function):
        one = Attack(function, kind, only, conceded, codes, bounded, slow, alone)
        ATTACKS[one.name] = one
        return function

    return enter


def reaches_kernel(numbers, *arguments):
    """Whether a system call passes the filter: EPERM and ENOSYS are refusals, all else is the call itself."""
    number = numbers[COLUMN]
    if number is None:
        return False
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return result >= 0 or ctypes.get_errno() not in (1, 38)
