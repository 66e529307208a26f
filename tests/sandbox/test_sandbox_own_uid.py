"""inv4, inv8: T1 gives what it promises without namespaces, and says what it does not."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sandbox import (
    Ending,
    Limits,
    Mount,
    Report,
    Runtime,
    SandboxError,
    SessionSpec,
    Tier,
    _identity,
    _launcher,
    _own_uid,
    _session_root,
    canary,
    open_session,
    prove_tier,
    run_canary,
)
from sandbox._meter import UidMeter
from sandbox.canary import CONCEDED, try_acts
from sandbox.session import Session

FLOCK = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.setsid()
        time.sleep(999)
os.write(3, b"r")
time.sleep(999)
"""


@pytest.fixture(autouse=True)
def own_uid(machine: Report) -> None:
    if Tier.T1 not in machine.tiers:
        pytest.skip("T1 cannot be had here: " + machine.refusals[Tier.T1])


@pytest.fixture
def runtime(machine: Report) -> Iterator[Runtime]:
    """One that every user can reach: at T1 nothing is shown in another place."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "site-packages").mkdir()
        for place in (Path(name), Path(name) / "site-packages"):
            place.chmod(0o755)
        yield Runtime(Path(name), "sha256:of-a-test")


def spec(runtime: Runtime, code: str, **more: object) -> SessionSpec:
    return SessionSpec(runtime, ("-c", code), tier=Tier.T1, **more)  # type: ignore[arg-type]


def weakened(*layers: str) -> type[Session]:
    return type("Weakened", (Session,), {"_without": frozenset(layers)})


def uid_of(session: Session) -> int:
    assert session._started is not None and session._started.identity is not None
    return session._started.identity.uid


def members(uid: int) -> list[str]:
    return UidMeter(uid, {}).alive()


@cache
def outcomes(*without: str) -> dict[str, str]:
    return try_acts(opener=weakened(*without), tier=Tier.T1)[0]


def test_every_act_is_blocked_but_those_conceded() -> None:
    report = run_canary(tier=Tier.T1)
    assert len(report.acts) >= 165
    assert report.evidence.tier is Tier.T1
    succeeded = {name for name, outcome in outcomes().items() if outcome != "blocked"}
    assert succeeded == CONCEDED[Tier.T1], "what is conceded is what happens: no more, and no less either"


@pytest.mark.parametrize(
    ("without", "acts"),
    [
        (
            ("seccomp", "canary", "attest"),
            "socket tcp|socket udp|connect to the host's unix socket|"
            "call ptrace|call unshare|call memfd_create|outlive the supervisor",
        ),
        (
            ("landlock", "canary"),
            "read /proc/loadavg|read /proc/self/mountinfo|list /|list /proc|execute a written file|"
            "create in the common /tmp|create in the common /dev/shm",
        ),
        (
            ("seccomp", "landlock", "canary", "attest"),
            "connect to the host|turn a pair to the host|connect to the host's abstract socket",
        ),
        (("empty-environment", "canary"), "find a foreign variable"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_act_succeeds_without_its_layer(without: tuple[str, ...], acts: str) -> None:
    found = outcomes(*without)
    common = {"create in the common /tmp": Path("/tmp"), "create in the common /dev/shm": Path("/dev/shm")}
    names = [name for name in acts.split("|") if name not in common or common[name].stat().st_mode & 0o2]
    assert {name: found[name] for name in names} == dict.fromkeys(names, "succeeded")


@pytest.mark.parametrize("layer", ["seccomp", "landlock"])
def test_canary_of_each_session_refuses_without_layer(runtime: Runtime, layer: str) -> None:
    with pytest.raises(SandboxError) as caught:
        weakened(layer)(spec(runtime, "pass"))
    assert caught.value.code == "canary"


def test_look_from_outside_refuses_without_the_filter(runtime: Runtime) -> None:
    with pytest.raises(SandboxError, match="seccomp"):
        weakened("seccomp", "canary")(spec(runtime, "pass"))


@pytest.fixture
def bystanders() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process of root's and one of another user's, which no end of a session may touch."""
    found = [subprocess.Popen(["sleep", "60"], user=user) for user in (None, 12346)]
    yield found
    for one in found:
        one.kill()
        one.wait()


