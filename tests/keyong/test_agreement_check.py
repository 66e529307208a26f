"""``keyong agreement check`` and ``diff``: the answer a request would get, before anybody is asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from federation import correspondence
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.policy import agreement_policy
from federation.statements import Agreement
from keyong.cli.agreement_check import sentences_changed
from tests.keyong.conftest import Run

CODE = "sha256:" + "c" * 64
IDS = tuple(f"urn:uuid:{letter * 8}-0000-4000-8000-00000000000{place}" for place, letter in enumerate("abc", 1))


@pytest.fixture
def offers(founder: Path) -> Path:
    """The founder's home with offers to mill-a: one plain, one for more uses and fewer columns, one with a privacy budget."""
    home = Home(founder)
    holdings = Holdings(open_engine(founder / "store.db"))
    at = now()
    for identifier, changes in zip(IDS, ({}, {"count": 5, "columns": ["force"]}, {"rho": "0.1"}), strict=True):
        terms: dict[str, Any] = {
            "provider": "inst",
            "consumer": "mill-a",
            "dataset": "passes",
            "actions": ["fed:train"],
            "purposes": ["fed:ProcessOptimization"],
            "count": 2,
            "expires": at + timedelta(days=30),
            "code": CODE,
            "min_participants": 3,
            "columns": ["force", "speed"],
            "agreement_id": identifier,
            "now": at,
        }
        agreement = Agreement(
            issued=at,
            expires=at + timedelta(days=30),
            id=identifier,
            provider="inst",
            consumer="mill-a",
            dataset="passes",
            title="Passes",
            roster=home.history.digest,
            policy=agreement_policy(**(terms | changes)),
        )
        correspondence.keep(holdings, agreement.seal(home.key("statement")), "offered", agreement, at)
    return founder


GOOD = ("--purpose", "fed:RollingForceModel", "--participants", 3, "--code", CODE)


def test_a_request_that_fits_is_permitted_clause_by_clause(keyong: Run, offers: Path) -> None:
    ran = keyong("--home", offers, "agreement", "check", "aaaa", *GOOD)
    assert ran.code == 0, ran.err
    assert "permitted" in ran.err and "odrl:count" in ran.out and "no" not in ran.out.split()
    record = keyong("--home", offers, "agreement", "check", "aaaa", *GOOD, "--format", "json").json["decision"]
    assert record["permit"] is True and all(one["satisfied"] for one in record["constraints"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (("--purpose", "fed:Marketing"), "purpose"),
        (("--participants", 2), "min-participants"),
        (("--code", "sha256:" + "d" * 64), "code-digest"),
        (("--uses", 2), "count"),
        (("--column", "speed", "--column", "grade"), "column"),
        (("--protection", "none"), "protection"),
        (("--action", "evaluate"), "action"),
        (("--at", "31d"), "date-time"),
    ],
)
def test_what_does_not_fit_says_which_clause_and_exits_3(
    keyong: Run, offers: Path, changes: tuple[object, ...], code: str
) -> None:
    ran = keyong("--home", offers, "agreement", "check", "aaaa", *GOOD, *changes, "--format", "json")
    assert ran.code == 3 and ran.json["decision"]["rule"] == code


def test_what_was_not_said_is_not_known_and_denies(keyong: Run, offers: Path) -> None:
    ran = keyong("--home", offers, "agreement", "check", "aaaa", "--purpose", "fed:RollingForceModel", "--code", CODE)
    assert ran.code == 3 and "not known" in ran.out


@pytest.mark.parametrize(
    ("said", "code", "found"),
    [
        (("--rho", "0.1"), 0, "0.1"),
        (("--rho", "0.100001"), 3, "0.100001"),
        (("--rho", "unbounded"), 3, "unbounded"),
        ((), 3, ""),
    ],
)
def test_the_privacy_budget_is_judged_by_what_is_said_of_it(
    keyong: Run, offers: Path, said: tuple[str, ...], code: int, found: str
) -> None:
    ran = keyong("--home", offers, "agreement", "check", "cccc", *GOOD, *said, "--format", "json")
    record = ran.json["decision"]
    assert ran.code == code and (code == 0 or record["rule"] == "rho")
    assert [one["left"] for one in record["constraints"] if one["operand"] == "fed:rho"] == [found]


def test_a_privacy_budget_that_is_none_is_refused(keyong: Run, offers: Path) -> None:
    ran = keyong("--home", offers, "agreement", "check", "cccc", *GOOD, "--rho", "1e-3")
    assert ran.code == 2 and "1e-3 is no privacy budget" in ran.err


def test_checking_takes_no_use_and_writes_nothing(keyong: Run, offers: Path) -> None:
    with Home(offers).open_ledger() as ledger:
        before = ledger.size
    assert keyong("--home", offers, "agreement", "check", "aaaa", *GOOD).code == 0
    with Home(offers).open_ledger() as ledger:
        assert ledger.size == before


def test_two_are_compared_sentence_by_sentence(keyong: Run, offers: Path) -> None:
    ran = keyong("--home", offers, "agreement", "diff", "aaaa", "bbbb")
    assert ran.code == 0
    assert "- At most 2 job plans in all." in ran.out and "+ At most 5 job plans in all." in ran.out
    assert "+ No column is shown but force." in ran.out and "rolling force" not in ran.out
    chinese = keyong("--home", offers, "agreement", "diff", "aaaa", "bbbb", "--lang", "zh")
    assert "+ 总共最多 5 个作业计划。" in chinese.out
    same = keyong("--home", offers, "agreement", "diff", "aaaa", "aaaa", "--format", "json").json
    assert same == {"facts": {}, "changes": []}


def test_a_sentence_that_moved_is_told_as_moved() -> None:
    assert sentences_changed(["a", "b", "c"], ["b", "c", "a"]) == [("-", "a"), ("+", "a")]
