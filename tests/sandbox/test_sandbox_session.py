"""inv3, inv4: what a session gets, how it ends, and that nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from sandbox import (
    Ending,
    Limits,
    Mount,
    Runtime,
    SandboxError,
    SessionSpec,
    Tier,
    _bubblewrap,
    _launch,
    _launcher,
    open_session,
)
from sandbox._meter import Meter

Run = Callable[..., tuple[Ending, str, str]]

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


def namespace_of(init: int) -> IO[bytes]:
    """A session's pid namespace, held open: its number could be another session's a moment after its end."""
    return open(f"/proc/{init}/ns/pid", "rb")


def members(namespace: IO[bytes]) -> list[str]:
    number = os.fstat(namespace.fileno()).st_ino
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}/ns/pid").st_ino == number:
                state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
                found += [name] if state not in "ZX" else []  # dead, and only waits for its parent to look
        except OSError:
            continue
    return found


def test_channel_is_descriptor_three(runtime: Runtime) -> None:
    code = (
        "import os, socket\ns = socket.socket(fileno=int(os.environ['KEYONG_CHANNEL_FD']))\ns.sendall(s.recv(99)[::-1])"
    )
    with open_session(SessionSpec(runtime, ("-c", code))) as session:
        session.channel.sendall(b"abc")
        assert session.channel.recv(99) == b"cba"
        assert session.wait(20) == Ending("exited", exit_code=0) == session.ending
        assert session.channel.recv(99) == b""


def test_module_of_the_runtime_runs_with_its_arguments(runtime: Runtime) -> None:
    package = runtime.path / "site-packages" / "job"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "client.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    for path in (package, *package.iterdir()):
        path.chmod(0o755)
    with open_session(SessionSpec(runtime, ("-m", "job.client", "one", "two"))) as session:
        assert session.wait(20).exit_code == 0
        assert session.stdout() == b"__main__ ['one', 'two']\n"


def test_modules_of_an_app_shadow_nothing(runtime: Runtime, public: Path) -> None:
    for name in ("json.py", "sandbox.py", "encodings.py", "usercustomize.py", "sitecustomize.py"):
        (public / name).write_text("raise SystemExit(9)")
        (public / name).chmod(0o644)
    (public / "main.py").write_text("import json, sys, os; print(json.__file__, os.getcwd(), sys.argv)")
    (public / "main.py").chmod(0o644)
    with open_session(SessionSpec(runtime, ("/app/main.py", "x"), mounts=(Mount(public, "/app"),))) as session:
        assert session.wait(20).exit_code == 0
        file, directory, *arguments = session.stdout().decode().split()
    assert file.startswith("/usr/lib")
    assert directory == "/tmp"
    assert arguments == ["['/app/main.py',", "'x']"]


def test_exception_stays_with_the_owner(run: Run) -> None:
    ending, out, errors = run("raise RuntimeError('a value')")
    assert ending == Ending("exited", exit_code=1)
    assert not out
    assert errors.splitlines()[-1] == "RuntimeError: a value"


def test_kill_leaves_nobody(runtime: Runtime) -> None:
    with open_session(SessionSpec(runtime, ("-c", FLOCK))) as session:
        assert session.channel.recv(1) == b"r"
        assert session._started is not None
        with namespace_of(session._started.init) as namespace:
            assert len(members(namespace)) >= 21
            session.kill()
            assert members(namespace) == []
        assert session.ending == Ending("killed")
        session.kill()
        assert session.wait(0) == Ending("killed")
    assert not Path(f"/proc/{session.pid}").exists()


def test_end_of_the_first_process_leaves_nobody(runtime: Runtime) -> None:
    with open_session(SessionSpec(runtime, ("-c", FLOCK[: FLOCK.rindex("time")] + "os.read(3, 1)"))) as session:
        assert session._started is not None
        with namespace_of(session._started.init) as namespace:
            session.channel.send(b"g")
            assert session.wait(20) == Ending("exited", exit_code=0)
            assert members(namespace) == []


def test_session_ends_with_its_supervisor(runtime: Runtime) -> None:
    """The job cannot clear the death signal; a crash of the trusted process leaves nobody."""
    job = "import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n" + FLOCK
    code = f"""