@pytest.mark.parametrize("how", ["kill", "exit", "reaper"])
def test_none_is_left_and_nobody_else_is_hit(
    runtime: Runtime, bystanders: list[subprocess.Popen[bytes]], how: str
) -> None:
    code = FLOCK if how != "exit" else FLOCK[: FLOCK.rindex("time")] + "os.read(3, 1)"
    with open_session(spec(runtime, code)) as session:
        assert session.channel.recv(1) == b"r"
        uid = uid_of(session)
        assert len(members(uid)) >= 21
        if how == "kill":
            session.kill()
        elif how == "exit":
            session.channel.send(b"x")
        else:
            os.kill(session.pid, signal.SIGKILL)  # as the kernel may, where memory runs out
        ending = session.wait(20)
        assert ending.kind == ("killed" if how == "kill" else "exited")
        assert members(uid) == []
    assert not Path(_session_root.ROOTS, str(uid)).exists()
    assert [one.poll() for one in bystanders] == [None, None]


def test_session_ends_with_its_supervisor(runtime: Runtime, bystanders: list[subprocess.Popen[bytes]]) -> None:
    code = f"""
import sys
from pathlib import Path
from sandbox import Runtime, SessionSpec, Tier, open_session
spec = SessionSpec(Runtime(Path({str(runtime.path)!r}), ""), ("-c", {FLOCK!r}), tier=Tier.T1)
session = open_session(spec)
session.channel.recv(1)
print(session._started.identity.uid, session.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    folder = Path(__file__).parents[2]
    trusted = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with trusted:
        assert trusted.stdout is not None
        uid, reaper = map(int, trusted.stdout.readline().split())
        left = Path(_session_root.ROOTS, str(uid))
        assert left.exists()
        handle = os.pidfd_open(reaper)
        trusted.send_signal(signal.SIGKILL)
        trusted.wait(20)
        assert select.select([handle], [], [], 10)[0], "the reaper outlived the trusted process"
        os.close(handle)
    assert members(uid) == []
    assert [one.poll() for one in bystanders] == [None, None]
    with open_session(spec(runtime, "pass")):
        deadline = time.monotonic() + 60
        while left.exists():  # one that another test started may be at it
            assert time.monotonic() < deadline, "the next session clears what a crash left"
            time.sleep(0.001)


def test_uid_is_nobody_elses_while_its_reaper_is_at_work(runtime: Runtime) -> None:
    """Its killer would hit whoever had it next."""
    with open_session(spec(runtime, "import time; time.sleep(99)")) as session:
        assert session._started is not None and session._started.identity is not None
        uid, reaper = uid_of(session), session._started.monitor.pid
        os.kill(reaper, signal.SIGSTOP)
        session._started.identity.release()  # as the end of the trusted process does
        assert _identity.hold_if_free(uid) is None
        os.kill(reaper, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while (held := _identity.hold_if_free(uid)) is None:  # another test's start looks at what is left as well
        assert time.monotonic() < deadline, "the uid was never given back"
        time.sleep(0.001)
    held.release()


def test_uid_whose_last_process_is_not_reaped_yet_serves(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of a container may never reap: what has died there keeps its uid, and no session is refused for it."""
    identity = _identity.allot_identity()
    with subprocess.Popen(["true"], user=identity.uid) as dead:
        assert os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT) is not None
        assert UidMeter(identity.uid, {}).members() == [str(dead.pid)]
        monkeypatch.setattr(_own_uid, "allot_identity", lambda: identity)
        with open_session(spec(runtime, "pass")) as session:
            assert uid_of(session) == identity.uid
            assert session.wait(60).kind == "exited"


def test_session_that_is_not_alone_under_its_uid_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, report, others = _identity.allot_identity(), _launcher.await_report, []

    def intrude(channel: socket.socket, seconds: float) -> int:
        others.append(subprocess.Popen(["sleep", "60"], user=identity.uid))
        return report(channel, seconds)

    monkeypatch.setattr(_own_uid, "allot_identity", lambda: identity)
    monkeypatch.setattr(_launcher, "await_report", intrude)
    with pytest.raises(SandboxError, match="does not hold: own uid"):
        open_session(spec(runtime, "pass"))
    assert others.pop().wait(10) == -signal.SIGKILL, "it was ended with the session"
    identity = _identity.allot_identity()
    with weakened("attest")(spec(runtime, "pass")):
        assert others.pop().poll() is None, "nothing else looks"


