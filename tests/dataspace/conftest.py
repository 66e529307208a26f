"""One consortium behind one gateway for all tests of a file: each negotiation is its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataspace.world import NAMES, World


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("dataspace")).serving() as world:
        yield world


@pytest.fixture
def world(served: World) -> World:
    for name in NAMES:
        served.ours(name)
    return served
