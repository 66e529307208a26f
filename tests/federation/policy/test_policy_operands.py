"""Every operand this release judges: true, false, unknown on the left, unreadable on the right (invariant 1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from federation.policy import Policy, PolicyError, decide, parse_policy
from federation.policy.values import NEVER, UNBOUNDED_RHO
from federation.policy.vocabulary import OPERANDS, ORDER

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def text(value: str, datatype: str = "xsd:string") -> dict[str, str]:
    return {"@value": value, "@type": datatype}


def integer(value: int) -> dict[str, str]:
    return text(str(value), "xsd:integer")


def instant(value: str) -> dict[str, str]:
    return text(value, "xsd:dateTime")


def term(value: str) -> dict[str, str]:
    return {"@id": value}


NOON = instant("2026-06-01T12:00:00Z")
COLUMNS = [text("speed"), text("force")]
MEMBERS = [term("urn:keyong:member:mill-b"), term("urn:keyong:member:mill-c")]
MASKED_OR_NOT = [term("fed:masked"), term("fed:none")]

# operand, operator, right, field of the request, values that hold, values that do not
CASES: list[tuple[str, str, Any, str, list[Any], list[Any]]] = [
    (
        "odrl:purpose",
        "isA",
        term("fed:QualityControl"),
        "purpose",
        ["fed:QualityControl", "fed:DefectDetection"],
        ["fed:ProductionImprovement", "fed:Marketing", "mill:Quality"],
    ),
    ("odrl:purpose", "eq", term("fed:QualityControl"), "purpose", ["fed:QualityControl"], ["fed:DefectDetection"]),
    ("odrl:purpose", "eq", term("mill:Trial7"), "purpose", ["mill:Trial7"], ["mill:Trial8", "fed:Research"]),
    (
        "odrl:purpose",
        "isAnyOf",
        [term("fed:Research"), term("fed:Benchmarking")],
        "purpose",
        ["fed:Research", "fed:Benchmarking"],
        ["fed:Marketing"],
    ),
    ("odrl:count", "lteq", integer(3), "uses_taken", [0, 2], [3, 4]),
    ("odrl:count", "lt", integer(3), "uses_taken", [0, 1], [2, 3]),
    ("odrl:dateTime", "lt", NOON, "now", [AT.replace(hour=11)], [AT, AT.replace(hour=13)]),
    ("odrl:dateTime", "lteq", NOON, "now", [AT], [AT.replace(second=1)]),
    ("odrl:dateTime", "gt", NOON, "now", [AT.replace(second=1)], [AT]),
    ("odrl:dateTime", "gteq", NOON, "now", [AT], [AT.replace(hour=11)]),
    ("odrl:dateTime", "eq", instant("2026-06-01T20:00:00+08:00"), "now", [AT], [AT.replace(hour=20)]),
    ("odrl:dateTime", "neq", NOON, "now", [AT.replace(hour=11)], [AT]),
    (
        "odrl:recipient",
        "isAnyOf",
        MEMBERS,
        "recipients",
        [("mill-b",), ("mill-c", "mill-b")],
        [("mill-d",), ("mill-b", "mill-d")],
    ),
    ("odrl:recipient", "eq", MEMBERS[0], "recipients", [("mill-b",)], [("mill-c",)]),
    ("fed:codeDigest", "eq", text(A), "code", [A], [B]),
    ("fed:rules", "eq", text(A), "rules", [A], [B]),
    ("fed:rules", "isAnyOf", [text(A), text(B)], "rules", [A, B], ["sha256:" + "0" * 64]),
    ("fed:codeDigest", "isAnyOf", [text(A), text(B)], "code", [A, B], ["sha256:" + "0" * 64]),
    ("fed:minTier", "gteq", text("T2"), "tier", ["T2", "T3"], ["T1", "T0"]),
    ("fed:minParticipants", "gteq", integer(3), "participants", [3, 20], [2, 0]),
    ("fed:minGroupSize", "gteq", integer(25), "group_size", [25, 400], [24, 10, 0]),
    ("fed:protection", "eq", term("fed:masked"), "protection", ["fed:masked"], ["fed:none"]),
    ("fed:protection", "eq", term("fed:none"), "protection", ["fed:none"], ["fed:masked"]),
    ("fed:protection", "isAnyOf", MASKED_OR_NOT, "protection", ["fed:masked", "fed:none"], []),
    ("fed:column", "isAnyOf", COLUMNS, "columns", [("speed",), ("force", "speed")], [("alloy",), ("speed", "alloy")]),
    ("fed:column", "eq", text("speed"), "columns", [("speed",)], [("force",)]),
    (
        "fed:outputKind",
        "isAnyOf",
        [term("fed:ModelUpdate"), term("fed:Metrics")],
        "output_kinds",
        [("fed:Metrics",), ("fed:Metrics", "fed:ModelUpdate")],
        [("fed:Arrays",), ("fed:Metrics", "fed:Arrays")],
    ),
    ("fed:outputKind", "eq", term("fed:Metrics"), "output_kinds", [("fed:Metrics",)], [("fed:ModelUpdate",)]),
    ("fed:maxOutputBytes", "lteq", integer(100), "max_output_bytes", [0, 100], [101]),
    ("fed:maxLeakBits", "lteq", integer(5000), "leak_bits", [0, 5000], [5001]),
    ("fed:releaseSlot", "gteq", integer(60), "slot_seconds", [60, 3600], [0, 59]),
    ("fed:rho", "lteq", text("0.1", "xsd:decimal"), "rho", [0, 100_000], [100_001, UNBOUNDED_RHO]),
    ("fed:rho", "lteq", term("fed:unbounded"), "rho", [0, 10**9, UNBOUNDED_RHO], []),
]

C = "sha256:" + "0" * 64
HOUR, EVENTS = timedelta(hours=1), ("event:signed", "event:tested")


def duration(value: str) -> dict[str, str]:
    return text(value, "xsd:duration")


def ordered(left: str, right: Any, field: str, below: Any, same: Any, above: Any) -> list[Any]:
    """Cases of all six operators that compare by order."""
    verdicts = {"lt": "100", "lteq": "110", "gt": "001", "gteq": "011", "eq": "010", "neq": "101"}
    rows = []
    for operator in ORDER:
        judged = list(zip((below, same, above), verdicts[operator], strict=True))
        holds = [value for value, flag in judged if flag == "1"]
        fails = [value for value, flag in judged if flag == "0"]
        rows.append((left, operator, right, field, holds, fails))
    return rows


def one_of(left: str, right: Any, other: Any, field: str, same: Any, different: Any) -> list[Any]:
    """Cases of the operators that compare one value with one or several."""
    return [
        (left, "eq", right, field, [same], [different]),
        (left, "neq", right, field, [different], [same]),
        (left, "isAnyOf", [right, other], field, [same], [different]),
        (left, "isNoneOf", [right, other], field, [different], [same]),
    ]


def sets(left: str, right: Any, other: Any, field: str, a: Any, b: Any, c: Any) -> list[Any]:
    """Cases of the operators on several values; ``right`` names ``a`` and ``other`` names ``b``."""
    return [
        (left, "neq", right, field, [(b,), (b, c)], [(a,), (a, b)]),
        (left, "isAllOf", [right, other], field, [(a, b), (a, b, c)], [(a,), (c,)]),
        (left, "isNoneOf", [right, other], field, [(c,)], [(a,), (a, c)]),
        (left, "hasPart", right, field, [(a,), (a, c)], [(b, c)]),
    ]


CASES += [
    ("odrl:purpose", "isPartOf", term("fed:QualityControl"), "purpose", ["fed:DefectDetection"], ["fed:Marketing"]),
    ("odrl:purpose", "neq", term("fed:QualityControl"), "purpose", ["fed:Marketing"], ["fed:DefectDetection"]),
    ("odrl:purpose", "isNoneOf", [term("fed:Marketing")], "purpose", ["fed:Research"], ["fed:Marketing", "mill:X"]),
    *(case for case in ordered("odrl:count", integer(3), "uses_taken", 1, 2, 3) if case[1] not in ("lt", "lteq")),
    *ordered("odrl:elapsedTime", duration("PT1H"), "elapsed", HOUR / 2, HOUR, HOUR * 2),
    *ordered("odrl:meteredTime", duration("P1D"), "metered", HOUR, 24 * HOUR, 25 * HOUR),
    *ordered("odrl:timeInterval", duration("PT60M"), "interval", HOUR / 2, HOUR, NEVER),
    *ordered("odrl:payAmount", text("500.5", "xsd:decimal"), "paid", Decimal(0), Decimal("500.50"), Decimal("500.51")),
    *ordered("fed:totalOutputBytes", integer(100), "total_bytes", 99, 100, 101),
    *one_of("odrl:systemDevice", text(A), text(B), "device", A, C),
    *one_of("odrl:version", text(A), text(B), "version", A, C),
    *(case for case in one_of("fed:codeDigest", text(A), text(B), "code", A, C) if case[1] in ("neq", "isNoneOf")),
    *(case for case in one_of("fed:rules", text(A), text(B), "rules", A, C) if case[1] in ("neq", "isNoneOf")),
    *one_of("odrl:spatial", text("CN-31"), text("CN-32"), "place", "CN-31", "CN"),
    ("odrl:spatial", "isPartOf", text("CN"), "place", ["CN-31", "CN"], ["DE", "DE-BY"]),
    ("odrl:spatial", "isA", text("CN"), "place", ["CN-31"], ["DE"]),
    ("odrl:spatial", "hasPart", text("CN-31"), "place", ["CN", "CN-31"], ["CN-32"]),
    *one_of("odrl:industry", text("C31"), text("C32"), "industry", "C31", "C33"),
    ("odrl:industry", "isPartOf", text("C31"), "industry", ["C31", "C3130"], ["C32", "C"]),
    ("odrl:industry", "isA", text("C"), "industry", ["C31"], ["D44"]),
    ("odrl:industry", "hasPart", text("C313"), "industry", ["C31", "C"], ["C3130"]),
    *sets("odrl:recipient", MEMBERS[0], MEMBERS[1], "recipients", "mill-b", "mill-c", "mill-d"),
    *sets("fed:column", COLUMNS[0], COLUMNS[1], "columns", "speed", "force", "alloy"),
    *sets("fed:outputKind", term("fed:Metrics"), term("fed:Arrays"), "output_kinds",
          "fed:Metrics", "fed:Arrays", "fed:ModelUpdate"),
    *sets("odrl:event", term("event:signed"), term("event:tested"), "events",
          "event:signed", "event:tested", "event:paid"),
    ("odrl:event", "eq", term("event:signed"), "events", [EVENTS], [("event:paid",), ()]),
    ("odrl:event", "isAnyOf", [term(one) for one in EVENTS], "events", [("event:tested",)], [("event:paid",), ()]),
]  # fmt: skip

UNKNOWN: dict[str, list[Any]] = {
    "elapsed": [None, 3600, -HOUR],
    "metered": [None, 3600.0, -HOUR],
    "interval": [None, "PT1H", -HOUR],
    "paid": [None, 500, -Decimal(1), Decimal("nan")],
    "total_bytes": [None, -1, True],
    "device": [None, "", "T2"],
    "version": [None, "", "1.0"],
    "place": [None, "", "china", "CN-"],
    "industry": [None, "", "steel", "31"],
    "events": [None, ["event:signed"], ("signed",), ("event:signed", None)],
    "purpose": [None, "", "QualityControl", "fed:NoSuchPurpose", "odrl:Research", 7],
    "uses_taken": [None, -1, True, "0"],
    "group_size": [None, -1, True, "25"],
    "now": [None, AT.replace(tzinfo=None), "2026-06-01T12:00:00Z"],
    "recipients": [None, (), ["mill-b"], ("mill-b", None), ("MILL B",)],
    "rules": [None, "", "abc", "sha512:" + "a" * 64, 7],
    "code": [None, "", A.upper(), A + "0", A + "\n"],
    "tier": [None, "", "T4", "t2"],
    "participants": [None, -1, True, 3.0],
    "protection": [None, "", "none", "fed:unknown"],
    "columns": [None, (), ["speed"], ("speed", ""), ("speed", 3)],
    "output_kinds": [None, (), ("fed:Everything",)],
    "max_output_bytes": [None, -1, False],
    "leak_bits": [None, -1, True, 0.5],
    "slot_seconds": [None, -1, "60"],
    "rho": [None, -1, True, 0.1, "0.1"],
}

UNREADABLE: dict[str, list[Any]] = {
    "odrl:purpose": [
        text("fed:Research"),
        term("Research"),
        term("fed:NoSuchPurpose"),
        term("odrl:x"),
        [text("fed:Research")],
    ],
    "odrl:count": [
        text("3"),
        integer(-1),
        text("1e3", "xsd:integer"),
        text("\u0663", "xsd:integer"),
        term("x:3"),
        [integer(3)],
    ],
    "odrl:dateTime": [
        instant("2026-06-01"),
        instant("2026-06-01T12:00:00"),
        instant("2026-13-01T12:00:00Z"),
        text("2026-06-01T12:00:00Z"),
    ],
    "odrl:recipient": [
        [term("mill-b")],
        [term("urn:keyong:member:")],
        [text("urn:keyong:member:mill-b")],
        term("urn:keyong:member:mill-b"),
    ],
    "odrl:elapsedTime": [duration("P1M"), duration("P"), duration("PT"), duration("-P1D"), text("P1D"), integer(3)],
    "odrl:meteredTime": [duration("1h"), duration("P1Y")],
    "odrl:timeInterval": [duration("P1W"), [duration("P1D")]],
    "odrl:payAmount": [text("500"), text("-1", "xsd:decimal"), text("1e3", "xsd:decimal"), term("x:many")],
    "odrl:spatial": [text("china"), term("CN"), text("CN-"), text("cn")],
    "odrl:industry": [text("31"), text("C1"), term("C31")],
    "odrl:systemDevice": [text("abc"), term(A)],
    "odrl:version": [text("1.0"), term(A)],
    "odrl:event": [[text("event:signed")], [term("signed")], [term("event:")]],
    "fed:totalOutputBytes": [text("1 MB", "xsd:integer"), term("fed:small")],
    "fed:rules": [text("abc"), text("sha512:" + "a" * 64), term(A)],
    "fed:codeDigest": [text("abc"), text("sha512:" + "a" * 64), term(A)],
    "fed:minTier": [text("T9"), text("2"), term("T2"), text("T2", "xsd:token")],
    "fed:minGroupSize": [text("ten", "xsd:integer"), integer(-3), text("3", "xsd:decimal"), term("fed:ten")],
    "fed:minParticipants": [text("three", "xsd:integer"), integer(-3), text("3", "xsd:decimal")],
    "fed:protection": [term("none"), term("fed:other"), text("fed:none")],
    "fed:column": [text("speed"), [term("speed")]],
    "fed:outputKind": [[term("fed:Everything")], [text("fed:Metrics")]],
    "fed:maxOutputBytes": [text("1 MB", "xsd:integer"), term("fed:small")],
    "fed:maxLeakBits": [text("1e6", "xsd:integer"), term("fed:few")],
    "fed:releaseSlot": [text("1 min", "xsd:integer"), integer(-1)],
    "fed:rho": [
        text("unbounded", "xsd:decimal"),
        text("1e-3", "xsd:decimal"),
        text("0.0000001", "xsd:decimal"),
        integer(1),
    ],
}


def constraint(left: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def names(case: tuple[Any, ...]) -> str:
    return f"{case[0]}-{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=names)
def test_inv1_a_true_constraint_permits_and_a_false_one_denies(case, bare_json, ask) -> None:
    left, operator, right, field, holds, fails = case
    policy = parse_policy(bare_json(constraint(left, operator, right)))
    for value in holds:
        record = decide("", policy, ask(**{field: value}))
        assert record.permit, (value, record)
    for value in fails:
        record = decide("", policy, ask(**{field: value}))
        assert not record.permit, value
        assert record.rule == OPERANDS[left].code
        judged = next(entry for entry in record.constraints if entry.operand == left)
        assert not judged.satisfied
        assert judged.left != "", "a known value must be on record"


@pytest.mark.parametrize("case", CASES, ids=names)
def test_inv1_what_is_not_known_denies_and_leaves_no_value(case, bare_json, ask) -> None:
    left, operator, right, field, *_ = case
    policy = parse_policy(bare_json(constraint(left, operator, right)))
    for value in UNKNOWN[field]:
        record = decide("", policy, ask(**{field: value}))
        assert not record.permit, value
        judged = next(entry for entry in record.constraints if entry.operand == left)
        assert (judged.left, judged.satisfied) == ("", False)
        assert judged.note.endswith("not known here")


@pytest.mark.parametrize("left", sorted(OPERANDS))
def test_inv1_an_unreadable_right_side_is_refused_at_registration_and_denies_at_evaluation(
    left, bare_json, ask
) -> None:
    for right in UNREADABLE[left]:
        operator = (
            "isAnyOf"
            if isinstance(right, list) and "isAnyOf" in OPERANDS[left].operators
            else next(one for one in OPERANDS[left].operators if one != "isAnyOf" or isinstance(right, list))
        )
        raw = bare_json(constraint(left, operator, right))
        with pytest.raises(PolicyError) as caught:
            parse_policy(raw)
        assert caught.value.place == "permission/0/constraint/0", right
        record = decide("", Policy.model_validate(raw), ask())
        assert (record.permit, record.rule) == (False, "unsupported"), right


def test_every_operand_has_cases_for_each_of_its_operators() -> None:
    covered = {(case[0], case[1]) for case in CASES}
    assert covered == {(left, operator) for left, operand in OPERANDS.items() for operator in operand.operators}
    assert set(UNREADABLE) == set(OPERANDS)
    assert set(UNKNOWN) == {case[3] for case in CASES}


@pytest.mark.parametrize("left", ["fed:notThere", "count", "odrl:count ", "xsd:count"])
def test_inv1_operands_this_release_cannot_judge_are_refused_and_deny(left, bare_json, ask) -> None:
    raw = bare_json(constraint(left, "eq", text("x")))
    with pytest.raises(PolicyError, match="not known here"):
        parse_policy(raw)
    record = decide("", Policy.model_validate(raw), ask())
    assert (record.permit, record.rule) == (False, "unsupported")


@pytest.mark.parametrize(
    "operator", ["isNoneOf", "isPartOf", "hasPart", "isAllOf", "term-lteq", "isA", "LTEQ", "odrl:lteq", "in"]
)
def test_inv1_an_operator_the_operand_does_not_take_is_refused_and_denies(operator, bare_json, ask) -> None:
    raw = bare_json(constraint("odrl:count", operator, integer(10)))
    with pytest.raises(PolicyError, match="does not take the operator"):
        parse_policy(raw)
    record = decide("", Policy.model_validate(raw), ask())
    assert (record.permit, record.rule) == (False, "unsupported")


def test_a_plan_that_goes_on_is_not_counted_twice(bare_json, ask) -> None:
    policy = parse_policy(bare_json(constraint("odrl:count", "lteq", integer(1))))
    assert decide("", policy, ask(uses_taken=0)).permit
    assert not decide("", policy, ask(uses_taken=1)).permit
    assert decide("", policy, ask(uses_taken=1, continuing=True)).permit
    assert not decide("", policy, ask(uses_taken=2, continuing=True)).permit
    # It claims to hold a use, but none is taken: one of the two is wrong.
    assert not decide("", policy, ask(uses_taken=0, continuing=True)).permit


def test_a_long_list_is_recorded_by_its_beginning_its_length_and_its_digest(bare_json, ask) -> None:
    columns = tuple(f"sensor_{number:03}" for number in range(100))
    policy = parse_policy(bare_json(constraint("fed:column", "isAnyOf", [text(name) for name in columns])))
    record = decide("", policy, ask(columns=columns))
    judged = next(entry for entry in record.constraints if entry.operand == "fed:column")
    assert record.permit
    assert "100 in all, sha256:" in judged.left
    assert judged.left == judged.right
    other = decide("", policy, ask(columns=(*columns[:-1], "sensor_999")))
    assert not other.permit
    assert next(entry for entry in other.constraints if entry.operand == "fed:column").left != judged.left
