"""What a session may be given at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import Limits, Mount, Runtime, SandboxError, SessionSpec

RUNTIME = Runtime(Path("/srv/runtime"), "sha256:x")


@pytest.mark.parametrize(
    "target",
    [
        "data",
        "/",
        "/data/../etc",
        "/data/",
        "//data",
        "/usr/lib/x",
        "/etc",
        "/proc/sys",
        "/runtime/site-packages",
        "/tmp/x",
    ],
)
def test_target_is_refused(target: str) -> None:
    with pytest.raises(SandboxError) as mounted:
        SessionSpec(RUNTIME, ("-c", "pass"), mounts=(Mount(Path("/srv/data"), target),))
    with pytest.raises(SandboxError) as scratched:
        SessionSpec(RUNTIME, ("-c", "pass"), scratch={target: 1})
    assert mounted.value.code == scratched.value.code == "spec"
    assert mounted.value.hint


@pytest.mark.parametrize("second", ["/data", "/data/inner"])
def test_overlap_is_refused(second: str) -> None:
    with pytest.raises(SandboxError, match="overlaps"):
        SessionSpec(RUNTIME, ("-c", "pass"), mounts=(Mount(Path("/a"), "/data"), Mount(Path("/b"), second)))


def test_scratch_over_data_is_refused() -> None:
    with pytest.raises(SandboxError, match="overlaps"):
        SessionSpec(RUNTIME, ("-c", "pass"), mounts=(Mount(Path("/a"), "/data"),), scratch={"/data": 1})


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONHOME", "GLIBC_TUNABLES", "KEYONG_CHANNEL_FD", "A=B", "", "a b"])
def test_variable_that_acts_before_the_launcher_is_refused(name: str) -> None:
    with pytest.raises(SandboxError, match="environment variable"):
        SessionSpec(RUNTIME, ("-c", "pass"), env={name: "/data/library.so"})


def test_nul_cannot_add_arguments() -> None:
    with pytest.raises(SandboxError):
        SessionSpec(RUNTIME, ("-c", "pass"), env={"A": "x\0--bind\0/\0/host"})
    with pytest.raises(SandboxError):
        SessionSpec(RUNTIME, ("-c", "pass\0--share-net"))
    with pytest.raises(SandboxError):
        SessionSpec(RUNTIME, ("-c", "pass"), mounts=(Mount(Path("/a"), "/data\0--bind\0/\0/host"),))


@pytest.mark.parametrize("name", ["memory_bytes", "wall_seconds", "processes", "cpu_seconds"])
def test_limit_must_be_positive(name: str) -> None:
    with pytest.raises(SandboxError, match=name):
        Limits(**{name: 0})


def test_program_is_needed() -> None:
    with pytest.raises(SandboxError, match="program"):
        SessionSpec(RUNTIME, ())
