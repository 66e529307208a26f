"""Policies as the command writes them: fit for the Dataspace Protocol, and readable in both languages."""

from __future__ import annotations

import doctest
import json
from datetime import UTC, datetime
from typing import Any

import pytest

import federation.policy
from federation.policy import (
    PROFILE,
    PURPOSES,
    PolicyError,
    decide,
    demanded_tier,
    describe,
    granted_columns,
    output_kinds,
    parse_policy,
)
from federation.policy._sentences import ACTIONS, OPERATORS, PURPOSE_NAMES, SENTENCES, WORDS
from federation.policy._sentences import OPERANDS as NAMES
from federation.policy.vocabulary import OPERANDS, PROHIBITED_ACTIONS
from federation.statements import ArraySpec, MetricSpec, StageOutput
from tests.shared import SHARED

SCHEMAS = SHARED / "vectors" / "dsp"


def columns(*names: str) -> dict[str, Any]:
    right = [{"@value": name, "@type": "xsd:string"} for name in names]
    return {"leftOperand": "fed:column", "operator": "isAnyOf", "rightOperand": right}


def test_what_is_written_says_what_was_asked(policy_json) -> None:
    policy = policy_json(actions=["fed:train", "fed:evaluate"])
    assert policy["profile"] == PROFILE
    assert policy["assigner"] == "urn:keyong:member:mill-a"
    assert policy["assignee"] == "urn:keyong:member:mill-b"
    assert policy["target"] == "urn:keyong:dataset:mill-a:plates"
    assert [rule["action"] for rule in policy["permission"]] == ["fed:train", "fed:evaluate"]
    assert policy["prohibition"] == [{"action": "odrl:distribute"}]
    assert json.loads(json.dumps(policy)) == policy


def test_the_strongest_isolation_that_is_named_is_the_one_demanded(policy_json) -> None:
    assert demanded_tier(parse_policy(policy_json(min_tier=None))) == ""
    policy = policy_json(min_tier="T1")
    assert demanded_tier(parse_policy(policy)) == "T1"
    stronger = {
        "leftOperand": "fed:minTier",
        "operator": "gteq",
        "rightOperand": {"@value": "T2", "@type": "xsd:string"},
    }
    (first, *_) = policy["permission"]
    first["constraint"] = [*first["constraint"], {"or": [stronger, columns("plate_id")]}]
    assert demanded_tier(parse_policy(policy)) == "T2"


def test_several_purposes_are_alternatives(policy_json, ask) -> None:
    policy = parse_policy(policy_json(purposes=["fed:QualityControl", "fed:EnergyManagement"]))
    assert decide("", policy, ask(purpose="fed:DefectDetection")).permit
    assert decide("", policy, ask(purpose="fed:LoadForecast")).permit
    assert not decide("", policy, ask(purpose="fed:RollingForceModel")).permit


def test_what_is_left_out_is_not_restricted_but_masks_are_still_demanded(policy_json, ask) -> None:
    policy = parse_policy(
        policy_json(
            purposes=[], count=None, expires=None, code=None, min_tier=None, min_participants=None, columns=None
        )
    )
    assert decide("", policy, ask(purpose=None, uses_taken=None, code=None, tier=None, columns=None)).permit
    assert not decide("", policy, ask(protection="fed:none")).permit


def test_inv5_unprotected_is_written_in_words_and_permits_masked_plans_too(policy_json, ask) -> None:
    raw = policy_json(protection="fed:none")
    assert "fed:none" in json.dumps(raw)
    policy = parse_policy(raw)
    assert decide("", policy, ask(protection="fed:none")).permit
    assert decide("", policy, ask(protection="fed:masked")).permit


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": []},
        {"actions": ["train"]},
        {"actions": ["fed:assessQuality"]},
        {"purposes": ["Research"]},
        {"count": -1},
        {"code": "abc"},
        {"protection": "none"},
        {"min_tier": "T7"},
        {"min_participants": -2},
        {"columns": []},
    ],
    ids=str,
)
def test_what_a_policy_cannot_hold_is_refused_when_it_is_written(changes, policy_json) -> None:
    with pytest.raises(PolicyError):
        policy_json(**changes)


