"""A consortium of forked processes, one for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import consortium as consortia
from tests.faults import forked, injection
from tests.faults.consortium import ForkedConsortium


@pytest.fixture(scope="module")
def faulty(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedConsortium]:
    """A consortium whose disks can be made to fail."""
    if not forked.begin():
        pytest.skip(injection.NO_COMPILER)
    with consortia.running(tmp_path_factory.mktemp("faulty"), ("mill-a",)) as one:
        yield one