import os, sys
from pathlib import Path
from sandbox import Runtime, SessionSpec, open_session
session = open_session(SessionSpec(Runtime(Path({str(runtime.path)!r}), ""), ("-c", {job!r})))
session.channel.recv(1)
print(session._started.init, flush=True)
sys.stdin.read()
"""
    trusted = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with trusted:
        assert trusted.stdout is not None
        init = int(trusted.stdout.readline())
        with namespace_of(init) as namespace:
            handle = os.pidfd_open(init)
            trusted.send_signal(signal.SIGKILL)
            trusted.wait(20)
            assert select.select([handle], [], [], 10)[0], "the session outlived the trusted process"
            os.close(handle)
            assert members(namespace) == []


def test_session_that_cannot_be_watched_does_not_run_on(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Meter, "sample", fail)
    with open_session(SessionSpec(runtime, ("-c", FLOCK))) as session:
        assert session.wait(20) == Ending("killed")


def test_wait_does_not_wait_longer_than_asked(runtime: Runtime) -> None:
    with open_session(SessionSpec(runtime, ("-c", "import time; time.sleep(99)"))) as session:
        with pytest.raises(TimeoutError):
            session.wait(0.05)
        assert session.ending is None


def test_kill_from_another_thread_wakes_a_waiter(runtime: Runtime) -> None:
    with open_session(SessionSpec(runtime, ("-c", "import time; time.sleep(99)"))) as session:
        killer = threading.Thread(target=session.kill)
        killer.start()
        assert session.wait(20) == Ending("killed")
        killer.join()


def test_sessions_open_side_by_side(runtime: Runtime) -> None:
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(lambda n: open_session(SessionSpec(runtime, ("-c", f"print({n})"))), range(6)))
    for number, session in enumerate(sessions):
        with session:
            assert session.wait(30).exit_code == 0
            assert session.stdout() == f"{number}\n".encode()


def test_live_sessions_of_root_have_uids_of_their_own(runtime: Runtime, root_only: None) -> None:
    spec = SessionSpec(runtime, ("-c", "import time; time.sleep(99)"))
    with open_session(spec) as one, open_session(spec) as two:
        uids = {Path(f"/proc/{session.pid}").stat().st_uid for session in (one, two)}
    assert len(uids) == 2
    assert min(uids) >= 200_000


def test_nothing_is_left_for_the_next_session(run: Run) -> None:
    code = """
import os
for place in ("/tmp", "/dev/shm", "/work"):
    print(os.listdir(place))
    open(place + "/left", "w").close()
"""
    for _ in range(2):
        assert run(code, scratch={"/work": 1 << 20})[1].splitlines() == ["[]", "[]", "[]"]


def test_what_the_trusted_process_holds_does_not_pass(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_NODE", "4711")
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)
    code = """
