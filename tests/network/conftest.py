"""A consortium spread over namespaces, one for all tests of the suite; it starts in about half a minute."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.network.cable import Net, missing, net
from tests.network.spread import SpreadConsortium

SUITE = "KEYONG_NETWORK"


@pytest.fixture(scope="session")
def wire() -> Iterator[Net]:
    if why := missing():
        pytest.skip(why)
    with net() as one:
        yield one


@pytest.fixture(scope="session")
def spread(isolating: None, wire: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpreadConsortium]:
    if not os.environ.get(SUITE):
        pytest.skip(f"takes minutes: `make network` sets {SUITE}")
    one = SpreadConsortium(tmp_path_factory.mktemp("spread"), wire)
    try:
        one.begin()
        yield one
    finally:
        one.stop()