def test_zombies_of_a_session_are_reaped_while_it_runs(runtime: Runtime) -> None:
    """Nobody else does: in a container, process 1 is the node."""
    code = """
import os, time
for _ in range(50):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
os.write(3, b"r")
time.sleep(99)
"""
    with open_session(spec(runtime, code)) as session:
        assert session.channel.recv(1) == b"r"
        deadline = time.monotonic() + 10
        while len(UidMeter(uid_of(session), {}).members()) > 1:
            assert time.monotonic() < deadline, "orphans stay as zombies"
            time.sleep(0.01)


def test_data_is_seen_where_the_session_says_and_stays_as_it_is(runtime: Runtime, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "rows").write_text("1,2,3")
    (data / "link").symlink_to("deep/rows")
    for path in (data, data / "deep", data / "deep" / "rows"):
        path.chmod(0o777)
    tmp_path.chmod(0o700)  # a closed home above it
    code = """
import os, sys
place = os.environ["PLACE"]
for act in (lambda: open(place + "/deep/rows", "w"), lambda: open(place + "/new", "w"), lambda: os.chmod(place, 0o700)):
    try: act()
    except OSError: continue
    sys.exit(9)
with open(os.environ["WORK"] + "/out", "w") as file: file.write(open(place + "/link").read())
print(place, open(os.environ["WORK"] + "/out").read())
"""
    mounts, env = (Mount(data, "/data"),), {"PLACE": "/data", "WORK": "/work"}
    with open_session(spec(runtime, code, mounts=mounts, env=env, scratch={"/work": 1 << 20})) as session:
        place = session.path("/data")
        assert session.path("/elsewhere") == "/elsewhere"
        assert session.wait(20) == Ending("exited", exit_code=0), session.stderr().decode()
        assert session.stdout().decode().split() == [place, "1,2,3"]
        assert Path(place).parent.stat().st_mode & 0o777 == 0o710
    assert (data / "deep" / "rows").read_text() == "1,2,3"
    assert not Path(place).exists()
    with open_session(SessionSpec(runtime, ("-c", "pass"), mounts=mounts)) as session:
        assert session.path("/data/x") == "/data/x", "with a mount table of its own, it is where the spec says"


def test_one_session_cannot_reach_another(runtime: Runtime, public: Path) -> None:
    (public / "rows").write_text("secret")
    waiting = "import os; os.write(3, b'r'); os.read(3, 1)"
    with open_session(spec(runtime, waiting, mounts=(Mount(public, "/data"),))) as other:
        other.channel.recv(1)
        assert other._started is not None
        code = f"""
import os, signal, sys
found = []
def act(name, function):
    try: function()
    except OSError: return
    found.append(name)
place, pid = {other.path("/data")!r}, {other._started.init}
act("read", lambda: open(place + "/rows"))
act("stat", lambda: os.stat(place))
act("list", lambda: os.listdir(os.path.dirname(place)))
act("signal", lambda: os.kill(pid, 0))
act("memory", lambda: open(f"/proc/{{pid}}/mem", "rb"))
act("environment", lambda: open(f"/proc/{{pid}}/environ"))
act("descriptors", lambda: os.listdir(f"/proc/{{pid}}/fd"))
act("limits", lambda: __import__("resource").prlimit(pid, 7))
print(found)
"""
        with open_session(spec(runtime, code)) as session:
            assert session.wait(20).exit_code == 0, session.stderr().decode()
            assert session.stdout() == b"[]\n"
        assert other.ending is None


@pytest.mark.parametrize(
    ("code", "limits", "name"),
    [
        ("b = bytearray(400 << 20)\nimport time; time.sleep(99)", Limits(memory_bytes=200 << 20), "memory"),
        ("import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(99,)).start()",
         Limits(processes=20), "processes"),
        ("import os, time\nopen(os.environ['TMPDIR'] + '/a', 'wb').write(bytes(9 << 20)); time.sleep(99)",
         Limits(scratch_bytes=8 << 20, file_bytes=64 << 20), "disk"),
        ("import os\nopen(os.environ['TMPDIR'] + '/a', 'wb').write(bytes(9 << 20))",
         Limits(scratch_bytes=8 << 20, file_bytes=64 << 20), "disk"),
        ("import os, time\nfor n in range(20): open(os.environ['TMPDIR'] + f'/{n}', 'wb').write(bytes(1 << 20))\n"
         "time.sleep(99)", Limits(scratch_bytes=8 << 20), "disk"),
        ("import os, time\nfor n in range(200): open(os.environ['TMPDIR'] + f'/{n}', 'wb')\ntime.sleep(99)",
         Limits(scratch_files=100), "disk"),
    ],
    ids=["memory", "processes", "one-file", "one-file-and-gone", "disk", "files"],
)  # fmt: skip
def test_limits_hold(runtime: Runtime, code: str, limits: Limits, name: str | None) -> None:
    with open_session(spec(runtime, code, limits=limits)) as session:
        ending = session.wait(30)
    assert (ending.limit, ending.kind) == (name, "limit" if name else "exited")


