"""What may be registered at all, and the place that each refusal names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation.policy import PolicyError, check_parties, decide, parse_policy
from federation.statements import Agreement

COUNT = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "10", "@type": "xsd:integer"}}


def nested(depth: int) -> dict[str, Any]:
    return COUNT if depth == 0 else {"and": [nested(depth - 1)]}


def permission(**changes: Any) -> dict[str, Any]:
    return {"permission": [{"action": "fed:train"} | changes]}


WITHIN = {
    "leftOperand": "odrl:elapsedTime",
    "operator": "lteq",
    "rightOperand": {"@value": "P30D", "@type": "xsd:duration"},
}
PAY = {"leftOperand": "odrl:payAmount", "operator": "eq", "rightOperand": {"@value": "500", "@type": "xsd:decimal"}}
GERMANY = {"@value": "DE", "@type": "xsd:string"}
REGION = {
    "leftOperand": "odrl:spatial",
    "operator": "isPartOf",
    "rightOperand": {"@value": "CN", "@type": "xsd:string"},
}


BAD: list[tuple[str, dict[str, Any]]] = [
    ("permission/0/constraint/0/rightOperand", permission(constraint=[COUNT | {"rightOperand": 10}])),
    ("permission/0/constraint/0/rightOperand", permission(constraint=[COUNT | {"rightOperand": "10"}])),
    (
        "permission/0/constraint/0/rightOperand/@value",
        permission(constraint=[COUNT | {"rightOperand": {"@value": 10, "@type": "xsd:integer"}}]),
    ),
    (
        "permission/0/constraint/0/rightOperand/@type",
        permission(constraint=[COUNT | {"rightOperand": {"@value": "10"}}]),
    ),
    (
        "permission/0/constraint/0/rightOperand/@language",
        permission(constraint=[COUNT | {"rightOperand": {"@id": "fed:x", "@language": "en"}}]),
    ),
    (
        "permission/0/constraint/0",
        permission(constraint=[COUNT | {"rightOperand": {"@value": "10", "@type": "xsd:int"}}]),
    ),
    ("permission/0/constraint/1", permission(constraint=[COUNT, COUNT | {"leftOperand": "count"}])),
    ("permission/0/constraint/1", permission(constraint=[COUNT, COUNT | {"leftOperand": "dateTime"}])),
    ("permission/0/constraint/0/unit", permission(constraint=[COUNT | {"unit": "uses"}])),
    (
        "permission/0/constraint/0/rightOperand",
        permission(constraint=[{"leftOperand": "odrl:count", "operator": "lteq"}]),
    ),
    ("permission/0/constraint/0", permission(constraint=[{}])),
    ("permission/0/constraint/0", permission(constraint=[{"and": [COUNT], "or": [COUNT]}])),
    ("permission/0/constraint/0/and", permission(constraint=[{"and": []}])),
    ("permission/0/constraint/0/andSequence", permission(constraint=[{"andSequence": []}])),
    ("permission/0/constraint/0", permission(constraint=[{"andSequence": [COUNT], "and": [COUNT]}])),
    ("permission/0/constraint/0/or/1", permission(constraint=[{"or": [COUNT, COUNT | {"operator": "isA"}]}])),
    ("permission/0/constraint/0/and/0/and/0/and/0/and/0", permission(constraint=[nested(5)])),
    ("permission/0/constraint/0", permission(constraint=["odrl:count lteq 10"])),
    ("permission/0/action", permission(action="train")),
    ("permission/0/action", permission(action="odrl:aggregate")),
    ("permission/0/action", permission(action="odrl:distribute")),
    ("permission/0/action", permission(action="fed:assessQuality")),
    ("permission/0/action", permission(action={"@id": "fed:train"})),
    ("permission/0/target", permission(target="urn:x")),
    ("permission/0/duty/0/constraint/0", permission(duty=[{"action": "odrl:delete", "constraint": [COUNT]}])),
    (
        "permission/0/duty/0/constraint/0",
        permission(duty=[{"action": "odrl:delete", "constraint": [{"and": [WITHIN]}]}]),
    ),
    ("permission/0/duty/0/constraint/0", permission(duty=[{"action": "odrl:delete", "constraint": [PAY]}])),
    (
        "permission/0/duty/0/constraint/0",
        permission(duty=[{"action": "odrl:compensate", "constraint": [PAY | {"operator": "lteq"}]}]),
    ),
    ("permission/0/constraint/1", permission(constraint=[COUNT, COUNT | {"operator": "gt"}])),
    ("permission/0/constraint/1", permission(constraint=[REGION, REGION | {"rightOperand": GERMANY}])),
    ("permission/0", permission() | {"prohibition": [{"action": "odrl:use"}]}),
    ("permission/0/duty/0", permission(duty=[{"action": "odrl:sing"}])),
    (
        "permission/0/duty/1/constraint/0",
        permission(duty=[{"action": "odrl:inform"}, {"action": "odrl:inform", "constraint": [COUNT]}]),
    ),
    ("permission/0/duty/0/consequence", permission(duty=[{"action": "odrl:inform", "consequence": []}])),
    ("permission", {"permission": []}),
    ("prohibition", {"prohibition": []}),
    ("prohibition", {"prohibition": None}),
    ("prohibition/0/action", {"prohibition": [{"action": "distribute"}]}),
    ("prohibition/0/remedy", {"prohibition": [{"action": "odrl:distribute", "remedy": []}]}),
    (
        "prohibition/0/constraint/0",
        {"prohibition": [{"action": "odrl:use", "constraint": [COUNT | {"leftOperand": "fed:minCellSize"}]}]},
    ),
    ("obligation", {"obligation": [{"action": "odrl:inform"}]}),
    ("@type", {"@type": "Set"}),
    ("@context", {"@context": "https://w3id.org/dspace/2025/1/context.jsonld"}),
    ("profile", {"profile": "https://w3id.org/keyong/fed/2"}),
    ("profile", {"profile": ["https://w3id.org/keyong/fed/1"]}),
    ("timestamp", {"timestamp": "2026-01-01T00:00:00"}),
    ("timestamp", {"timestamp": "yesterday"}),
    ("assignee", {"assignee": ""}),
    ("policy", permission(constraint=[COUNT] * 197)),
]


@pytest.mark.parametrize(("place", "changes"), BAD, ids=[f"{number}-{place}" for number, (place, _) in enumerate(BAD)])
def test_a_refusal_names_the_place(place, changes, bare_json) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(bare_json(**changes))
    assert caught.value.place == place
    assert place in caught.value.message
    assert caught.value.exit_code == 2
    caught.value.hint.encode()  # its places must all be filled


@pytest.mark.parametrize(
    "key", ["@id", "profile", "target", "assigner", "assignee", "timestamp", "permission", "@type"]
)
def test_every_top_key_is_required(key, bare_json) -> None:
    policy = bare_json()
    del policy[key]
    with pytest.raises(PolicyError, match="is missing") as caught:
        parse_policy(policy)
    assert caught.value.place == key


def test_the_largest_policy_that_registers_still_fits_its_record(bare_json, ask) -> None:
    policy = parse_policy(bare_json(**permission(constraint=[COUNT] * 196)))
    record = decide("", policy, ask())
    assert record.permit
    assert len(record.constraints) == 200


def test_logical_constraints_register(bare_json) -> None:
    parse_policy(bare_json(**permission(constraint=[nested(4), {"or": [COUNT, {"xone": [COUNT, COUNT]}]}])))


def agreement(policy: dict[str, Any], **changes: Any) -> Agreement:
    arguments: dict[str, Any] = {
        "id": "urn:uuid:00000000-0000-4000-8000-000000000001",
        "provider": "mill-a",
        "consumer": "mill-b",
        "dataset": "plates",
        "title": "Plates for mill B",
        "roster": "sha256:" + "0" * 64,
        "policy": policy,
        "issued": datetime(2026, 1, 1, tzinfo=UTC),
        "expires": datetime(2027, 1, 1, tzinfo=UTC),
    }
    return Agreement(**(arguments | changes))


def test_a_policy_that_fits_its_statement_passes(bare_json) -> None:
    raw = bare_json()
    check_parties(agreement(raw), parse_policy(raw))


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("assigner", {"provider": "mill-c"}),
        ("assignee", {"consumer": "mill-c"}),
        ("target", {"dataset": "coils"}),
        ("@id", {"id": "urn:uuid:00000000-0000-4000-8000-000000000002"}),
        ("timestamp", {"issued": datetime(2025, 12, 31, tzinfo=UTC)}),
        ("timestamp", {"issued": datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=121)}),
        ("timestamp", {"expires": datetime(2026, 1, 1, tzinfo=UTC)}),
    ],
)
def test_inv1_a_policy_about_something_else_is_refused(place, changes, bare_json) -> None:
    raw = bare_json()
    with pytest.raises(PolicyError) as caught:
        check_parties(agreement(raw, **changes), parse_policy(raw))
    assert caught.value.place == place


def test_an_offer_registers_but_is_no_agreement(bare_json, ask) -> None:
    raw = bare_json(**{"@type": "Offer"})
    policy = parse_policy(raw)
    with pytest.raises(PolicyError, match="@type"):
        check_parties(agreement(raw), policy)
    record = decide("", policy, ask())
    assert (record.permit, record.rule) == (False, "offer")
