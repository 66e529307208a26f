"""What cannot be taken back is done after a yes alone: of a person at a terminal, or said before as ``--yes``."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from keyong.cli import _output
from tests.keyong.conftest import Run


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("act", [("keys", "rotate"), ("ledger", "begin")])
def test_nobody_to_be_asked_is_no_yes(keyong: Run, founder: Path, act: tuple[str, ...], form: str) -> None:
    before = sorted(path.name for path in founder.rglob("*.key"))
    ran = keyong("--home", founder, *act, "--format", form)
    assert ran.code == 2 and "--yes" in ran.err, ran.err
    assert sorted(path.name for path in founder.rglob("*.key")) == before


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("", 1), ("y\n", 0), ("是\n", 0)])
def test_a_person_is_asked_whatever_the_form(
    keyong: Run, founder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, form: str
) -> None:
    monkeypatch.setattr(_output, "interactive", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    version = keyong("--home", founder, "consortium", "roster", "--format", "json").json["version"]
    ran = keyong("--home", founder, "keys", "rotate", "--format", form)
    assert bool(ran.code) == bool(code), ran.err
    after = keyong("--home", founder, "consortium", "roster", "--format", "json").json["version"]
    assert after == version + (not code)
