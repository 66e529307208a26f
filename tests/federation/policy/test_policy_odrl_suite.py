"""The ODRL test suite (SolidLabResearch), as far as its cases can be said in our subset.

An agreement here is always between two named parties about one dataset. A suite policy that names no assignee or target
is therefore read as that agreement with whoever asks, about what is asked for; one that names another party or target
is refused when the policy is checked against the signed statement. Every request meets our ``fed:protection`` default.

Cases outside the subset are listed with the reason, and the reason itself is asserted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from federation.policy import Policy, PolicyError, check_parties, decide, parse_policy
from federation.policy.contradiction import contradiction
from federation.policy.duties import Tally, duty_text, tracked_duties
from federation.policy.values import parse_instant
from federation.statements import Agreement
from tests.shared import SHARED

SUITE = SHARED / "vectors" / "odrl" / "data"
pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason="the ODRL test suite is not there (KEYONG_SHARED)")

OUTSIDE = {
    "001": "a rule without an action",
    "003": "a rule without an action",
    "005": "a rule without an action",
    "063": "permission/0/constraint/0/or is malformed: Tuple should have at most 200 items after validation, not 262",
}
CASES = 34

Graph = dict[str, dict[str, list[str]]]
_TOKEN = re.compile(r'<([^>]*)>|"([^"]*)"(?:\^\^[\w:]+)?|([;,.])(?=\s|$)|([\w:@-]+(?:\.[\w-]+)*)')


def read_turtle(path: Path) -> Graph:
    """Subjects with their properties; just enough Turtle for the suite (no blank nodes, no collections)."""
    graph: Graph = {}
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("@prefix"))
    subject = predicate = ""
    for iri, literal, mark, name in _TOKEN.findall(text):
        word = iri or literal or name
        if mark:
            subject, predicate = ("", "") if mark == "." else (subject, predicate if mark == "," else "")
        elif not subject:
            subject = word
        elif not predicate:
            predicate = word
        else:
            graph.setdefault(subject, {}).setdefault(predicate, []).append(word)
    return graph


def file_about(folder: str, subject: str) -> Graph:
    """The one file of a folder that describes the subject; files reuse each other's names for different things."""
    graphs = (read_turtle(path) for path in sorted((SUITE / folder).glob("*.ttl")))
    return next(graph for graph in graphs if subject in graph)


@dataclass(frozen=True)
class Case:
    number: str
    policy: Policy | None
    refused: str
    statement: Agreement | None
    action: str
    asker: str
    now: datetime
    kind: str
    active: bool
    duties: dict[str, str]


def constraint_json(graph: Graph, name: str) -> dict[str, Any]:
    node = graph[name]
    for operator in ("and", "or", "xone"):
        if f"odrl:{operator}" in node:
            return {operator: [constraint_json(graph, part) for part in node[f"odrl:{operator}"]]}
    return {
        "leftOperand": node["odrl:leftOperand"][0],
        "operator": node["odrl:operator"][0].removeprefix("odrl:"),
        "rightOperand": {"@value": node["odrl:rightOperand"][0], "@type": "xsd:dateTime"},
    }


def local(name: str) -> str:
    return name.removeprefix("ex:").lower()


def load(path: Path) -> Case:
    number = path.name.split("-")[1]
    case = read_turtle(path)
    head = next(node for node in case.values() if "ex:TestCase" in node.get("a", []))
    report = next(node for node in case.values() if "report:activationState" in node)
    policies = file_about("policies", head["ex:policy"][0])
    requests = file_about("requests", head["ex:request"][0])
    world = file_about("sotw", head["ex:sotw"][0])
    asked = requests[requests[head["ex:request"][0]]["odrl:permission"][0]]
    suite_policy = policies[head["ex:policy"][0]]
    kind = "permission" if "odrl:permission" in suite_policy else "prohibition"
    rule = policies[suite_policy[f"odrl:{kind}"][0]]
    asker, target = local(asked["odrl:assignee"][0]), local(asked["odrl:target"][0])
    refused, policy, statement = "", None, None
    if "odrl:action" not in rule:
        refused = "a rule without an action"
    else:
        for role, asked_for in (("assignee", asker), ("target", target)):
            if any("Collection" in name for name in rule.get(f"odrl:{role}", [])):
                rule = rule | {f"odrl:{role}": [members_of(rule[f"odrl:{role}"][0], world, asked_for)]}
        raw, statement = translate(policies, rule, kind, asker, target)
        try:
            policy = parse_policy(raw)
        except PolicyError as error:
            # A prohibition that leaves nothing permitted is refused when it is registered; how it is judged stands all the
            # same.
            unregistered = Policy.model_validate(raw) if kind == "prohibition" else None
            if unregistered is not None and contradiction(unregistered) is not None:
                policy = unregistered
            else:
                refused = error.message
    return Case(
        number=number,
        policy=policy,
        refused=refused,
        statement=statement,
        action=asked["odrl:action"][0],
        asker=asker,
        now=parse_instant(world["temp:currentTime"]["dct:issued"][0]),
        kind=kind,
        active=report["report:activationState"] == ["report:Active"],
        duties=duties_of(policy, world),
    )


