"""What a node refuses of a query's plan, whatever the asker's own program would have sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from enterprise_node.query_rules import CONTEXT_FILE, check_plan
from federation.crypto import digest
from federation.errors import KeyongError
from federation.policy import agreement_policy, demands, parse_policy
from federation.query import query_bits
from federation.statements import Column, DatasetDescription, Envelope
from federation.statements.code import CodeBundle
from federation.statements.query import Measure, QueryPlan

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


@dataclass
class Plan:
    query: QueryPlan
    protection: str = "fed:masked"
    aggregation: str = "sum"
    rounds: int = 1
    leak_bits: int = 0
    sent: bool = False

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
def dataset(monkeypatch: pytest.MonkeyPatch) -> Dataset:
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
    )
    envelope: Envelope = description.seal(SigningKey.generate())
    return Dataset(envelope.to_bytes())


def admitted(
    columns: list[str] | None = None, least: int | None = None, review: bool = False, **changes: Any
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
    assert refused(admitted(least=5), dataset) == "min-participants"


def test_a_substituted_context_is_refused(dataset: Dataset) -> None:
    for bundle in ({CONTEXT_FILE: b"the coordinator's own"}, {CONTEXT_FILE: CONTEXT, "more": b""}, {"other": CONTEXT}):
        assert refused(admitted(), dataset, CodeBundle(bundle)) == "cipher-context"


def test_columns_that_are_not_granted_are_not_there(dataset: Dataset) -> None:
    secret = {"measures": (Measure(kind="count", name="n", columns=("secret",)),)}
    check_plan(admitted(query=secret), dataset, CodeBundle({CONTEXT_FILE: CONTEXT}))  # type: ignore[arg-type]
    assert refused(admitted(columns=["alloy"], query=secret), dataset) == "column"
