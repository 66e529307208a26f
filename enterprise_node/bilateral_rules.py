"""What this node judges of a bilateral plan when it is opened: grant, counted uses, noise that is charged, what may leave."""

from __future__ import annotations

from enterprise_node.admission import AdmissionError, AdmittedPlan
from enterprise_node.decision import columns_for
from enterprise_node.query_rules import described
from enterprise_node.store import RegisteredDataset
from federation.bilateral import (
    BilateralPlanError,
    bilateral_bits,
    check_intersection,
    check_score,
    intersection_micro_rho,
    score_micro_rho,
)
from federation.crypto import digest
from federation.policy import uses_counted
from federation.statements import Column
from federation.statements.bilateral import IntersectionPlan, ScorePlan
from federation.statements.code import CodeBundle

CONTEXT_FILE, ROTATIONS_FILE, MODEL_FILE = "context.ckks", "rotations.ckks", "model.ckks"
"""The files in a score's bundle: public context, rotation keys, encrypted coefficients."""
_NUMBERS = ("integer", "number", "boolean")


def check_bilateral(admitted: AdmittedPlan, dataset: RegisteredDataset, bundle: CodeBundle) -> None:
    """Raise unless this node may answer a bilateral plan; without complaint for every other plan.

    Raises:
        AdmissionError: the plan as a whole is not one of such an action.
        BilateralPlanError: it asks for what is not there or not granted, its uses are not counted, its noise is not what it
            states, or hides fewer rows than a privacy unit has.
    """
    plan = admitted.plan
    asked = plan.bilateral
    if asked is None:
        return
    (action,) = plan.actions
    if (plan.rounds, plan.aggregation, plan.minimal_participants) != (1, "sum", 1) or plan.encoding.noise is not None:
        raise AdmissionError("a bilateral action is asked of one node, once", code="bilateral-plan")
    if plan.leak_bits != bilateral_bits(asked) or plan.outputs.train.sent or plan.outputs.evaluate.sent:
        raise AdmissionError("the plan states something else than its action gives", code="bilateral-plan")
    if not uses_counted(admitted.policy, action):
        raise BilateralPlanError(
            "a bilateral action needs an agreement that counts its uses",
            hint="agree anew with a count (`keyong agreement offer ... --count`)",
            code="count-missing",
        )
    if admitted.demands(action).review:
        raise BilateralPlanError(
            "the agreement has each output reviewed, and this one is sealed for the asker alone", code="review"
        )
    columns = {column.name: column for column in described(dataset).columns}
    granted = set(columns_for(admitted, action, dataset.shown_names))
    unit, unit_rows = dataset.privacy_unit or ("", 0)
    if isinstance(asked, ScorePlan):
        cost = _check_score(asked, columns, granted, max(1, unit_rows), bundle)
    else:
        keys = 1 if unit == asked.column else max(1, unit_rows)  # a unit that is the key has one
        cost = _check_intersection(asked, columns, granted, keys, bundle)
    if cost == 0 and not admitted.demands(action).unbounded:
        raise BilateralPlanError(
            "a bilateral action without noise needs an agreement that permits it in words",
            hint="ask with a budget (`--rho`), or agree on --rho unbounded in words",
            code="noise",
        )
    if plan.micro_rho != cost:
        raise BilateralPlanError("the plan states another privacy budget than its noise costs", code="noise")


def _check_score(
    plan: ScorePlan, columns: dict[str, Column], granted: set[str], unit_rows: int, bundle: CodeBundle
) -> int:
    check_score(plan)
    if sorted(bundle.files) != sorted((CONTEXT_FILE, ROTATIONS_FILE, MODEL_FILE)):
        raise AdmissionError("the bundle of a score holds something else than its encryption", code="cipher-context")
    if digest(bundle.files[CONTEXT_FILE]) != plan.context:
        raise AdmissionError("the encryption context is not the one the plan names", code="cipher-context")
    for one in plan.columns:
        if _column(columns, granted, one.column).type not in _NUMBERS:
            raise BilateralPlanError("a score takes numbers, and {column} is none", code="column", column=one.column)
    _check_unit(plan.unit_rows, unit_rows)
    return score_micro_rho(plan)


def _check_intersection(
    plan: IntersectionPlan, columns: dict[str, Column], granted: set[str], unit_keys: int, bundle: CodeBundle
) -> int:
    check_intersection(plan)
    if bundle.files:
        raise AdmissionError("an intersection has no code", code="bilateral-plan")
    _column(columns, granted, plan.column)
    _check_unit(plan.unit_keys, unit_keys)
    return intersection_micro_rho(plan)


def _column(columns: dict[str, Column], granted: set[str], name: str) -> Column:
    if name not in columns or name not in granted:
        raise BilateralPlanError(
            "the column {column} is not there, or is not granted",
            hint="see `keyong catalog show`, and the columns in `keyong agreement show`",
            code="column",
            column=name,
        )
    return columns[name]


def _check_unit(planned: int, here: int) -> None:
    if planned < here:
        raise BilateralPlanError(
            "the noise hides {planned} rows, and a privacy unit of this dataset has {here}",
            hint="plan it again: the catalog says how many rows a unit has",
            code="noise",
            planned=planned,
            here=here,
        )
