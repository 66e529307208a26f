"""What several folders of tests share: a running consortium, one for each worker."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

# Before any test imports flwr, and gRPC with it: gRPC reads its TLS suites once.
from federation.wire import credentials as credentials  # isort: skip

import pytest
from hypothesis import HealthCheck, settings

from tests.figures import figures as figures
from tests.figures import tell
from tests.seeded_noise import seeded_noise as seeded_noise

if TYPE_CHECKING:
    from tests.integration.consortium import Consortium

# The default run tries the same cases each time, on a machine however slow; the long one goes on looking for others.
settings.register_profile(
    "default run", deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", parent=settings.default, deadline=None, max_examples=1000)
settings.load_profile("long" if os.environ.get("KEYONG_LONG") else "default run")

CANNOT_ISOLATE = ("the sandbox needs", "cannot isolate", "runtime", "jobs cannot run", "not installed", "torch is not")
"""What reasons to skip say where the sandbox or its runtime is missing."""
CANNOT_BROWSE = "Chromium"
"""What reasons to skip say where there is no browser."""
DRIVING_PROCESSES = (
    "tests/integration",
    "tests/adversarial",
    "tests/packaging",
    "tests/network",
    "tests/load",
    "tests/faults",
    "tests/web",
    "tests/sandbox/test_sandbox_subprocess.py",  # counts what such sessions leave on the whole machine
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Keep each file that drives real processes on one worker: what it sets up costs more than its tests.

    By file and not by ``xdist_group``: pytest-xdist 3.8 cannot mark groups under pytest 9.2, and says nothing.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if path.startswith(DRIVING_PROCESSES) else super()._split_scope(nodeid)

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no collection of garbage looks through all of it again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell what the longer suites measured."""
    tell(terminalreporter, config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave long tests to ``make long``."""
    if item.get_closest_marker("long") and not os.environ.get("KEYONG_LONG"):
        pytest.skip("long: `make long` runs it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Where KEYONG_MUST_ISOLATE is set (CI), a test skipped because this machine cannot isolate jobs has failed.

    So has one that was skipped for want of a browser, where KEYONG_MUST_BROWSE is set.
    """
    report = yield
    if report.skipped and os.environ.get("KEYONG_MUST_ISOLATE") and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if any(word in reason for word in CANNOT_ISOLATE):
            report.outcome = "failed"
            report.longrepr = f"KEYONG_MUST_ISOLATE is set, and this was to be skipped: {reason}"
    if report.skipped and os.environ.get("KEYONG_MUST_BROWSE") and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if CANNOT_BROWSE in reason:
            report.outcome = "failed"
            report.longrepr = f"KEYONG_MUST_BROWSE is set, and this was to be skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def isolating() -> None:
    """This machine can isolate jobs; where it cannot, tests that run jobs are skipped with the reason."""
    if sys.platform != "linux":
        pytest.skip("the sandbox needs Linux")
    from keyong import runtime
    from sandbox import probe

    report = probe(runtime.load().python)
    if not report.tiers:
        pytest.skip("this machine cannot isolate: " + "; ".join(report.refusals.values()))


@pytest.fixture(scope="session")
def consortium(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A coordinator and three nodes that serve, with agreements in force under ``PURPOSE``."""
    from tests.integration.consortium import running
    from tests.integration.parties import ForkedParty

    with running(tmp_path_factory.mktemp("consortium"), party=ForkedParty) as one:
        yield one
