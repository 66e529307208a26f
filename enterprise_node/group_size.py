"""How many subjects stand behind what leaves this node, which ``fed:minGroupSize`` bounds: as planned, and as found in the data.

What a plan says of it is judged with the decision, before the data is read. What only the data can say (how many privacy
units a snapshot holds) is judged when it has been read, before any code runs on it; the refusal is the step's OUTCOME.
"""

from __future__ import annotations

from dataclasses import replace

from enterprise_node.admission import AdmittedPlan
from enterprise_node.materialise import Grant, Snapshot
from enterprise_node.query_rules import described
from enterprise_node.store import RegisteredDataset
from federation.errors import DeniedError
from federation.statements import JobPlan


def planned_group(plan: JobPlan, dataset: RegisteredDataset) -> int:
    """The fewest subjects that a figure of this plan may rest on, as far as plan and catalog say.

    A query shows no cell with fewer than its rules name, and under noise cells of any size; an intersection tells no size
    below its least; whatever else is computed rests on all rows, of which the catalog names the least.
    """
    if plan.query is not None:
        return 0 if plan.query.noise is not None else plan.query.rules.subjects
    if plan.intersection is not None:
        return plan.intersection.least
    return described(dataset).rows_at_least


def least_group(admitted: AdmittedPlan) -> int:
    """The subjects that a snapshot of this plan holds at least; 0 where the rules of its own figures see to it."""
    if admitted.plan.query is not None or admitted.plan.intersection is not None:
        return 0
    return max(admitted.demands(action).group for action in admitted.plan.actions)


def counting(grant: Grant, admitted: AdmittedPlan, dataset: RegisteredDataset) -> Grant:
    """The grant, with its privacy units counted where the agreement bounds them."""
    if not least_group(admitted):
        return grant
    return replace(grant, units=True, unit=described(dataset).privacy_unit)


def check_group(admitted: AdmittedPlan, snapshot: Snapshot) -> None:
    """Raise where the data, now that it was read, holds fewer subjects than the agreement demands behind a figure.

    Raises:
        DeniedError: it does; how many there are is not said.
    """
    least = least_group(admitted)
    if least and snapshot.subjects < least:
        raise DeniedError(
            "the dataset holds fewer subjects than the {least} that the agreement demands behind a figure",
            hint="ask the provider for an agreement about a larger dataset",
            code="min-group-size",
            least=least,
        )
