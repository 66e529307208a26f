"""Templates, clauses in short form and policies by hand: what is written is what was meant, and bad input is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from federation.errors import UsageError
from federation.policy import CLAUSE_KEYS, agreement_policy, describe, parse_policy
from federation.policy.vocabulary import LATER_ACTIONS
from keyong.cli import _clauses as clauses
from keyong.cli._policy_file import PolicyFileError, completed, read_policy_file
from keyong.templates import TEMPLATES
from tests.keyong.conftest import Run

ANSWERS = {
    "purpose": "fed:QualityControl", "column": "speed,force", "app": "", "cost": "100", "tariff": "CNY; second 0.02",
    "pay-amount": "5000", "count": "3", "expires": "30d",
}  # fmt: skip
EXAMPLES = {
    "elapsed-time": "90d", "metered-time": "2h", "interval": "15m", "not-before": "2026-01-01T00:00:00Z",
    "pay-amount": "5000.50", "group-size": "25", "total-bytes": "1000000", "reply-bytes": "5000",
    "region": "CN", "industry": "C31",
    "runtime": "sha256:" + "a" * 64, "version": "sha256:" + "b" * 64, "event": "tested,signed", "recipient": "mill-b",
    "output": "Metrics,ModelUpdate", "banned-column": "name", "compensate-within": "30d", "delete-within": "7d",
    "attribute-within": "1d", "compensate-amount": "500", "anonymize": "yes",
}  # fmt: skip


def policy_of(given: clauses.Given) -> Any:
    wanted = clauses.gather("plates", given)
    policy = agreement_policy(
        provider="mill-a", consumer="mill-b", dataset="plates", now=datetime(2026, 1, 1, tzinfo=UTC),
        agreement_id="urn:uuid:00000000-0000-4000-8000-000000000001", **wanted.policy,
    )  # fmt: skip
    return parse_policy(policy)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_template_makes_a_policy_that_both_languages_describe(name: str) -> None:
    asked = [f"{key}={ANSWERS[key]}" for key in TEMPLATES[name].asks if ANSWERS[key]]
    given = clauses.Given().over(clauses.terms_of(name, asked))
    if any(f"fed:{action}" in LATER_ACTIONS for action in given.action or ()):
        with pytest.raises(UsageError, match="not supported by this release"):
            policy_of(given)
        return
    policy = policy_of(given)
    for lang in ("en", "zh"):
        said = describe(policy, lang)
        assert len(said) > len(policy.permission) * 5 and not any("odrl:" in sentence for sentence in said)


def test_three_months_ten_runs_these_columns_no_fewer_than_five_companies() -> None:
    given = clauses.Given(purpose=["fed:Research"]).over(clauses.terms_of("limited", ["column=speed,force"]))
    said = " ".join(describe(policy_of(given), "en"))
    for words in (
        "At most 10 job plans",
        "At least 5 companies",
        "speed, force",
        "Updates leave the company masked only",
    ):
        assert words in said


def test_every_short_form_becomes_a_clause() -> None:
    assert set(EXAMPLES) == set(CLAUSE_KEYS)
    base = ["purpose=fed:Research", "expires=30d"]
    for key, value in EXAMPLES.items():
        extra = ["compensate-within=30d"] if key == "compensate-amount" else []
        policy = policy_of(clauses.Given().over(clauses.terms_of(None, [*base, *extra, f"{key}={value}"])))
        plain = policy_of(clauses.Given().over(clauses.terms_of(None, base)))
        assert policy.permission != plain.permission, key
        assert describe(policy, "zh") != describe(plain, "zh"), key


def test_options_win_over_settings_and_settings_over_templates() -> None:
    terms = clauses.terms_of("limited", ["count=7", "participants="])
    given = clauses.Given(expires="5d", purpose=["fed:Research"]).over(terms)
    assert (given.count, given.expires, given.min_participants, given.min_tier) == (7, "5d", None, "T2")


@pytest.mark.parametrize(
    "settings",
    ["count", "colour=red", "count=many", "count=0", "approval=perhaps", "metered-time=2 hours", "anonymize=x"],
)
def test_a_setting_that_is_none_is_refused(settings: str) -> None:
    with pytest.raises(UsageError):
        policy_of(clauses.Given().over(clauses.terms_of(None, ["purpose=fed:Research", "expires=30d", settings])))


BAD: list[tuple[bytes, str]] = [
    (b"", "is not JSON: line 1"),
    (b'{"permission": [', "is not JSON: line 1, column"),
    (b"\xff\xfe", "is not UTF-8"),
    (b"[]", "holds no policy, but a list"),
    (b'{"permission": [], "permission": []}', "the key permission stands there twice"),
    (b"[" * 100_000, "is not one policy"),
    (b" " * 600_000, "larger than any policy"),
]


@pytest.mark.parametrize(("data", "words"), BAD, ids=[words for _, words in BAD])
def test_a_file_that_is_no_policy_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes(data)
    with pytest.raises(PolicyFileError) as caught:
        read_policy_file(tmp_path / "policy.json")
    assert words in caught.value.message


COUNT = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "3", "@type": "xsd:integer"}}
PARTIES = {"provider": "mill-a", "consumer": "mill-b", "dataset": "plates"}
IDENTITY = "urn:uuid:00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ({}, "permission"),
        ({"@context": "http://www.w3.org/ns/odrl.jsonld", "permission": [{"action": "fed:train"}]}, "@context"),
        ({"permission": {"action": "fed:train"}}, "permission"),
        ({"permission": [{"action": "train"}]}, "permission/0/action"),
        ({"target": "urn:other", "permission": [{"action": "fed:train"}]}, "target"),
        ({"assignee": "urn:keyong:member:mill-c", "permission": [{"action": "fed:train"}]}, "assignee"),
        ({"permission": [{"action": "fed:train"}], "prohibition": [{"action": "odrl:use"}]}, "permission/0"),
        (
            {"permission": [{"action": "fed:train", "constraint": [COUNT, COUNT | {"operator": "gt"}]}]},
            "permission/0/constraint/1",
        ),
    ],
    ids=str,
)
def test_a_bad_policy_is_refused_with_its_place(policy: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        completed(policy, **PARTIES, identity=IDENTITY)
    assert caught.value.message.startswith(place)


def test_a_policy_by_hand_is_completed_and_explained(tmp_path: Path, keyong: Run) -> None:
    written = {"permission": [{"action": "fed:train", "constraint": [{"andSequence": [COUNT]}]}]}
    whole = completed(written, **PARTIES, identity=IDENTITY)
    (tmp_path / "policy.json").write_text(json.dumps(whole))
    ran = keyong("agreement", "explain", tmp_path / "policy.json")
    assert ran.code == 0 and "one after the other: At most 3 job plans in all" in ran.out
    ran = keyong("--lang", "zh", "agreement", "explain", tmp_path / "policy.json")
    assert ran.code == 0 and "依次成立" in ran.out
    (tmp_path / "policy.json").write_text(json.dumps(whole)[:-5])
    ran = keyong("agreement", "explain", tmp_path / "policy.json")
    assert ran.code == 2 and "is not JSON" in ran.err and "Traceback" not in ran.err
