"""What several folders of tests share: a running consortium, one for each worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.consortium import Consortium


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
