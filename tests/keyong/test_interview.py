"""``keyong agreement new``: the questions of each template lead to a policy; a bad answer is asked again; nothing is guessed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from federation.errors import UsageError
from federation.policy import describe, parse_policy
from keyong.cli import _clauses as clauses
from keyong.cli._interview import FREE, QUESTIONS, interview
from keyong.templates import TEMPLATES
from tests.keyong.test_agreement_templates import policy_of

ANSWERS = {
    "purpose": "fed:QualityControl", "count": "4", "expires": "20d", "column": "speed,force", "participants": "6", "app": "",
    "cost": "100", "tariff": "CNY; second 0.02", "pay-amount": "5000", "metered-time": "2h",
}  # fmt: skip


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def lines(*given: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{one}\n" for one in given)))

    return lines


@pytest.mark.parametrize("name", [*sorted(TEMPLATES), FREE])
def test_each_template_asks_what_it_leaves_open(
    name: str, answer: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    asks = (
        TEMPLATES[name].asks
        if name != FREE
        else ("purpose", "count", "expires", "column", "participants", "metered-time")
    )
    answer("mill-b", "plates", name, *(ANSWERS[key] for key in asks))
    to, dataset, given = interview(None, None, clauses.Given(), None, None)
    assert (to, dataset) == ("mill-b", "plates") and not sys.stdin.read(), "every answer was asked for, and no other"
    asked = capsys.readouterr().err
    assert all(QUESTIONS[key][0] in asked for key in asks)
    said = " ".join(
        describe(parse_policy(policy_of(given).model_dump(mode="json", by_alias=True, exclude_none=True)), "en")
    )
    expected = {"count": "At most 4 job plans", "column": "speed, force", "participants": "At least 6 companies"}
    assert all(words in said for key, words in expected.items() if key in asks), said


def test_what_was_given_is_not_asked_and_a_bad_answer_is_asked_again(answer: Callable[..., None]) -> None:
    answer("no such template", "limited", "fed:QualityControl", "")
    _, _, given = interview("mill-b", "plates", clauses.Given(count=2), None, None)
    assert (given.count, given.purpose, given.min_participants) == (2, ["fed:QualityControl"], 5)
    answer("limited", "fed:QualityControl")
    with pytest.raises(UsageError, match="input ended before every question"):
        interview("mill-b", "plates", clauses.Given(), None, None)
    answer("train-only", "fed:QualityControl", "many", "7", "some day", "30d")
    _, _, given = interview("mill-b", "plates", clauses.Given(), None, None)
    assert (given.count, given.expires) == (7, "30d")
