"""inv8: a session at its limits is named and ended, and one beside it has all that it was given, whoever holds the limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sandbox import Ending, Limits, Report, SessionSpec, Tier, open_session
from sandbox._cgroup import open_group
from sandbox.canary import empty_runtime
from sandbox.session import Session

MIB = 1 << 20
LIMITS = Limits(
    memory_bytes=96 * MIB, processes=40, scratch_bytes=8 * MIB, shm_bytes=8 * MIB, scratch_files=500,
    output_bytes=64 << 10, wall_seconds=60.0,
)  # fmt: skip
WAIT = "import time; time.sleep(99)"
BOMBS = {
    "memory": f"kept = [bytearray(b'x' * 4_000_000) for _ in range(40)]; {WAIT}",
    "processes": "import os, time\nwhile True:\n try: os.fork()\n except OSError: pass",
    "disk": f"import os\nfor n in range(600): open(os.environ['TMPDIR'] + f'/{{n}}', 'w').close()\n{WAIT}",
    "output": "while True: print('x' * 60_000)",
}
WORK = """
import os, threading
kept = bytearray(b"x" * 40_000_000)
with open(os.environ["TMPDIR"] + "/all-of-it", "wb") as file:
    file.write(bytes(7 << 20))
threads = [threading.Thread(target=sum, args=(range(20_000),)) for _ in range(30)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("x" * 60_000)
"""


class Polled(Session):
    """The supervisor alone holds, as where no control group may be made."""

    _without = frozenset({"cgroup"})


@pytest.fixture(params=["T2 cgroup", "T2 supervisor", "T1 supervisor"])
def opener(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[SessionSpec], Session], Tier, str]]:
    tier, by = request.param.split()
    if tier == "T1" and os.geteuid() != 0:
        pytest.skip("T1 needs root")
    if by == "cgroup":
        group = open_group()
        if group is None:
            pytest.skip("this process may make no control group")
        group.remove()
    yield open_session if by == "cgroup" else Polled, Tier(tier), by


def test_each_bomb_is_named_and_its_neighbour_does_not_feel_it(
    machine: Report, opener: tuple[Callable[[SessionSpec], Session], Tier, str]
) -> None:
    start, tier, by = opener
    with empty_runtime() as runtime, ExitStack() as stack:

        def run(code: str) -> Session:
            return stack.enter_context(start(SessionSpec(runtime, ("-c", code), limits=LIMITS, tier=tier)))

        work = run(f"import os; os.read(3, 1)\n{WORK}")
        assert work.evidence.limits_by == by
        bombs = {name: run(code) for name, code in BOMBS.items()}
        work.channel.send(b"1")  # while they go off
        assert work.wait(60) == Ending("exited", exit_code=0), work.stderr()
        assert len(work.stdout()) == 60_001
        assert {name: bomb.wait(60) for name, bomb in bombs.items()} == {name: Ending("limit", name) for name in BOMBS}
