"""What a node refuses of a query's plan, whatever the asker's own program would have sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from enterprise_node.query_rules import CONTEXT_FILE, check_plan
from federation.crypto import digest
from federation.errors import KeyongError
from federation.policy import agreement_policy, demands, parse_policy, shown_columns
from federation.query import query_bits
from federation.statements import Column, DatasetDescription, Envelope
from federation.statements.code import CodeBundle
from federation.statements.query import Measure, QueryNoise, QueryPlan, Rules

CONTEXT = b"the asker's public context"
COLUMNS = [Column(name="alloy", type="text", categories=("a", "b")), Column(name="secret", type="number")]


@dataclass
class Admitted:
    """As far as the rules look at an admitted plan."""

    plan: Any
    policy: Any
    members: dict[str, str]

    def demands(self, action: str) -> Any:
        return demands(self.policy, action)

    def shown(self, action: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        return shown_columns(self.policy, action, columns)


@dataclass
class Plan:
    query: QueryPlan
    protection: str = "fed:masked"
    aggregation: str = "sum"
    rounds: int = 1
    leak_bits: int = 0
    sent: bool = False
    micro_rho: int = 0
    cohort: tuple[str, ...] = ("mill-a", "mill-b", "mill-c")

    @property
    def outputs(self) -> Any:
        class Stage:
            sent = self.sent

        class Outputs:
            train = evaluate = Stage

        return Outputs


@dataclass
class Dataset:
    description: bytes
    shown_names: tuple[str, ...] = ("alloy", "secret")


@pytest.fixture
def dataset() -> Dataset:
    return described()


def described(unit_rows: int = 0, **floor: int) -> Dataset:
    from datetime import UTC, datetime, timedelta

    from federation.crypto import SigningKey

    at = datetime.now(UTC)
    description = DatasetDescription(
        issued=at,
        expires=at + timedelta(days=1),
        provider="mill-a",
        dataset="passes",
        title="Passes",
        data_version="sha256:" + "1" * 64,
        columns=tuple(COLUMNS),
        rows_at_least=10,
        rows_at_most=100,
        unit_rows=unit_rows,
        **floor,
    )
    envelope: Envelope = description.seal(SigningKey.generate())
    return Dataset(envelope.to_bytes())


def admitted(
    columns: list[str] | None = None,
    least: int | None = None,
    review: bool = False,
    approval: bool = False,
    **changes: Any,
) -> Admitted:
    from datetime import UTC, datetime

    figure = Measure(kind="count", name="n")
    query = QueryPlan(measures=(figure,), context=digest(CONTEXT))
    query = query.model_copy(update=changes.pop("query", {}))
    policy = agreement_policy(
        provider="mill-a",
        consumer="institute",
        dataset="passes",
        actions=["fed:aggregateQuery"],
        purposes=[],
        count=None,
        expires=None,
        agreement_id="urn:uuid:00000000-0000-4000-8000-000000000000",
        now=datetime.now(UTC),
        columns=columns,
        min_participants=least,
        review=review,
        approval=approval,
    )
    members = changes.pop("members", {"mill-a": "A", "mill-b": "B", "mill-c": "C"})
    plan = Plan(query, **{"leak_bits": query_bits(query), **changes})
    return Admitted(plan, parse_policy(policy), members)


def refused(one: Admitted, dataset: Dataset, bundle: CodeBundle | None = None) -> str:
    with pytest.raises(KeyongError) as caught:
        check_plan(one, dataset, bundle or CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    return caught.value.code


def test_a_plan_as_the_asker_makes_it_passes(dataset: Dataset) -> None:
    check_plan(admitted(), dataset, CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]


def test_inv5_what_would_weaken_a_query_is_refused(dataset: Dataset) -> None:
    assert refused(admitted(protection="fed:none"), dataset) == "protection-unavailable"
    assert refused(admitted(aggregation="each"), dataset) == "protection-unavailable"
    assert refused(admitted(leak_bits=1), dataset) == "query-plan"
    assert refused(admitted(sent=True), dataset) == "query-plan"
    assert refused(admitted(members={"mill-a": "A", "mill-b": "A", "mill-c": "C"}), dataset) == "query-entity-twice"
    assert refused(admitted(review=True), dataset) == "review"
    assert refused(admitted(approval=True), dataset) == "approval"
    assert refused(admitted(least=5), dataset) == "min-participants"


def test_a_substituted_context_is_refused(dataset: Dataset) -> None:
    for bundle in ({CONTEXT_FILE: b"the coordinator's own"}, {CONTEXT_FILE: CONTEXT, "more": b""}, {"other": CONTEXT}):
        assert refused(admitted(), dataset, CodeBundle(bundle)) == "cipher-context"


def test_columns_that_are_not_granted_are_not_there(dataset: Dataset) -> None:
    secret = {"measures": (Measure(kind="count", name="n", columns=("secret",)),)}
    check_plan(admitted(query=secret), dataset, CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    assert refused(admitted(columns=["alloy"], query=secret), dataset) == "column"


NOISE = QueryNoise(unit_rows=5, micro_rho=5000)


def test_noise_costs_what_the_plan_states_and_hides_this_datasets_units() -> None:
    noised = {"query": {"noise": NOISE}}
    check_plan(admitted(micro_rho=5000, **noised), described(5), CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    assert refused(admitted(micro_rho=4999, **noised), described(5)) == "query-plan"
    assert refused(admitted(micro_rho=5000), described(5)) == "query-plan"
    assert refused(admitted(micro_rho=5000, **noised), described(6)) == "query-unit"
    assert refused(admitted(micro_rho=5000, **noised), described(0)) == "query-unit"


def test_inv3_an_owners_stricter_floor_holds_and_noise_does_without_it() -> None:
    strict = {"least_subjects": 25, "rounding": 5}
    for rules in ({}, {"subjects": 25}, {"subjects": 25, "rounding": 4}, {"rounding": 5}):
        weaker = admitted(query={"rules": Rules(**rules)})  # type: ignore[arg-type]
        assert refused(weaker, described(**strict)) == "disclosure-rules"
        check_plan(weaker, described(), CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    good = admitted(query={"rules": Rules(subjects=30, rounding=10)})
    check_plan(good, described(**strict), CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    noised = admitted(micro_rho=5000, query={"noise": NOISE})
    check_plan(noised, described(5, **strict), CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