def members_of(named: str, world: Graph, asker: str) -> str:
    """Whom or what a collection stands for: the asker where it is said to be part of it, as the agreement with each
    member would name it; otherwise nobody who could ask."""
    collections = {
        local(one) for name, node in world.items() if local(name) == asker for one in node.get("odrl:partOf", [])
    }
    return asker if local(named) in collections else "nobody"


def duties_of(policy: Policy | None, world: Graph) -> dict[str, str]:
    """How the state of the world says that the policy's duties stand, as a node says it."""
    if policy is None:
        return {}
    states = [state for node in world.values() for state in node.get("report:deonticState", [])]
    told = {"report:Fulfilled": Tally(fulfilled=1), "report:Violated": Tally(violated=1)}
    tally = told.get(states[0], Tally(pending=1)) if states else Tally()
    return {duty_text(duty): tally.text for duty in tracked_duties(policy)}


def translate(
    graph: Graph, rule: dict[str, list[str]], kind: str, asker: str, target: str
) -> tuple[dict[str, Any], Agreement]:
    """The suite's rule as one of our policies, and the statement under which the asker would use what was asked for."""
    ours: dict[str, Any] = {"action": rule["odrl:action"][0]}
    if "odrl:constraint" in rule:
        ours["constraint"] = [constraint_json(graph, name) for name in rule["odrl:constraint"]]
    if "odrl:duty" in rule:
        ours["duty"] = [{"action": graph[name]["odrl:action"][0]} for name in rule["odrl:duty"]]
    named = {
        "assignee": local(rule.get("odrl:assignee", [asker])[0]),
        "target": local(rule.get("odrl:target", [target])[0]),
    }
    identity = "urn:uuid:00000000-0000-4000-8000-000000000001"
    raw = {
        "@type": "Agreement",
        "@id": identity,
        "profile": "https://w3id.org/keyong/fed/1",
        "target": f"urn:keyong:dataset:owner:{named['target']}",
        "assigner": "urn:keyong:member:owner",
        "assignee": f"urn:keyong:member:{named['assignee']}",
        "timestamp": "2016-01-01T00:00:00Z",
        # A prohibition stands beside a permission of everything, so that it is the prohibition that decides.
        "permission": [ours] if kind == "permission" else [{"action": "odrl:use"}],
    }
    if kind == "prohibition":
        raw["prohibition"] = [ours]
    statement = Agreement(
        id=identity,
        provider="owner",
        consumer=asker,
        dataset=target,
        title="suite",
        roster="sha256:" + "0" * 64,
        policy=raw,
        issued=datetime(2016, 1, 1, tzinfo=UTC),
        expires=datetime(2030, 1, 1, tzinfo=UTC),
    )
    return raw, statement


def activation(case: Case, ask: Any) -> bool:
    """Whether the suite's rule is active, by our decision."""
    assert case.policy is not None
    assert case.statement is not None
    try:
        check_parties(case.statement, case.policy)
    except PolicyError:
        return False
    request = ask(action=case.action, requester=case.asker, now=case.now, duties=case.duties)
    record = decide("", case.policy, request)
    return record.permit if case.kind == "permission" else record.rule == "prohibition/0"


PATHS = sorted((SUITE / "test_cases").glob("*.ttl"))


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_the_activation_state_of_each_case_we_can_say(path, ask) -> None:
    case = load(path)
    if case.number in OUTSIDE:
        assert case.refused == OUTSIDE[case.number]
        pytest.skip(f"outside the subset: {case.refused}")
    assert case.refused == ""
    assert activation(case, ask) is case.active


def test_how_much_of_the_suite_is_covered(ask, capsys) -> None:
    cases = [load(path) for path in PATHS]
    assert len(cases) == CASES
    said = [case for case in cases if case.policy is not None]
    assert {case.number for case in cases} - {case.number for case in said} == set(OUTSIDE)
    assert all(activation(case, ask) is case.active for case in said)
    # Both verdicts and both kinds of rule are among them, or agreement with the suite would say little.
    assert {(case.kind, case.active) for case in said} == {
        ("permission", True),
        ("permission", False),
        ("prohibition", True),
    }
    with capsys.disabled():
        print(f"\nODRL test suite: {len(said)} of {len(cases)} cases, {len(OUTSIDE)} outside the subset")
