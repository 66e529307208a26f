"""The filter, judged by a small interpreter of its own program, for machines this test does not run on too."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox import _seccomp, _syscalls

ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
MACHINES = [("x86_64", 0xC000_003E, 0), ("aarch64", 0xC000_00B7, 1)]


def refused(number: int) -> int:
    return 0x0005_0000 | number


def judge(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Return what the kernel would do with a call: classic BPF over struct seccomp_data."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number - (1 << 32) if number >> 31 else number, architecture, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        operation, yes, no, value = code[position]
        position += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        else:
            true = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            position += yes if true else no


@pytest.mark.parametrize(("machine", "architecture", "column"), MACHINES)
class TestFilter:
    def test_every_listed_call_passes_and_every_other_is_refused(
        self, machine: str, architecture: int, column: int
    ) -> None:
        program = _seccomp.build_filter(machine)
        allowed = {numbers[column] for numbers in _syscalls.ALLOWED.values()}
        judged = {numbers[column] for numbers in _syscalls.JUDGED.values()}
        for number in set(range(_syscalls.NEWEST + 1)) - judged:
            wanted = ALLOW if number in allowed else refused(errno.EPERM)
            assert judge(program, architecture, number) == wanted, number
        assert judge(program, architecture, _syscalls.NEWEST + 1) == refused(errno.ENOSYS)

    def test_foreign_architecture_and_x32_kill(self, machine: str, architecture: int, column: int) -> None:
        program = _seccomp.build_filter(machine)
        getpid = (39, 172)[column]
        assert judge(program, architecture, getpid) == ALLOW
        for foreign in (0x4000_0003, 0x4000_0028, 0xC000_00F3, *(a for _, a, _ in MACHINES if a != architecture)):
            assert judge(program, foreign, getpid) == KILL
        assert judge(program, architecture, 0x4000_0000 | getpid) == KILL
        assert judge(program, architecture, 0xFFFF_FFFF) == KILL

    def test_arguments_are_judged(self, machine: str, architecture: int, column: int) -> None:
        program = _seccomp.build_filter(machine)

        def call(name: str, *arguments: int) -> int:
            number = _syscalls.JUDGED[name][column]
            assert number is not None
            return judge(program, architecture, number, *arguments)

        no = refused(errno.EPERM)
        assert call("clone", 0x003D_0F00) == ALLOW  # as pthread_create
        assert call("clone", 17) == ALLOW  # as fork
        for flag in (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000):
            assert call("clone", flag | 17) == no
        assert call("clone3") == refused(errno.ENOSYS)
        for name in ("socket", "socketpair"):
            assert [call(name, family) for family in (1, 2, 10, 16, 17, 38, 40, 1 << 32 | 2)] == [ALLOW] + [no] * 7
        assert call("ioctl", 0, 0x5401) == ALLOW
        assert call("ioctl", 0, 0x5412) == call("ioctl", 0, 0xFFFF_FFFF_0000_5412) == no
        assert call("prctl", 15) == ALLOW
        assert call("prctl", 1, 0) == refused(0)
        assert [call("prctl", option) for option in (4, 8, 22, 24, 36, 47)] == [no] * 6


def test_lists_are_disjoint_and_within_the_newest() -> None:
    assert not set(_syscalls.ALLOWED) & set(_syscalls.JUDGED)
    for numbers in (*_syscalls.ALLOWED.values(), *_syscalls.JUDGED.values()):
        assert all(number is None or 0 <= number <= _syscalls.NEWEST for number in numbers)


def test_digest_names_the_program() -> None:
    one, two = (_seccomp.build_filter(machine) for machine, _, _ in MACHINES)
    assert _seccomp.filter_digest(one) != _seccomp.filter_digest(two)
    assert _seccomp.filter_digest(one) == _seccomp.filter_digest(_seccomp.build_filter("x86_64"))
    assert len(one) // 8 < 4096  # what the kernel takes
