"""Fixtures: a consortium whose coordinator opens real sessions, and one that opens none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from federation.errors import KeyongError
from federation.statements.code import CodeBundle
from keyong import runtime as runtimes
from sandbox import Runtime, Tier
from tests.coordinator import parties


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    try:
        return runtimes.load()
    except KeyongError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture
def live(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    """Sessions are real here; the canary before serving is tested where it is made."""
    monkeypatch.setattr("coordinator.service.prove_tier", lambda floor, **_: Tier.T2)
    return parties.make(tmp_path, runtime)


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No session can be opened here."""
    monkeypatch.setattr("coordinator.service.prove_tier", lambda floor, **_: Tier.T2)
    return parties.make(tmp_path, parties.NOWHERE)


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., CodeBundle]:
    return lambda *args, **files: parties.bundle_of(tmp_path / "app", *args, **files)
