"""What an agreement may demand around a use: the owner's approval, the owner's review, slots, a bound on bits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation.policy import agreement_policy, decide, demands, describe, parse_policy, refusal

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def policy(**terms: Any) -> Any:
    values: dict[str, Any] = {
        "provider": "mill-a", "consumer": "mill-b", "dataset": "plates", "actions": ["fed:train"],
        "purposes": [], "count": None, "expires": NOW + timedelta(days=1), "now": NOW,
        "agreement_id": "urn:uuid:00000000-0000-4000-8000-000000000001",
    }  # fmt: skip
    return parse_policy(agreement_policy(**(values | terms)))


def test_what_is_demanded_is_what_was_written() -> None:
    plain = demands(policy(), "fed:train")
    assert (plain.approval, plain.review, plain.slot_seconds, plain.leak_bounded) == (False, False, 0, False)
    written = policy(approval=True, review=True, release_slot=60, max_leak_bits=1000)
    found = demands(written, "fed:train")
    assert (found.approval, found.review, found.slot_seconds, found.leak_bounded) == (True, True, 60, True)
    assert demands(written, "fed:evaluate") == plain  # no permission covers it


def test_of_several_permissions_the_strictest_counts() -> None:
    raw = policy(release_slot=60).model_dump(by_alias=True, exclude_none=True)
    other = policy(review=True, release_slot=90).model_dump(by_alias=True, exclude_none=True)
    raw["permission"] = [*raw["permission"], {**other["permission"][0], "action": "odrl:use"}]
    found = demands(parse_policy(raw), "fed:train")
    assert (found.review, found.slot_seconds) == (True, 90)


def test_inv1_without_the_owners_approval_it_is_denied_and_says_why(ask: Any) -> None:
    record = decide("", policy(approval=True), ask(consent=None, consent_missing="refused by the owner"))
    assert (record.permit, record.rule) == (False, "approval")
    error = refusal(record)
    assert (error.code, error.exit_code) == ("approval", 3)
    assert "refused by the owner" in error.message and "approvals" in error.hint
    permitted = decide("", policy(approval=True), ask(consent="approval ab12, entry 7, at most 99 bits"))
    judged = [one for one in permitted.constraints if one.right == "odrl:obtainConsent"]
    assert permitted.permit and [one.left for one in judged] == ["approval ab12, entry 7, at most 99 bits"]


def test_inv1_an_output_that_nobody_would_hold_is_denied(ask: Any) -> None:
    record = decide("", policy(review=True), ask(reviewed=False))
    assert (record.permit, record.rule) == (False, "review")
    assert refusal(record).code == "review"
    assert decide("", policy(review=True), ask(reviewed=True)).permit


@pytest.mark.parametrize(
    ("terms", "english", "chinese"),
    [
        ({"approval": True}, "approves each version of the code", "批准"),
        ({"review": True}, "looks at each output", "查看"),
        ({"max_leak_bits": 4096}, "At most 4096 bits leave", "4096 比特"),
        ({"release_slot": 60}, "time slots of 60 seconds", "60 秒的时间片"),
    ],
)
def test_each_is_said_in_words_before_anybody_signs(terms: dict[str, Any], english: str, chinese: str) -> None:
    assert any(english in sentence for sentence in describe(policy(**terms), "en"))
    assert any(chinese in sentence for sentence in describe(policy(**terms), "zh"))
    assert not any(english in sentence for sentence in describe(policy(), "en"))


def test_inv1_answers_without_noise_want_the_words_in_every_permission_that_could_let_them_through() -> None:
    def found(*permissions: dict[str, Any]) -> bool:
        raw = policy().model_dump(by_alias=True, exclude_none=True)
        raw["permission"] = list(permissions)
        return demands(parse_policy(raw), "fed:train").unbounded

    def permission(*constraints: dict[str, Any]) -> dict[str, Any]:
        return {"action": "fed:train", "constraint": list(constraints)}

    words = {"leftOperand": "fed:rho", "operator": "lteq", "rightOperand": {"@id": "fed:unbounded"}}
    bound = words | {"rightOperand": {"@value": "0.1", "@type": "xsd:decimal"}}
    purpose = {"leftOperand": "odrl:purpose", "operator": "isA", "rightOperand": {"@id": "fed:Research"}}
    assert found(permission(words)) and found(permission(purpose, {"and": [words, purpose]}))
    assert found(permission(words), permission(bound))  # the second denies whatever has no noise
    assert not found(permission(bound)) and not found(permission(purpose))
    assert not found(permission(words), permission(purpose))
    assert not found(permission({"or": [words, purpose]}))


def test_a_prohibition_that_speaks_of_the_budget_is_judged_by_it(ask: Any) -> None:
    raw = policy().model_dump(by_alias=True, exclude_none=True)
    bound = {"leftOperand": "fed:rho", "operator": "lteq", "rightOperand": {"@value": "0.1", "@type": "xsd:decimal"}}
    raw["prohibition"] = [{"action": "fed:train", "constraint": [bound]}]
    written = parse_policy(raw)
    assert demands(written, "fed:train").rho_bounded
    assert decide("", written, ask(rho=100_001)).permit
    assert not decide("", written, ask(rho=100_000)).permit
    assert not decide("", written, ask(rho=None)).permit
