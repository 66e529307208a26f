"""Refusals name the clause and the fix (invariant 7), for every code a decision can come to."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from federation.errors import DeniedError
from federation.policy import Policy, PolicyDeniedError, decide, parse_policy, refusal
from federation.policy.vocabulary import OPERANDS
from federation.statements import Receipt

MEMBER = "urn:keyong:member:"

CASES: list[tuple[str, dict[str, Any], str]] = [
    (
        "purpose",
        {"purpose": "fed:Marketing"},
        "does not permit the purpose fed:Marketing, only fed:ProcessOptimization",
    ),
    ("count", {"uses_taken": 3}, "this would be use 4 of the agreement, which permits at most 3"),
    ("date-time", {"now": datetime(2027, 1, 1, tzinfo=UTC)}, "it is 2027-01-01T00:00:00+00:00, and"),
    ("code-digest", {"code": "sha256:" + "d" * 64}, "the job's code is sha256:dddd"),
    ("min-tier", {"tier": "T1"}, "the node can isolate the job at tier T1, and the agreement demands T2"),
    ("min-participants", {"participants": 2}, "2 companies besides you take part, and the agreement demands 3"),
    ("column", {"columns": ("roll_force", "alloy")}, "asks for columns roll_force alloy"),
    (
        "protection",
        {"protection": "fed:none"},
        "the plan's protection is fed:none, and the agreement permits fed:masked",
    ),
    ("assignee", {"requester": "mill-c"}, "the agreement is not with you"),
    ("action", {"action": "fed:evaluate"}, "does not permit this action"),
]


@pytest.mark.parametrize(("code", "changes", "sentence"), CASES, ids=[case[0] for case in CASES])
def test_inv7_the_clause_and_the_fix(code, changes, sentence, policy_json, ask) -> None:
    record = decide("", parse_policy(policy_json()), ask(**changes))
    error = refusal(record)
    assert isinstance(error, DeniedError)
    assert (error.code, error.exit_code, error.record) == (code, 3, record)
    assert sentence in error.message
    assert error.hint


def _value(text: str, datatype: str = "xsd:string") -> dict[str, str]:
    return {"@value": text, "@type": datatype}


_DIGEST, _OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MEASURES: list[tuple[str, str, Any, dict[str, Any], str]] = [
    ("metered-time", "odrl:meteredTime", _value("PT1H", "xsd:duration"), {"metered": timedelta(hours=2)}, "PT7200S of"),
    (
        "elapsed-time",
        "odrl:elapsedTime",
        _value("PT1H", "xsd:duration"),
        {"elapsed": timedelta(hours=2)},
        "PT7200S ago",
    ),
    ("time-interval", "odrl:timeInterval", _value("PT1H", "xsd:duration"), {"interval": timedelta(hours=2)}, "PT7200S"),
    (
        "pay-amount",
        "odrl:payAmount",
        _value("5", "xsd:decimal"),
        {"paid": Decimal("5.01")},
        "5.01 are owed or reserved",
    ),
    ("total-output-bytes", "fed:totalOutputBytes", _value("5", "xsd:integer"), {"total_bytes": 6}, "6 bytes may have"),
    ("spatial", "odrl:spatial", _value("CN"), {"place": "DE"}, "computes in DE"),
    ("industry", "odrl:industry", _value("C31"), {"industry": "D44"}, "industry is D44"),
    ("system-device", "odrl:systemDevice", _value(_DIGEST), {"device": _OTHER}, "runtime sha256:bbbb"),
    ("version", "odrl:version", _value(_DIGEST), {"version": _OTHER}, "is version sha256:bbbb"),
    ("event", "odrl:event", [{"@id": "event:signed"}], {"events": ()}, "has happened is none"),
]
OUTPUTS: list[tuple[str, str, Any, dict[str, Any], str]] = [
    (
        "recipient",
        "odrl:recipient",
        [{"@id": MEMBER + "mill-b"}],
        {"recipients": ("mill-b", "mill-c")},
        MEMBER + "mill-c",
    ),
    ("output-kind", "fed:outputKind", [{"@id": "fed:Metrics"}], {"output_kinds": ("fed:Arrays",)}, "fed:Arrays"),
    (
        "max-output-bytes",
        "fed:maxOutputBytes",
        {"@value": "5", "@type": "xsd:integer"},
        {"max_output_bytes": 6},
        "may reach 6 bytes",
    ),
    (
        "leak-budget",
        "fed:maxLeakBits",
        {"@value": "5", "@type": "xsd:integer"},
        {"leak_bits": 6},
        "with this plan 6 bits may have left",
    ),
    (
        "release-slot",
        "fed:releaseSlot",
        {"@value": "60", "@type": "xsd:integer"},
        {"slot_seconds": 5},
        "at time slots of 5 seconds, and the agreement demands 60 or more",
    ),
    (
        "min-group-size",
        "fed:minGroupSize",
        {"@value": "25", "@type": "xsd:integer"},
        {"group_size": 10},
        "may rest on as few as 10 subjects, and the agreement demands 25",
    ),
    (
        "rho",
        "fed:rho",
        {"@value": "0.1", "@type": "xsd:decimal"},
        {"rho": 100_001},
        "with this plan rho 0.100001 is spent under the agreement, which permits 0.1 in all",
    ),
    (
        "rules",
        "fed:rules",
        {"@value": "sha256:" + "a" * 64, "@type": "xsd:string"},
        {"rules": "sha256:" + "b" * 64},
        "desensitised by the rules sha256:bbbb",
    ),
]


@pytest.mark.parametrize(
    ("code", "operand", "right", "changes", "sentence"),
    [*OUTPUTS, *MEASURES],
    ids=[case[0] for case in (*OUTPUTS, *MEASURES)],
)
def test_inv7_clauses_about_what_leaves(code, operand, right, changes, sentence, bare_json, ask) -> None:
    constraint = {"leftOperand": operand, "operator": OPERANDS[operand].operators[0], "rightOperand": right}
    error = refusal(decide("", parse_policy(bare_json(constraint)), ask(**changes)))
    assert error.code == code
    assert sentence in error.message
    assert error.hint


def test_every_operand_has_a_refusal_of_its_own() -> None:
    assert {operand.code for operand in OPERANDS.values()} <= {case[0] for case in (*CASES, *OUTPUTS, *MEASURES)}


def test_inv7_what_could_not_be_established_is_said_to_be_that(policy_json, ask) -> None:
    error = refusal(decide("", parse_policy(policy_json()), ask(uses_taken=None)))
    assert error.code == "count"
    assert "could not establish it" in error.message


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"@type": "Offer"}, "offer", "an offer, not an agreement"),
        ({"profile": "https://example.org/other"}, "profile", "cannot judge (profile)"),
        ({"prohibition": [{"action": "odrl:use"}]}, "prohibition", "prohibits this (prohibition/0)"),
        ({"permission": [{"action": "fed:train", "duty": [{"action": "odrl:sing"}]}]}, "duty", "cannot judge (duty)"),
        (
            {
                "permission": [
                    {
                        "action": "fed:train",
                        "constraint": [
                            {
                                "leftOperand": "fed:minCellSize",
                                "operator": "lteq",
                                "rightOperand": {"@value": "1", "@type": "xsd:decimal"},
                            }
                        ],
                    }
                ]
            },
            "unsupported",
            "cannot judge (fed:minCellSize)",
        ),
        (
            {
                "permission": [
                    {
                        "action": "fed:train",
                        "constraint": [
                            {
                                "xone": [
                                    {
                                        "leftOperand": "odrl:count",
                                        "operator": "lteq",
                                        "rightOperand": {"@value": "9", "@type": "xsd:integer"},
                                    }
                                ]
                                * 2
                            }
                        ],
                    }
                ]
            },
            "constraint",
            "conditions do not hold",
        ),
    ],
)
def test_inv7_refusals_that_no_value_decides(changes, code, sentence, bare_json, ask) -> None:
    error = refusal(decide("", Policy.model_validate(bare_json(**changes)), ask()))
    assert error.code == code
    assert sentence in error.message
    assert error.hint


def test_a_permit_is_not_refused(policy_json, ask) -> None:
    with pytest.raises(ValueError, match="permit"):
        refusal(decide("", parse_policy(policy_json()), ask()))


def test_codes_fit_the_receipt(policy_json, ask) -> None:
    codes = {operand.code for operand in OPERANDS.values()} | {"action", "assignee", "offer", "profile", "duty"}
    codes |= {"unsupported", "constraint", "prohibition", "too-many-constraints"}
    pattern = Receipt.model_json_schema()["properties"]["code"]["pattern"]
    assert all(re.fullmatch(pattern, code) for code in codes)
    assert PolicyDeniedError.exit_code == 3