def patched(value: Any) -> Any:
    """Three references of the published schemas lack the slash after the hash."""
    if isinstance(value, dict):
        return {
            key: item.replace("#definitions/", "#/definitions/") if key == "$ref" else patched(item)
            for key, item in value.items()
        }
    return [patched(item) for item in value] if isinstance(value, list) else value


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the Dataspace Protocol schemas are not there (KEYONG_SHARED)")
def test_policies_are_valid_in_the_dataspace_protocol(policy_json) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    referencing = pytest.importorskip("referencing")
    schemas = [patched(json.loads(path.read_text())) for path in sorted(SCHEMAS.glob("*/*-schema.json"))]
    resources = [(schema["$id"], referencing.Resource.from_contents(schema)) for schema in schemas if "$id" in schema]
    registry = referencing.Registry().with_resources(resources)
    message_id = "https://w3id.org/dspace/2025/1/negotiation/contract-agreement-message-schema.json"
    schema = next(schema for schema in schemas if schema.get("$id") == message_id)
    validator = jsonschema.Draft201909Validator(schema, registry=registry)

    def message(policy: dict[str, Any]) -> dict[str, Any]:
        example = SCHEMAS / "negotiation" / "example" / "contract-agreement-message-full.json"
        return json.loads(example.read_text()) | {"agreement": policy}

    for policy in (policy_json(), policy_json(protection="fed:none", purposes=["fed:Research", "fed:Benchmarking"])):
        validator.validate(message(policy))
    bare_number = policy_json()
    bare_number["permission"][0]["constraint"][1]["rightOperand"] = 3
    assert not validator.is_valid(message(bare_number)), "the schema does bite"


def test_granted_columns_are_what_every_matching_permission_lists(bare_json) -> None:
    def granted(*rules: dict[str, Any], prohibition: list[Any] | None = None, action: str = "fed:train") -> Any:
        extra = {"prohibition": prohibition} if prohibition else {}
        return granted_columns(parse_policy(bare_json(permission=list(rules), **extra)), action)

    first = {"action": "fed:train", "constraint": [columns("speed", "force", "alloy")]}
    second = {"action": "odrl:use", "constraint": [{"or": [columns("force", "speed", "width")]}]}
    other = {"action": "fed:evaluate", "constraint": [columns("width")]}
    assert granted(first) == ("speed", "force", "alloy")
    assert granted(first, second, other) == ("speed", "force")
    assert granted(first, action="fed:evaluate") is None
    assert granted({"action": "fed:train"}) is None
    assert granted({"action": "fed:train"}, first) == ("speed", "force", "alloy")
    assert granted(first, {"action": "fed:train", "constraint": [columns("width")]}) == ()
    ban = [{"action": "odrl:use", "constraint": [columns("alloy")]}]
    assert granted(first, prohibition=ban) == ("speed", "force")


def test_granted_columns_pass_the_decision_and_one_more_does_not(policy_json, ask) -> None:
    policy = parse_policy(policy_json())
    granted = granted_columns(policy, "fed:train")
    assert granted is not None
    assert decide("", policy, ask(columns=granted)).permit
    assert decide("", policy, ask(columns=granted[:1])).permit
    assert not decide("", policy, ask(columns=(*granted, "alloy"))).permit


def test_no_column_left_denies(bare_json, ask) -> None:
    rules = [{"action": "fed:train", "constraint": [columns(name)]} for name in ("speed", "force")]
    policy = parse_policy(bare_json(permission=rules))
    assert decide("", policy, ask(columns=granted_columns(policy, "fed:train"))).rule == "column"


def test_output_kinds_follow_the_schema_of_a_stage() -> None:
    metric = MetricSpec(name="loss")
    array = ArraySpec(record="extra", name="histogram", dtype="float32", shape=(4,))
    assert output_kinds(StageOutput(sent=True, metrics=(metric,))) == ("fed:ModelUpdate", "fed:Metrics")
    assert output_kinds(StageOutput(sent=False, arrays=(array,))) == ("fed:Arrays",)
    assert output_kinds(StageOutput(sent=False)) == ()


