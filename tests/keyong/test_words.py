"""Codes in words: each that a coordinator says has one, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.metrics import ENDS
from keyong.cli import _words as words
from keyong.text import speaking, translate_data
from tests.keyong.conftest import Run

SOURCES = Path(__file__).parents[2] / "coordinator"
COORDINATOR = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.py"))


def test_every_status_and_event_of_the_coordinator_has_its_word() -> None:
    assert set(ENDS) | {"submitted", "running"} <= set(words.STATUSES)
    said = set(re.findall(r'(?:_tell|feed\.tell)\((?:[a-z.]+, )?"([a-z-]+)"', COORDINATOR))
    assert {"started", "round", "fell-out"} <= said <= set(words.EVENTS)


@pytest.mark.parametrize("reason", words.REASONS)
def test_each_reason_is_one_that_a_coordinator_gives(reason: str) -> None:
    assert f'"{reason}"' in COORDINATOR


@pytest.mark.parametrize("table", [words.STATUSES, words.EVENTS, words.DETAILS, words.ANCHORINGS, words.STAGES])
def test_each_word_is_translated(table: dict[str, str]) -> None:
    with speaking("zh"):
        assert not [word for word in table.values() if translate_data(word).isascii()]


def test_a_code_of_a_newer_coordinator_is_shown_as_it_is() -> None:
    assert words.word(words.STATUSES, "paused") == "paused"


def test_a_roster_and_what_cannot_be_a_name_are_chinese_throughout(keyong: Run, founder: Path) -> None:
    told = keyong("--lang", "zh", "--home", founder, "consortium", "roster").out
    assert "成员、协调方、分析方" in told and "analyst" not in told
    told = keyong("--lang", "zh", "--home", founder, "consortium", "invite", "Mill A", "--entity", "x").err
    assert "成员名称" in told
    roles = keyong("--home", founder, "consortium", "roster", "--format", "json").json["members"][0]["roles"]
    assert roles == ["member", "coordinator", "analyst"], "JSON has the codes"
