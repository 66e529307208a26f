"""What a node refuses of a bilateral plan, whatever the asker's own program would have sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from enterprise_node.bilateral_rules import CONTEXT_FILE, MODEL_FILE, ROTATIONS_FILE, check_bilateral
from federation.bilateral import (
    Box,
    IntersectionPlan,
    ScorePlan,
    bilateral_bits,
    intersection_micro_rho,
    score_micro_rho,
    size_variance,
    variance_for,
)
from federation.crypto import SigningKey, digest
from federation.errors import KeyongError
from federation.policy import agreement_policy, demands, parse_policy, shown_columns
from federation.secagg import choose_encoding
from federation.statements import Column, DatasetDescription, JobPlan, OutputSchema, PlannedDataset, StageOutput
from federation.statements.bilateral import Range
from federation.statements.code import CodeBundle

CONTEXT, SOME = b"the asker's public context", "sha256:" + "1" * 64
FILES = {CONTEXT_FILE: CONTEXT, ROTATIONS_FILE: b"rotations", MODEL_FILE: b"model"}
COLUMNS = (
    Column(name="width", type="number"),
    Column(name="force", type="number"),
    Column(name="maker", type="text"),
    Column(name="secret", type="number"),
)
AT = datetime.now(UTC)


@dataclass
class Admitted:
    """As far as the rules look at an admitted plan."""

    plan: JobPlan
    policy: Any

    def demands(self, action: str) -> Any:
        return demands(self.policy, action)

    def shown(self, action: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        return shown_columns(self.policy, action, columns)


@dataclass
class Dataset:
    """As far as the rules look at a registered dataset."""

    description: bytes
    privacy_unit: tuple[str, int] | None = None
    shown_names: tuple[str, ...] = tuple(column.name for column in COLUMNS)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    description = DatasetDescription(
        issued=AT,
        expires=AT + timedelta(days=1),
        provider="mill-a",
        dataset="passes",
        title="Passes",
        data_version=SOME,
        columns=COLUMNS,
        rows_at_least=10,
        rows_at_most=100,
    )
    return Dataset(description.seal(SigningKey.generate()).to_bytes())


def score(**changes: Any) -> ScorePlan:
    ranges = {name: Range(column=name, minimum="0", maximum="1") for name in ("width", "force")}
    plan = ScorePlan(
        model="linear",
        features=(ranges["width"],),
        target=ranges["force"],
        clip="2",
        variance="0",
        shift=7,
        context=digest(CONTEXT),
    )
    plan = plan.model_copy(update={name: value for name, value in changes.items() if name != "variance"})
    return plan.model_copy(update={"variance": changes.get("variance", variance_for(plan, 5000))})


def intersection(**changes: Any) -> IntersectionPlan:
    said = {"column": "maker", "least": 10, "step": 5, "variance": size_variance(1, 5000), "box": Box.fresh().public}
    return IntersectionPlan(**{**said, **changes})


def plan_of(asked: ScorePlan | IntersectionPlan, **changes: Any) -> JobPlan:
    scores = isinstance(asked, ScorePlan)
    cost = score_micro_rho(asked) if isinstance(asked, ScorePlan) else intersection_micro_rho(asked)
    said = {
        "issued": AT,
        "expires": AT + timedelta(hours=1),
        "id": "urn:uuid:00000000-0000-4000-8000-000000000001",
        "requester": "institute",
        "coordinator": "institute",
        "roster": SOME,
        "actions": ("fed:score",) if scores else ("fed:psi",),
        "purpose": "fed:Research",
        "code": SOME,
        "runtime": SOME,
        "cohort": (PlannedDataset(node="mill-a", dataset="passes", data_version=SOME, agreement=SOME),),
        "rounds": 1,
        "run_config": {},
        "outputs": OutputSchema(train=StageOutput(sent=False), evaluate=StageOutput(sent=False)),
        "encoding": choose_encoding([(10, 100)]),
        "protection": "fed:bilateral",
        "minimal_participants": 1,
        "micro_rho": cost,
        "leak_bits": bilateral_bits(asked),
        "score" if scores else "intersection": asked,
    }
    return JobPlan(**{**said, **changes})


def admitted(plan: JobPlan, count: int | None = 5, **clauses: Any) -> Admitted:
    policy = agreement_policy(
        provider="mill-a",
        consumer="institute",
        dataset="passes",
        actions=["fed:score", "fed:psi"],
        purposes=[],
        count=count,
        expires=None,
        agreement_id="urn:uuid:00000000-0000-4000-8000-000000000000",
        now=AT,
        protection="fed:bilateral",
        **clauses,
    )
    return Admitted(plan, parse_policy(policy))


def refused(one: Admitted, dataset: Dataset, files: dict[str, bytes] | None = None) -> str:
    files = files if files is not None else FILES if one.plan.score else {}
    with pytest.raises(KeyongError) as caught:
        check_bilateral(one, dataset, CodeBundle(files))  # type: ignore[arg-type]
    return caught.value.code


def test_plans_as_the_asker_makes_them_pass(dataset: Dataset) -> None:
    for asked, files in ((score(), FILES), (intersection(), {})):
        check_bilateral(admitted(plan_of(asked)), dataset, CodeBundle(files))  # type: ignore[arg-type]


def test_inv1_uses_are_counted_and_noise_is_charged(dataset: Dataset) -> None:
    """No agreement without a count; no answer without noise, unless in words; no noise cheaper than it is."""
    for asked in (score(), intersection()):
        plan = plan_of(asked)
        assert refused(admitted(plan, count=None), dataset) == "count-missing"
        assert refused(admitted(plan, review=True), dataset) == "review"
        assert refused(admitted(plan_of(asked, micro_rho=plan.micro_rho - 1)), dataset) == "noise"
        assert refused(admitted(plan_of(asked, leak_bits=1)), dataset) == "bilateral-plan"
        assert refused(admitted(plan_of(asked, rounds=2)), dataset) == "bilateral-plan"
    for quiet, files in ((score(variance="0"), FILES), (intersection(variance="0"), {})):
        assert refused(admitted(plan_of(quiet)), dataset) == "noise"
        check_bilateral(admitted(plan_of(quiet), rho="unbounded"), dataset, CodeBundle(files))  # type: ignore[arg-type]


def test_noise_hides_a_whole_privacy_unit(dataset: Dataset) -> None:
    """Attack: a plan whose noise hides one row, of a dataset whose unit has fifty. A unit that is the key has one key."""
    machines = Dataset(dataset.description, ("secret", 50))
    assert refused(admitted(plan_of(score())), machines) == "noise"
    assert refused(admitted(plan_of(intersection())), machines) == "noise"
    check_bilateral(admitted(plan_of(score(unit_rows=50))), machines, CodeBundle(FILES))  # type: ignore[arg-type]
    makers = Dataset(dataset.description, ("maker", 50))
    check_bilateral(admitted(plan_of(intersection())), makers, CodeBundle({}))  # type: ignore[arg-type]


def test_what_is_not_granted_is_not_there(dataset: Dataset) -> None:
    assert refused(admitted(plan_of(score()), columns=["width"]), dataset) == "column"
    assert refused(admitted(plan_of(intersection()), columns=["width"]), dataset) == "column"
    assert refused(admitted(plan_of(intersection(column="nothing"))), dataset) == "column"
    text = score(target=Range(column="maker", minimum="0", maximum="1"))
    assert refused(admitted(plan_of(text)), dataset) == "column"


def test_rules_and_contexts_are_this_nodes(dataset: Dataset) -> None:
    assert refused(admitted(plan_of(intersection(least=1))), dataset) == "disclosure-rules"
    assert refused(admitted(plan_of(score(clip="0.1"))), dataset) == "bilateral-plan"
    for files in ({**FILES, CONTEXT_FILE: b"the coordinator's own"}, {**FILES, "more": b"x"}, {}):
        assert refused(admitted(plan_of(score())), dataset, files) == "cipher-context"
    assert refused(admitted(plan_of(intersection())), dataset, FILES) == "bilateral-plan"


def test_a_plan_of_another_shape_is_none() -> None:
    """One node, one action, its own protection: signed or not, anything else does not even read as a plan."""
    asked = score()
    two = tuple(PlannedDataset(node=f"mill-{one}", dataset="d", data_version=SOME, agreement=SOME) for one in "ab")
    for changes in (
        {"cohort": two},
        {"protection": "fed:masked"},
        {"protection": "fed:none"},
        {"actions": ("fed:score", "fed:train")},
        {"actions": ("fed:psi",)},
        {"intersection": intersection()},
        {"score": None},
    ):
        with pytest.raises(ValidationError):
            plan_of(asked, **changes)
