"""A session on standby, and root that may not change another uid's bounds: a helper waits for the word, and for nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandbox import Ending, Limits, Mount, SandboxError, SessionSpec, Tier, open_session
from sandbox import session as sessions
from sandbox.canary import empty_runtime
from sandbox.session import Session

MIB = 1 << 20
WORK = "import os\nos.read(3, 1)\nimport resource\nos.write(3, str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]).encode())"
LIMITS = Limits(open_files=77, memory_bytes=512 * MIB, wall_seconds=60)

pytestmark = pytest.mark.usefixtures("root_only", "machine")


@pytest.fixture(params=[Tier.T2, Tier.T1])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tier:
    """As in a container whose root has no CAP_SYS_RESOURCE."""
    monkeypatch.setattr(sessions, "may_narrow", lambda process: False)
    tier: Tier = request.param
    return tier


def standby(runtime: object, place: Path, tier: Tier) -> Session:
    spec = SessionSpec(
        runtime,  # type: ignore[arg-type]
        ("-c", WORK),
        mounts=(Mount(place, "/data"),),
        limits=Limits(memory_bytes=1 << 40),
        tier=tier,
        standby=True,
    )
    return open_session(spec)


def of_uid(uid: int) -> set[int]:
    """Processes of a uid that have not ended."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{name}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if str(uid) in fields["Uid"].split() and fields["State"].split()[0] not in "ZX":
            found.add(int(name))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    place.chmod(0o755)
    return place


def test_bounds_are_narrowed_and_the_helper_is_gone_before_there_is_work(tier: Tier, place: Path) -> None:
    with empty_runtime() as runtime, standby(runtime, place, tier) as session:
        started = session._started
        assert started is not None and started.uid is not None
        waiting = of_uid(started.uid)
        assert len(waiting) == 2 + (tier is Tier.T2), (
            "the session, its monitor at T2, and who waits to narrow its bounds"
        )
        session.engage(LIMITS, {})
        assert len(of_uid(started.uid)) == len(waiting) - 1
        session.channel.send(b"1")
        session.channel.settimeout(60)
        assert session.channel.recv(16) == b"77"
        assert session.wait(60) == Ending("exited", exit_code=0)


def test_nobody_is_left_of_a_session_that_never_had_work(tier: Tier, place: Path) -> None:
    with empty_runtime() as runtime:
        session = standby(runtime, place, tier)
        started = session._started
        assert started is not None and started.uid is not None
        session.close()
        assert not of_uid(started.uid)
        session = standby(runtime, place, tier)
        assert session._started is not None and session._started.uid is not None
        os.kill(session.pid, 9)  # it ends by itself
        session.wait(60)
        end = time.monotonic() + 10
        while of_uid(session._started.uid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not of_uid(session._started.uid)
        session.close()


def test_a_helper_that_is_gone_narrows_nothing_and_the_session_gets_no_work(tier: Tier, place: Path) -> None:
    with empty_runtime() as runtime, standby(runtime, place, tier) as session:
        assert session._waiting is not None
        session._waiting._helper.kill()
        session._waiting._helper.wait()
        with pytest.raises(SandboxError, match="not on standby"):
            session.engage(LIMITS, {})
