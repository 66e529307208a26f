"""T0 isolates nothing and is never fallen back to; what it keeps is the shape of a session: channel, limits, its end."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import Runtime, SandboxError, SessionSpec, Tier, open_session, probe, prove_tier

PROJECT = Path(__file__).parents[2]
USER = 65534
START = """
import json, os, sys, time
from pathlib import Path
from sandbox import Limits, Mount, Runtime, SessionSpec, Tier, open_session, prove_tier
base = Path(os.environ["BASE"])
(base / "runtime/site-packages").mkdir(parents=True)
(base / "data").mkdir()
(base / "data/rows.csv").write_text("x\\n1\\n")
def session(code, **given):
    runtime = Runtime(base / "runtime", "sha256:of-a-test")
    return open_session(SessionSpec(runtime, ("-c", code, "/data/rows.csv"), tier=Tier.T0, **given))
def tell(**what):
    print(json.dumps(what), flush=True)
"""

Ordinary = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def base() -> Iterator[Path]:
    """Where one test's service keeps all it has; its sessions have it among their arguments."""
    with tempfile.TemporaryDirectory(prefix="keyong-t0-") as name:
        if os.geteuid() == 0:
            os.chown(name, USER, USER)
        yield Path(name)


@pytest.fixture
def ordinary(base: Path) -> Ordinary:
    """Start a service's code as an ordinary user, whoever runs the tests."""
    closed = [place for place in (PROJECT, *PROJECT.parents) if not place.stat().st_mode & stat.S_IXOTH]
    if os.geteuid() == 0 and closed:
        pytest.skip(f"an ordinary user cannot read this project: {closed[-1]} is closed")

    def start(code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START + code],
            cwd=PROJECT,
            env={"BASE": str(base), "TMPDIR": str(base), "PYTHONPATH": str(PROJECT), "SECRET": "of the service"},
            stdout=subprocess.PIPE,
            text=True,
            **({"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}),
        )

    return start


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_session_sees_its_channel_its_mounts_and_no_variable_of_the_service(ordinary: Ordinary) -> None:
    found = told(
        ordinary(
            """
code = '''import json, os, sys
os.write(3, json.dumps([open(sys.argv[1]).read(), dict(os.environ), os.listdir(os.environ["TMPDIR"]), os.getpid(),
    sorted(map(int, os.listdir("/proc/self/fd")))[:-1]]).encode())'''
with session(code, mounts=(Mount(base / "data", "/data"),)) as one:
    one.channel.settimeout(60)
    text = b""
    while piece := one.channel.recv(1 << 16):
        text += piece
    ending = one.wait(60)
    rows, variables, files, pid, descriptors = json.loads(text)
tell(rows=rows, secret="SECRET" in variables, files=files, same=pid == one.pid, descriptors=descriptors,
    kind=ending.kind, code=ending.exit_code, tier=one.evidence.tier, landlock=one.evidence.landlock_abi,
    seccomp=one.evidence.seccomp_digest, left=[p.name for p in base.iterdir() if p.name.startswith("keyong")])
"""
        )
    )
    assert found == {
        "rows": "x\n1\n", "secret": False, "files": [], "same": False, "descriptors": [0, 1, 2, 3],
        "kind": "exited", "code": 0, "tier": "T0", "landlock": 0, "seccomp": "", "left": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "limits", "limit"),
    [
        ("import time; time.sleep(99)", "wall_seconds=0.5", "wall"),
        ("x = [bytearray(b'x' * 2**20) for _ in range(400)]; import time; time.sleep(99)", "memory_bytes=200 << 20", "memory"),
        ("import os, time\nfor _ in range(40): os.fork() or time.sleep(99)\ntime.sleep(99)", "processes=20", "processes"),
        ("while True: pass", "cpu_seconds=0.5", "cpu"),
        ("import os, time\nopen(os.environ['TMPDIR'] + '/f', 'wb').write(bytes(9 << 20)); time.sleep(99)",
         "scratch_bytes=8 << 20", "disk"),
        ("while True: print('x' * 4096)", "output_bytes=4096", "output"),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_whole_session(ordinary: Ordinary, code: str, limits: str, limit: str) -> None:
    found = told(
        ordinary(
            f"""
with session({code!r}, limits=Limits({limits})) as one:
    ending = one.wait(60)
tell(kind=ending.kind, limit=ending.limit, by=one.evidence.limits_by)
"""
        )
    )
    assert (found["kind"], found["limit"]) == ("limit", limit)
    assert found["by"] in ("supervisor", "cgroup")


CHILDREN = """
code = '''import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(99)
        os._exit(0) if os.getpid() % 2 else time.sleep(99)
os.write(3, b"r")
time.sleep(99)'''
one = session(code)
one.channel.settimeout(60)
one.channel.recv(1)
"""


def at_work(base: Path) -> list[int]:
    """Processes of a session's code, whoever their parent is now."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            if b"launch.py" in words and b"skip=landlock" in words and os.fsencode(base) in words:
                found.append(int(name))
        except OSError:
            continue
    return found


def test_its_end_is_that_of_every_process_it_started(base: Path, ordinary: Ordinary) -> None:
    process = ordinary(CHILDREN + "tell(pid=one.pid); sys.stdin.read(1); one.kill(); tell(ended=str(one.ending.kind))")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert at_work(base) == []


def test_the_end_of_the_service_is_the_sessions(base: Path, ordinary: Ordinary) -> None:
    process = ordinary(CHILDREN + "tell(place=one.path('/tmp')); time.sleep(99)")
    assert process.stdout is not None
    process.stdout.readline()
    end = time.monotonic() + 30
    while len(at_work(base)) <= 20:  # whoever is looked for may just have handed over to its child
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    places = [place for place in base.glob("keyong-development-*") if place.is_dir()]
    assert places
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 30
    while (at_work(base) or any(place.exists() for place in places)) and time.monotonic() < end:
        time.sleep(0.01)
    assert at_work(base) == []
    assert not any(place.exists() for place in places), "the session's files were left behind"


def test_inv8_root_is_refused(root_only: None, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="would be root") as caught:
        open_session(SessionSpec(Runtime(tmp_path, "sha256:x"), ("-c", "pass"), tier=Tier.T0))
    assert "ordinary user" in caught.value.hint


@pytest.mark.parametrize("floor", [Tier.T1, Tier.T2, Tier.T3])
def test_inv8_development_alone_does_not_lower_a_floor(floor: Tier) -> None:
    with pytest.raises(SandboxError, match=f"the floor of isolation is {floor}") as caught:
        prove_tier(floor, development=True)
    assert "keyong node tier T0" in caught.value.hint


def test_inv8_it_is_never_fallen_back_to(ordinary: Ordinary, monkeypatch: pytest.MonkeyPatch) -> None:
    report = probe()
    assert Tier.T0 not in report.tiers and "--development" in report.refusals[Tier.T0]
    found = told(
        ordinary(
            """
from sandbox import SandboxError, _bubblewrap
_bubblewrap._PLACES = "/nowhere"
try:
    prove_tier(Tier.T0)
except SandboxError as error:
    tell(code=error.code, tier=prove_tier(Tier.T0, development=True))
"""
        )
    )
    assert found == {"code": "layer", "tier": "T0"}
