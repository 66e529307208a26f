"""Real sessions with the machine's Python and an empty runtime; a machine without the layers skips, with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import Ending, Report, Runtime, SessionSpec, open_session, probe

PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="session")
def machine() -> Report:
    if sys.platform != "linux":
        pytest.skip("the sandbox needs Linux")
    report = probe(PYTHON)
    if not report.tiers:
        pytest.skip("this machine cannot isolate: " + "; ".join(report.refusals.values()))
    return report


@pytest.fixture
def runtime(machine: Report, tmp_path: Path) -> Runtime:
    place = tmp_path / "runtime"
    (place / "site-packages").mkdir(parents=True)
    for directory in (place, place / "site-packages"):
        directory.chmod(0o755)
    return Runtime(place, "sha256:of-a-test", PYTHON)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory that a session's uid can read."""
    place = tmp_path / "public"
    place.mkdir()
    place.chmod(0o755)
    return place


@pytest.fixture
def run(runtime: Runtime) -> Callable[..., tuple[Ending, str, str]]:
    """Run code in a session to its end: ending, stdout, stderr."""

    def run_code(code: str, *arguments: str, seconds: float = 60.0, **spec: object) -> tuple[Ending, str, str]:
        with open_session(SessionSpec(runtime, ("-c", code, *arguments), **spec)) as session:  # type: ignore[arg-type]
            ending = session.wait(seconds)
            return ending, session.stdout().decode(), session.stderr().decode()

    return run_code


@pytest.fixture
def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's sessions have no uid of their own")


@pytest.fixture
def ordinary_only() -> Iterator[None]:
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user")
    yield
