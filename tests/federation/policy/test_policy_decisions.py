"""The decision: prohibitions over permissions, all constraints or none, and never less than the agreement says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.policy import Constraint, Policy, decide, decision, evaluation, parse_policy
from federation.policy.evaluation import Truth, all_of, any_of, exactly_one
from federation.policy.vocabulary import includes

DIGEST = "sha256:" + "d" * 64


def typed(value: str, datatype: str = "xsd:string") -> dict[str, str]:
    return {"@value": value, "@type": datatype}


def compare(left: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


HOLDS = compare("odrl:count", "lteq", typed("9", "xsd:integer"))
FAILS = compare("odrl:count", "lteq", typed("0", "xsd:integer"))
UNKNOWN = compare("fed:minCellSize", "lteq", typed("1", "xsd:integer"))
NONE_TOO = compare("fed:protection", "isAnyOf", [{"@id": "fed:masked"}, {"@id": "fed:none"}])


def read(raw: dict[str, Any]) -> Policy:
    """The shape alone, so that terms which registration refuses reach evaluation."""
    return Policy.model_validate(raw)


def test_a_permit_records_each_constraint_with_the_value_it_was_judged_by(policy_json, ask) -> None:
    record = decide(DIGEST, parse_policy(policy_json()), ask())
    assert (record.permit, record.rule, record.agreement) == (True, "permission/0", DIGEST)
    assert [(entry.operand, entry.left) for entry in record.constraints] == [
        ("@type", "Agreement"),
        ("profile", "https://w3id.org/keyong/fed/1"),
        ("odrl:assignee", "urn:keyong:member:mill-b"),
        ("odrl:purpose", "fed:RollingForceModel"),
        ("odrl:count", "1"),
        ("odrl:dateTime", "2026-06-01T12:00:00+00:00"),
        ("fed:codeDigest", "sha256:" + "c" * 64),
        ("fed:minTier", "T2"),
        ("fed:minParticipants", "3"),
        ("fed:column", "entry_temperature roll_force"),
        ("fed:protection", "fed:masked"),
        ("duty", "receipt"),
    ]
    assert all(entry.satisfied for entry in record.constraints)
    assert record.constraints[2].note == "Mill B Ltd"
    assert record.constraints[3].note == "permission/0/constraint/0"


def test_inv1_only_the_assignee_may(policy_json, ask) -> None:
    policy = parse_policy(policy_json())
    for stranger in ("mill-a", "mill-c", "", None, 7):
        record = decide("", policy, ask(requester=stranger))
        assert (record.permit, record.rule) == (False, "assignee")


def test_inv1_a_profile_that_is_not_ours_denies(bare_json, ask) -> None:
    record = decide("", read(bare_json(profile="https://w3id.org/keyong/fed/2")), ask())
    assert (record.permit, record.rule) == (False, "profile")


@pytest.mark.parametrize(
    ("granted", "asked", "permitted"),
    [
        ("fed:train", "fed:train", True),
        ("odrl:use", "fed:train", True),
        ("odrl:use", "fed:evaluate", True),
        ("fed:train", "fed:evaluate", False),
        ("fed:train", "odrl:use", False),
        ("odrl:read", "fed:train", False),
        ("odrl:use", "fed:unheardOf", False),
        ("fed:unheardOf", "fed:unheardOf", False),
        ("odrl:use", "", False),
    ],
)
def test_inv1_a_permission_covers_the_actions_it_includes_and_no_others(
    granted, asked, permitted, bare_json, ask
) -> None:
    record = decide("", read(bare_json(permission=[{"action": granted}])), ask(action=asked))
    assert record.permit is permitted
    assert permitted or record.rule == "action"


def test_included_in_is_transitive_and_resolves_deprecated_names() -> None:
    assert includes("odrl:use", "odrl:extract")
    assert includes("odrl:use", "odrl:write")
    assert includes("odrl:write", "odrl:modify")
    assert not includes("odrl:extract", "odrl:use")


@pytest.mark.parametrize(
    ("prohibition", "permitted"),
    [
        ({"action": "odrl:distribute"}, True),
        ({"action": "fed:train"}, False),
        ({"action": "odrl:use"}, False),
        ({"action": "fed:evaluate"}, True),
        ({"action": "fed:trainn"}, False),
        ({"action": "fed:train", "constraint": [HOLDS]}, False),
        ({"action": "fed:train", "constraint": [FAILS]}, True),
        ({"action": "fed:train", "constraint": [UNKNOWN]}, False),
        ({"action": "fed:train", "constraint": [UNKNOWN, HOLDS]}, False),
        ({"action": "fed:train", "constraint": [UNKNOWN, FAILS]}, True),
        ({"action": "fed:train", "constraint": [compare("odrl:purpose", "isA", {"@id": "fed:Marketing"})]}, True),
        ({"action": "fed:train", "constraint": [compare("fed:column", "isAnyOf", [typed("roll_force")])]}, False),
        ({"action": "fed:train", "constraint": [compare("fed:column", "isAnyOf", [typed("alloy")])]}, True),
    ],
)
def test_inv1_a_prohibition_wins_unless_it_is_known_not_to_apply(prohibition, permitted, bare_json, ask) -> None:
    record = decide("", read(bare_json(prohibition=[prohibition])), ask())
    assert record.permit is permitted
    assert permitted or record.rule == "prohibition/0"


def test_inv1_a_purpose_outside_the_table_cannot_escape_a_prohibition(bare_json, ask) -> None:
    ban = {"action": "odrl:use", "constraint": [compare("odrl:purpose", "isA", {"@id": "fed:Marketing"})]}
    policy = parse_policy(bare_json(prohibition=[ban]))
    assert decide("", policy, ask(purpose="fed:Research")).permit
    assert not decide("", policy, ask(purpose="mill:TotallyNotMarketing")).permit
    assert not decide("", policy, ask(purpose=None)).permit


def test_inv1_every_constraint_of_one_permission_must_hold_not_some_of_each(bare_json, ask) -> None:
    purpose = compare("odrl:purpose", "eq", {"@id": "fed:Research"})
    policy = parse_policy(
        bare_json(
            permission=[
                {"action": "fed:train", "constraint": [purpose, HOLDS]},
                {"action": "fed:train", "constraint": [FAILS]},
            ]
        )
    )
    record = decide("", policy, ask())
    assert (record.permit, record.rule) == (False, "purpose")
    assert decide("", policy, ask(purpose="fed:Research")).rule == "permission/0"


def test_the_refusal_is_named_by_the_permission_that_came_closest(bare_json, ask) -> None:
    far = [FAILS, compare("fed:minTier", "gteq", typed("T3"))]
    # The failed branch inside an `or` that holds is not what decides.
    near = [{"or": [FAILS, HOLDS]}, compare("fed:minParticipants", "gteq", typed("9", "xsd:integer"))]
    policy = parse_policy(
        bare_json(permission=[{"action": "fed:train", "constraint": far}, {"action": "fed:train", "constraint": near}])
    )
    assert decide("", policy, ask()).rule == "min-participants"


def test_inv5_unprotected_updates_need_an_agreement_that_says_so_in_words(bare_json, ask) -> None:
    unprotected = ask(protection="fed:none")
    silent = decide("", parse_policy(bare_json(HOLDS)), unprotected)
    assert (silent.permit, silent.rule) == (False, "protection")
    assert silent.constraints[-1].note == "permission/0/default"
    assert decide("", parse_policy(bare_json(NONE_TOO)), unprotected).permit
    assert decide("", parse_policy(bare_json({"and": [NONE_TOO, HOLDS]})), unprotected).permit
    assert decide("", parse_policy(bare_json(HOLDS)), ask()).permit


def test_inv5_it_is_the_default_that_denies_unprotected_updates(bare_json, ask, monkeypatch) -> None:
    policy = parse_policy(bare_json(HOLDS))
    assert not decide("", policy, ask(protection="fed:none")).permit
    monkeypatch.setattr(decision, "speaks_of_protection", lambda permission: True)
    assert decide("", policy, ask(protection="fed:none")).permit


@pytest.mark.parametrize("operator", ["or", "xone"])
def test_inv5_a_choice_that_mentions_protection_does_not_lift_the_default(operator, bare_json, ask) -> None:
    choice = {operator: [compare("fed:protection", "eq", {"@id": "fed:none"}), FAILS]}
    record = decide("", parse_policy(bare_json(choice)), ask(protection="fed:none"))
    assert (record.permit, record.rule) == (False, "protection")


@pytest.mark.parametrize("duty", [{"action": "odrl:sing"}, {"action": "odrl:inform", "constraint": [HOLDS]}])
def test_inv1_a_duty_that_nothing_here_fulfils_denies(duty, bare_json, ask) -> None:
    raw = bare_json(permission=[{"action": "fed:train", "duty": [{"action": "odrl:inform"}, duty]}])
    record = decide("", read(raw), ask())
    assert (record.permit, record.rule) == (False, "duty")


def test_inv1_more_constraints_than_a_record_holds_deny(bare_json, ask) -> None:
    record = decide("", read(bare_json(permission=[{"action": "fed:train", "constraint": [HOLDS] * 197}])), ask())
    assert (record.permit, record.rule, len(record.constraints)) == (False, "too-many-constraints", 200)


def test_kleene_tables() -> None:
    true, false, unknown = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN
    assert [all_of(pair) for pair in [(true, true), (true, unknown), (unknown, false)]] == [true, unknown, false]
    assert [any_of(pair) for pair in [(false, false), (false, unknown), (unknown, true)]] == [false, unknown, true]
    pairs = [(true, false), (true, true), (true, unknown), (false, unknown), (false, false)]
    assert [exactly_one(pair) for pair in pairs] == [true, false, unknown, unknown, false]
    assert exactly_one((true, true, unknown)) is false


@pytest.mark.parametrize(
    "unknown",
    [UNKNOWN, compare("odrl:count", "isA", typed("9", "xsd:integer")), compare("fed:minTier", "gteq", typed("T9"))],
)
def test_inv1_it_is_the_unknown_constraint_that_denies(unknown, bare_json, ask, monkeypatch) -> None:
    """Take the protection away, as evaluators do that drop what nothing evaluates, and the request is permitted."""
    policy = read(bare_json(HOLDS, unknown))
    assert decide("", policy, ask()).rule == "unsupported"

    strict = evaluation.judge_one

    def lenient(constraint: Constraint, request: Any, place: str) -> evaluation.Finding:
        finding = strict(constraint, request, place)
        return dataclasses.replace(finding, truth=Truth.TRUE) if finding.truth is Truth.UNKNOWN else finding

    monkeypatch.setattr(evaluation, "judge_one", lenient)
    assert decide("", policy, ask()).permit


# --- properties ---

ATOMS = [
    HOLDS,
    FAILS,
    UNKNOWN,
    compare("odrl:count", "gteq", typed("0", "xsd:integer")),
    compare("fed:unheardOf", "eq", typed("x")),
    compare("fed:minTier", "gteq", typed("T9")),
    compare("odrl:purpose", "isA", {"@id": "fed:ProcessOptimization"}),
    compare("odrl:purpose", "isA", {"@id": "fed:Marketing"}),
    compare("odrl:purpose", "eq", {"@id": "mill:Trial"}),
    compare("fed:minTier", "gteq", typed("T2")),
    compare("fed:minParticipants", "gteq", typed("2", "xsd:integer")),
    compare("fed:column", "isAnyOf", [typed("roll_force"), typed("entry_temperature")]),
    compare("fed:column", "isAnyOf", [typed("roll_force")]),
    compare("fed:codeDigest", "eq", typed("sha256:" + "c" * 64)),
    compare("odrl:dateTime", "lt", typed("2026-12-31T00:00:00Z", "xsd:dateTime")),
    compare("odrl:recipient", "isAnyOf", [{"@id": "urn:keyong:member:mill-b"}]),
    compare("fed:outputKind", "isAnyOf", [{"@id": "fed:ModelUpdate"}, {"@id": "fed:Metrics"}]),
    compare("fed:maxOutputBytes", "lteq", typed("1000000", "xsd:integer")),
    compare("fed:protection", "eq", {"@id": "fed:masked"}),
]
constraints = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.builds(
        lambda operator, parts: {operator: parts},
        st.sampled_from(["and", "or", "xone"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
actions = st.sampled_from(["fed:train", "fed:evaluate", "odrl:use", "odrl:read", "fed:unheardOf"])
rules = st.fixed_dictionaries({"action": actions, "constraint": st.lists(constraints, max_size=4)})
permissions = st.lists(rules, min_size=1, max_size=3)
prohibitions = st.lists(rules, max_size=2)
FIELDS = [
    "purpose",
    "requester",
    "code",
    "tier",
    "participants",
    "columns",
    "protection",
    "now",
    "uses_taken",
    "recipients",
    "output_kinds",
    "max_output_bytes",
]


def build(bare_json: Any, permitted: list[Any], banned: list[Any]) -> Policy:
    return read(bare_json(permission=permitted, **({"prohibition": banned} if banned else {})))


@settings(max_examples=settings.default.max_examples // 2)
@given(
    permitted=permissions,
    banned=prohibitions,
    extra=constraints,
    at=st.integers(0, 2),
    protection=st.sampled_from(["fed:masked", "fed:none"]),
)
def test_inv1_adding_a_constraint_never_permits_more(permitted, banned, extra, at, protection, bare_json, ask) -> None:
    """Constraints that name ``fed:none`` are apart: they exist to permit more, and the tests above hold them."""
    request = ask(protection=protection)
    before = decide("", build(bare_json, permitted, banned), request)
    index = at % len(permitted)
    stricter = [
        rule | {"constraint": [*rule["constraint"], extra]} if number == index else rule
        for number, rule in enumerate(permitted)
    ]
    after = decide("", build(bare_json, stricter, banned), request)
    assert before.permit or not after.permit


@settings(max_examples=settings.default.max_examples // 2)
@given(permitted=permissions, banned=prohibitions, extra=rules)
def test_inv1_adding_a_prohibition_never_permits_more(permitted, banned, extra, bare_json, ask) -> None:
    before = decide("", build(bare_json, permitted, banned), ask())
    after = decide("", build(bare_json, permitted, [*banned, extra]), ask())
    assert before.permit or not after.permit


@settings(max_examples=settings.default.max_examples // 2)
@given(permitted=permissions, banned=prohibitions, lost=st.sets(st.sampled_from(FIELDS), min_size=1))
def test_inv1_knowing_less_never_permits_more(permitted, banned, lost, bare_json, ask) -> None:
    policy = build(bare_json, permitted, banned)
    before = decide("", policy, ask())
    after = decide("", policy, ask(**dict.fromkeys(lost)))
    assert before.permit or not after.permit


@settings(max_examples=settings.default.max_examples // 2)
@given(permitted=permissions, banned=prohibitions)
def test_inv7_a_record_explains_itself(permitted, banned, bare_json, ask) -> None:
    """A permit rests on satisfied entries of the permission that it names, none missing; a denial on something else."""
    record = decide("", build(bare_json, permitted, banned), ask())
    assert record.rule
    if record.permit:
        index = int(record.rule.removeprefix("permission/"))
        for number in range(len(permitted[index]["constraint"])):
            own = [
                entry
                for entry in record.constraints
                if entry.note.split(";")[0] == f"{record.rule}/constraint/{number}"
            ]
            assert len(own) == 1
            assert own[0].satisfied
            assert own[0].left
    else:
        prohibited = [index for index in range(len(banned)) if record.rule == f"prohibition/{index}"]
        failed = [entry for entry in record.constraints if not entry.satisfied]
        assert prohibited or failed or record.rule == "action"


def event(name: str) -> dict[str, Any]:
    return compare("odrl:event", "eq", {"@id": f"event:{name}"})


def test_a_sequence_holds_where_each_part_holds_after_the_one_before(bare_json, ask) -> None:
    policy = parse_policy(bare_json({"andSequence": [event("signed"), event("tested"), HOLDS]}))
    assert decide("", policy, ask(events=("event:signed", "event:tested"))).permit
    backwards = decide("", policy, ask(events=("event:tested", "event:signed")))
    assert (backwards.permit, backwards.rule) == (False, "event")
    early = decide("", policy, ask(events=("event:tested",)))
    assert [one.note.rpartition("; ")[2] for one in early.constraints if one.operand == "odrl:event"][
        1
    ] == "not reached"


def test_a_sequence_that_stops_lifts_no_ban(bare_json, ask) -> None:
    ban = [{"action": "fed:train", "constraint": [{"andSequence": [UNKNOWN, FAILS]}]}]
    assert not decide("", read(bare_json(prohibition=ban)), ask()).permit
    ban = [{"action": "fed:train", "constraint": [{"andSequence": [FAILS, UNKNOWN]}]}]
    assert decide("", read(bare_json(prohibition=ban)), ask()).permit


@pytest.mark.parametrize(
    ("state", "permits"),
    [
        ("no obligation yet", True),
        ("pending: 2", True),
        ("fulfilled: 1", True),
        ("violated: 1, pending: 1", False),
        ("", False),
    ],
)
def test_inv1_an_overdue_duty_denies_and_a_pending_one_does_not(state, permits, bare_json, ask) -> None:
    raw = bare_json(permission=[{"action": "fed:train", "duty": [{"action": "odrl:delete"}]}])
    record = decide("", parse_policy(raw), ask(duties={"odrl:delete": state} if state else {}))
    assert record.permit is permits
    assert permits or record.rule == "delete"


def test_anonymize_is_fulfilled_by_the_owners_rules(bare_json, ask) -> None:
    raw = bare_json(permission=[{"action": "fed:train", "duty": [{"action": "odrl:anonymize"}]}])
    assert decide("", parse_policy(raw), ask(rules="sha256:" + "a" * 64)).permit
    assert decide("", parse_policy(raw), ask(rules=None)).rule == "anonymize"
