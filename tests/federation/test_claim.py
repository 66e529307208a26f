"""One process serves a home in a role; the claim goes back when it is released."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from federation.home import AlreadyServingError, Claim


def test_a_second_server_of_one_home_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    first = Claim(tmp_path / "node.lock", "node")
    with pytest.raises(AlreadyServingError):
        Claim(tmp_path / "node.lock", "node")
    Claim(tmp_path / "coordinator.lock", "coordinator").release()
    first.release()
    Claim(tmp_path / "node.lock", "node").release()


def test_without_the_lock_two_would_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    for claim in [Claim(tmp_path / "node.lock", "node") for _ in range(2)]:
        claim.release()