def test_descriptor_three_is_the_channel_and_its_end_is_seen(runtime: Runtime) -> None:
    with open_session(spec(runtime, "import socket\nprint(socket.socket(fileno=3).recv(9))")) as session:
        session.channel.sendall(b"abc")
        assert session.wait(20) == Ending("exited", exit_code=0)
        assert session.stdout() == b"b'abc'\n"
        session.channel.shutdown(socket.SHUT_WR)
        assert session.channel.recv(9) == b""


def test_evidence_names_the_way_not_the_place(runtime: Runtime, public: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    other.chmod(0o755)

    def evidence(**more: object) -> object:
        with open_session(spec(runtime, "pass", **more)) as session:
            return session.evidence

    first = evidence(mounts=(Mount(public, "/data"),))
    assert first == evidence(mounts=(Mount(other, "/data"),))
    assert first != evidence(mounts=(Mount(other, "/data"),), limits=Limits(processes=99))


def test_runtime_below_a_closed_folder_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    shutil.copytree(runtime.path, tmp_path / "runtime")
    runtime = Runtime(tmp_path / "runtime", "")
    with pytest.raises(SandboxError, match="closed to others") as caught:
        open_session(spec(runtime, "pass"))
    assert "/opt" in caught.value.hint


def test_missing_capability_is_named(runtime: Runtime) -> None:
    code = "from sandbox import _own_uid, SandboxError\ntry: _own_uid.check_root()\nexcept SandboxError as e: print(e)"
    command = ["setpriv", "--bounding-set=-kill,-setpcap", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "T1 lacks the capabilities KILL,SETPCAP"


def test_floor_decides_whether_the_weaker_tier_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert prove_tier(Tier.T2) is Tier.T2 is prove_tier(Tier.T1), "the stronger one, wherever it is there"
    monkeypatch.setattr("sandbox._bubblewrap._PLACES", str(tmp_path))
    assert prove_tier(Tier.T1) is Tier.T1
    with pytest.raises(SandboxError, match="bubblewrap is not installed"):
        prove_tier(Tier.T2)


def test_layer_that_does_not_hold_is_no_reason_for_a_weaker_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"read /etc/shadow": "succeeded"}
    monkeypatch.setattr(canary, "try_acts", lambda runtime, tier: (bad, None))
    with pytest.raises(SandboxError, match="read /etc/shadow"):
        prove_tier(Tier.T1)


def test_place_that_others_may_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, tmp_path: Path
) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    roots.chmod(0o777)
    with pytest.raises(SandboxError, match="changed by others"):
        _session_root.SessionRoot(spec(runtime, "pass"), 0x7000_0001, ("/sandbox/launch.py", b""), roots)
    shutil.rmtree(roots)


def test_uids_that_belong_to_somebody_are_never_struck() -> None:
    done = subprocess.run([sys.executable, str(_own_uid.REAPER), "kill", "1000"], capture_output=True, check=False)
    assert done.returncode != 0
    assert _identity.RANGES[0][1] == 1 << 12, "as in _reaper.KILLER_OFFSET"


@pytest.mark.parametrize("group", [True, False])
def test_a_database_engine_starts_where_the_machines_control_groups_can_be_seen(group: bool) -> None:
    """DuckDB asks for the bounds of its group, and does not start where it sees the file and may not read it."""
    found = importlib.util.find_spec("duckdb")
    if found is None or found.origin is None:
        pytest.skip("duckdb is not installed")
    code = "import duckdb; print(duckdb.sql('SELECT 42').fetchall()[0][0])"
    installed = Runtime(Path(found.origin).parents[2], "")
    try:
        session = (Session if group else weakened("cgroup"))(spec(installed, code))
    except SandboxError as error:
        if error.code != "source":
            raise
        pytest.skip(f"another uid cannot read what is installed here: {error}")
    with session:
        ending = session.wait(60)
        assert (ending.exit_code, session.stdout()) == (0, b"42\n"), session.stderr().decode()[-500:]
