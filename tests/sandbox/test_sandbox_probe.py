"""inv8: what is missing is a refusal with its fix, never a weaker session."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import (
    Report,
    Runtime,
    SandboxError,
    SessionSpec,
    Tier,
    _bubblewrap,
    _identity,
    _kernel,
    open_session,
    probe,
)
from sandbox._meter import Meter, Usage, exceeded
from sandbox.spec import Limits


def test_report_names_every_layer(machine: Report) -> None:
    names = {layer.name for layer in machine.layers}
    assert names == {"seccomp", "bubblewrap", "user namespaces", "landlock", "own uid", "python", "session"}
    assert [tier for tier in machine.tiers if tier is not Tier.T3] == [
        Tier.T2,
        *([Tier.T1] if os.geteuid() == 0 else []),
    ]
    assert set(machine.refusals) == set(Tier) - set(machine.tiers)


def refuse(runtime: Runtime, code: str) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        open_session(SessionSpec(runtime, ("-c", "pass")))
    assert caught.value.code == code
    assert caught.value.hint
    report = probe()
    assert Tier.T2 not in report.tiers
    assert report.refusals[Tier.T2]
    return caught.value


def test_no_bubblewrap(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))
    assert "apt-get install bubblewrap" in refuse(runtime, "layer").hint


@pytest.mark.parametrize(
    ("version", "flags", "word"), [("0.6.2", "--args", "too old"), ("0.9.0", "--args --proc", "--disable-userns")]
)
def test_unfit_bubblewrap(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, flags: str, word: str
) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\ncase $1 in --version) echo bubblewrap {version};; *) echo '{flags}';; esac\n")
    program.chmod(0o755)
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))
    assert word in refuse(runtime, "layer").message


@pytest.mark.parametrize("abi", [0, 2])
def test_old_landlock(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, abi: int) -> None:
    monkeypatch.setattr(_kernel, "landlock_abi", lambda: abi)
    assert "6.2" in refuse(runtime, "layer").hint


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that a session's uid can reach without help."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_no_user_namespaces(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, open_place: Path) -> None:
    """As a container that forbids them: bubblewrap fails, and so does the session, with its words."""
    program = open_place / "bwrap"
    real = _bubblewrap.find_bubblewrap().path
    program.write_text(
        f'#!/bin/sh\ncase $1 in --version|--help) exec {real} "$1";; esac\n'
        "echo 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(open_place))
    with pytest.raises(SandboxError, match="No permissions to create new namespace") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass")))
    assert caught.value.code == "start"
    assert Tier.T2 not in probe().tiers


def test_no_python(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no Python"):
        open_session(SessionSpec(Runtime(runtime.path, "", tmp_path / "python3"), ("-c", "pass")))


def test_bubblewrap_that_the_uid_cannot_run(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_only: None
) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(_bubblewrap.find_bubblewrap().path.read_bytes())
    program.chmod(0o700)
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))
    assert "bubblewrap" in refuse(runtime, "start").message


def test_python_with_a_prefix_of_its_own(runtime: Runtime, tmp_path: Path) -> None:
    """As one below a closed home; as root the session reaches it all the same."""
    real = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib", real.name)
    if not library.is_dir():
        pytest.skip(f"there is no {library}")
    home = tmp_path / "home"
    prefix = home / "python"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").mkdir()
    python = prefix / "bin" / real.name
    python.write_bytes(real.read_bytes())
    (prefix / "lib" / real.name).symlink_to(library)
    for place in (prefix, prefix / "bin", prefix / "lib", python):
        place.chmod(0o755)
    home.chmod(0o700)
    code = "import sys, ctypes, json; print(sys.executable, sys.prefix)"
    with open_session(SessionSpec(Runtime(runtime.path, "", python), ("-c", code))) as session:
        assert session.wait(30).exit_code == 0, session.stderr().decode()
        assert session.stdout().decode().split() == [f"/python/bin/{real.name}", "/python"]


def test_identity_is_held_by_one_alone(tmp_path: Path) -> None:
    ranges = ((200_000, 2),)
    locks = tmp_path / "locks"
    one, two = (_identity.allot_identity(locks, ranges) for _ in range(2))
    assert {one.uid, two.uid} == {200_000, 200_001}
    with pytest.raises(SandboxError, match="no free uid"):
        _identity.allot_identity(locks, ranges)
    one.release()
    one.release()
    assert _identity.allot_identity(locks, ranges).uid == one.uid


def test_identity_is_held_across_processes(tmp_path: Path) -> None:
    held = _identity.allot_identity(tmp_path / "locks", ((200_000, 1),))
    code = f"""
from pathlib import Path
from sandbox import SandboxError, _identity
try: print(_identity.allot_identity(Path({str(tmp_path / "locks")!r}), ((200_000, 1),)).uid)
except SandboxError as error: print(error.code)
"""

    def other() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
        )
        return done.stdout.strip()

    assert other() == "layer"
    held.release()
    assert other() == "200000"


def test_identity_lock_that_others_may_write_is_refused(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(0o777)
    with pytest.raises(SandboxError, match="changed by others"):
        _identity.allot_identity(locks)


def test_meter_sees_this_process() -> None:
    meter = Meter(os.getpid(), ("/",))
    usage = meter.sample(Limits())
    assert str(os.getpid()) in meter.members()
    assert usage.memory_bytes > 1 << 20
    assert usage.cpu_seconds > 0


@pytest.mark.parametrize(
    ("usage", "name"),
    [
        (Usage(1, 1, 1, 1, False), None),
        (Usage(11, 1, 1, 1, False), "processes"),
        (Usage(1, 11, 1, 1, False), "memory"),
        (Usage(1, 1, 11, 1, False), "cpu"),
        (Usage(1, 1, 1, 11, False), "disk"),
        (Usage(1, 1, 1, 1, True), "disk"),
    ],
)
def test_limit_is_named(usage: Usage, name: str | None) -> None:
    assert exceeded(usage, Limits(memory_bytes=10, processes=10, cpu_seconds=10, scratch_files=10)) == name


def test_ordinary_user_has_no_t1(runtime: Runtime, ordinary_only: None) -> None:
    with pytest.raises(SandboxError, match="T1 needs root") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass"), tier=Tier.T1))
    assert "user namespaces" in caught.value.hint