def test_a_policy_in_plain_english(policy_json) -> None:
    assert describe(parse_policy(policy_json(min_tier=None, code=None)), "en") == [
        "mill-a lets mill-b use the dataset plates as follows.",
        "Permitted: training models, where all of the following holds.",
        "For the purpose of optimising processes, or a part of it.",
        "At most 3 job plans in all.",
        "Before 2026-12-31T00:00:00Z.",
        "At least 3 companies take part, consumer and coordinator not counted.",
        "No columns are shown but entry_temperature, roll_force.",
        "Updates leave the company masked only: no one sees its own contribution.",
        "Every use is entered in the provider's ledger, with a receipt.",
        "Prohibited: passing the data on.",
    ]


def test_a_policy_in_plain_chinese(policy_json) -> None:
    sentences = describe(parse_policy(policy_json(protection="fed:none")), "zh")
    assert sentences[0] == "mill-a 允许 mill-b 按以下条款使用数据集 plates。"
    assert "用途为工艺优化或其下属用途。" in sentences
    assert "总共最多 3 个作业计划。" in sentences
    assert any("fed:none" in sentence for sentence in sentences)
    assert len(sentences) == len(describe(parse_policy(policy_json(protection="fed:none")), "en"))


def test_permissions_that_differ_in_their_action_alone_are_read_as_one(policy_json) -> None:
    raw = policy_json(min_tier=None, code=None)
    (alone,) = raw["permission"]
    told = describe(parse_policy(raw), "en")
    raw["permission"] = [alone, {**alone, "action": "fed:evaluate"}]
    both = describe(parse_policy(raw), "en")
    assert both[1] == "Permitted: training models, evaluating models, where all of the following holds."
    assert both[2:] == told[2:]

    other = json.loads(json.dumps(alone))
    other["constraint"] = other["constraint"][1:]
    raw["permission"] = [alone, {**other, "action": "fed:evaluate"}]
    apart = describe(parse_policy(raw), "en")
    assert len(apart) > len(both) and sum(one.startswith("Permitted") for one in apart) == 2


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_inv5_silence_about_protection_is_described_as_masked(lang, bare_json) -> None:
    count = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "1", "@type": "xsd:integer"}}
    assert SENTENCES[lang]["masked"] in describe(parse_policy(bare_json(count)), lang)


def test_both_languages_have_a_sentence_for_every_term() -> None:
    for table in (SENTENCES, ACTIONS, PURPOSE_NAMES, NAMES, OPERATORS, WORDS):
        assert set(table["en"]) == set(table["zh"])
    assert set(ACTIONS["en"]) == set(PROHIBITED_ACTIONS)
    assert set(PURPOSE_NAMES["en"]) == PURPOSES
    # What has no sentence of its own is put together from the operand's name and the operator's words.
    assert set(NAMES["en"]) == set(OPERANDS) - {"fed:protection"}
    assert set(OPERATORS["en"]) == {operator for operand in OPERANDS.values() for operator in operand.operators}


def test_logical_constraints_are_described_whole(policy_json) -> None:
    sentences = describe(parse_policy(policy_json(purposes=["fed:Research", "mill:Trial"])), "en")
    both = "For the purpose of research, or a part of it; For the purpose of mill:Trial, or a part of it"
    assert f"At least one of these: {both}." in sentences


def test_expiry_is_written_in_utc(policy_json) -> None:
    policy = policy_json(expires=datetime(2026, 12, 31, 8, tzinfo=UTC))
    assert policy["permission"][0]["constraint"][2]["rightOperand"]["@value"] == "2026-12-31T08:00:00Z"


def test_the_example_of_the_package_runs() -> None:
    result = doctest.testmod(federation.policy)
    assert result.attempted > 0
    assert result.failed == 0
