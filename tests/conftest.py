"""What several folders of tests share: a running consortium, one for each worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.consortium import Consortium

DRIVING_PROCESSES = ("tests/integration", "tests/adversarial", "tests/packaging")


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

    with running(tmp_path_factory.mktemp("consortium")) as one:
        yield one