import os
print(sorted(os.listdir("/proc/self/fd")))
print(open("/proc/1/environ").read(), open("/proc/1/cmdline").read(), os.environ)
"""
    try:
        _, out, errors = run(code)
    finally:
        os.close(secret)
    assert out.splitlines()[0] == "['0', '1', '2', '3', '4']", errors
    assert "SECRET" not in out
    assert str(tmp_path) not in out


def test_x32_call_kills(run: Run) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x32 exists on x86_64 only")
    code = "import ctypes; ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))"
    assert run(code)[0] == Ending("exited", exit_code=128 + signal.SIGSYS)


def test_closed_directory_above_a_source_is_no_obstacle_for_root(run: Run, tmp_path: Path, root_only: None) -> None:
    closed = tmp_path / "closed"
    data = closed / "data"
    data.mkdir(parents=True)
    (data / "rows").write_text("1")
    (data / "rows").chmod(0o644)
    data.chmod(0o755)
    closed.chmod(0o700)
    assert run("print(open('/data/rows').read())", mounts=(Mount(data, "/data"),))[1] == "1\n"


def test_single_file_can_be_mounted(run: Run, public: Path) -> None:
    (public / "rows").write_text("1")
    (public / "rows").chmod(0o644)
    mounts = (Mount(public / "rows", "/data/rows"),)
    assert run("print(open('/data/rows').read())", mounts=mounts)[1] == "1\n"


@pytest.mark.parametrize("mode", [0o700, 0o000])
def test_unreadable_source_is_refused(runtime: Runtime, tmp_path: Path, mode: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    if mode == 0o700 and os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's session reads what the user can")
    with pytest.raises(SandboxError, match="cannot read") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass"), mounts=(Mount(data, "/data"),)))
    assert caught.value.code == "source"
    assert "chmod" in caught.value.hint
    data.chmod(0o700)


def test_missing_source_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="does not exist"):
        open_session(SessionSpec(runtime, ("-c", "pass"), mounts=(Mount(tmp_path / "none", "/data"),)))


def test_tier_that_is_not_there_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))
    with pytest.raises(SandboxError, match="T3") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass"), tier=Tier.T3))
    assert caught.value.code == "layer"
    assert caught.value.hint


def test_silent_launcher_is_given_up(runtime: Runtime, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (public / "launch.py").write_text("import time; time.sleep(99)")
    monkeypatch.setattr(_launcher, "SOURCE", public / "launch.py")
    namespaces = []
    first_process, report = _launch.first_process, _launcher.await_report

    def remember(*arguments: object) -> tuple[int, int]:
        init, handle = first_process(*arguments)  # type: ignore[arg-type]
        namespaces.append(namespace_of(init))
        return init, handle

    monkeypatch.setattr(_launch, "first_process", remember)
    # The launcher alone has so little time: whatever starts it is as slow as the machine.
    monkeypatch.setattr(_launcher, "await_report", lambda channel, _: report(channel, 0.2))
    with pytest.raises(SandboxError, match="no report in time"):
        open_session(SessionSpec(runtime, ("-c", "pass")))
    with namespaces[0] as namespace:
        assert members(namespace) == []


def test_failed_launcher_says_why(runtime: Runtime, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (public / "launch.py").write_text("raise ValueError('broken')")
    monkeypatch.setattr(_launcher, "SOURCE", public / "launch.py")
    with pytest.raises(SandboxError, match="ValueError: broken") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass")))
    assert caught.value.code == "start"


def test_program_that_is_no_python_says_so(runtime: Runtime) -> None:
    with pytest.raises(SandboxError, match="exit code 0") as caught:
        open_session(SessionSpec(Runtime(runtime.path, "", Path("/usr/bin/true")), ("-c", "pass")))
    assert caught.value.code == "start"


def test_evidence_names_the_way_not_the_place(runtime: Runtime, tmp_path: Path, public: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    other.chmod(0o755)

    def evidence_of(**spec: object) -> object:
        with open_session(SessionSpec(runtime, ("-c", "pass"), **spec)) as session:  # type: ignore[arg-type]
            return session.evidence

    first = evidence_of(mounts=(Mount(public, "/data"),))
    assert first == evidence_of(mounts=(Mount(other, "/data"),))
    assert first != evidence_of(mounts=(Mount(other, "/data"),), limits=Limits(processes=99))
    assert first.tier is Tier.T2  # type: ignore[attr-defined]
    assert first.landlock_abi >= 3  # type: ignore[attr-defined]
    assert first.limits_by in ("supervisor", "cgroup")  # type: ignore[attr-defined]
    assert first.runtime_digest == "sha256:of-a-test"  # type: ignore[attr-defined]


def test_closed_channel_ends_a_reader(runtime: Runtime) -> None:
    code = "import socket\nsocket.socket(fileno=3).recv(1)"
    with open_session(SessionSpec(runtime, ("-c", code))) as session:
        session.channel.shutdown(socket.SHUT_RDWR)
        assert session.wait(20).exit_code == 0


def test_a_launcher_that_refuses_stays_until_it_was_heard() -> None:
    """Or a busy machine finds it gone, and cannot say which layer is missing."""
    ours, inner = socket.socketpair()
    command = [
        sys.executable,
        "-I",
        "-S",
        str(_launcher.SOURCE),
        str(inner.fileno()),
        "skip=canary",
        "abi=1000",
        "--",
        "-c",
        "pass",
    ]
    with ours, inner, subprocess.Popen(command, pass_fds=[inner.fileno()], stdin=subprocess.DEVNULL) as launcher:
        inner.close()
        assert ours.recv(64).split() == [b"keyong-sandbox/1", b"refused", b"landlock-abi"]
        with pytest.raises(subprocess.TimeoutExpired):
            launcher.wait(0.5)
        ours.close()
        assert launcher.wait(30) == 70
