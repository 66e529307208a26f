"""Services have short turns at the processor; what runs in a session has the machine's own, whoever started it."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from concurrent.futures import Future

import pytest

from sandbox import Report, Runtime, SessionSpec, Tier, open_session, session
from sandbox.canary import empty_runtime
from sandbox.turns import SHORT_NANOSECONDS, have_short_turns

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def turns(process: int) -> int:
    """Nanoseconds that a process computes in turn; 0 where the kernel does not say."""
    place = ctypes.create_string_buffer(_ATTRIBUTES.size)
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SCHED_GETATTR[os.uname().machine])
    assert libc.syscall(number, process, place, _ATTRIBUTES.size, 0) == 0, os.strerror(ctypes.get_errno())
    return int(_ATTRIBUTES.unpack(place.raw)[5])


@pytest.fixture
def usual() -> int:
    """The machine's own turns."""
    found = turns(0)
    if not found:
        pytest.skip("this kernel knows no turns of one's own: Linux 6.12 does")
    return found


def in_service(tier: Tier) -> tuple[int, int, int]:
    """Turns and niceness of a thread that asked for short ones, and turns of a session that it opened."""
    told: Future[tuple[int, int, int]] = Future()

    def serve() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
            have_short_turns()
            code = "import time; time.sleep(99)"
            with empty_runtime() as runtime, open_session(SessionSpec(runtime, ("-c", code), tier=tier)) as opened:
                assert opened._started is not None
                told.set_result(
                    (turns(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), turns(opened._started.init))
                )
        except BaseException as error:
            told.set_exception(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    return told.result()


@pytest.mark.parametrize("tier", [Tier.T2, Tier.T1])
def test_a_session_does_not_inherit_the_short_turns_of_its_service(usual: int, machine: Report, tier: Tier) -> None:
    if tier is Tier.T1 and os.geteuid() != 0:
        pytest.skip("T1 needs root")
    assert in_service(tier) == (SHORT_NANOSECONDS, 3, usual)
    assert usual > SHORT_NANOSECONDS


def test_it_would_inherit_them_if_nobody_gave_it_the_usual_ones(
    usual: int, machine: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "have_usual_turns", lambda process: None)
    assert in_service(Tier.T2) == (SHORT_NANOSECONDS, 3, SHORT_NANOSECONDS)


def test_a_job_may_not_take_shorter_ones(runtime: Runtime) -> None:
    code = f"import ctypes; print(ctypes.CDLL(None).syscall({314 if os.uname().machine == 'x86_64' else 274}, 0, bytes(48), 0))"
    with open_session(SessionSpec(runtime, ("-c", code))) as opened:
        opened.wait(60)
        assert opened.stdout() == b"-1\n"
