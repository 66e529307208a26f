"""What this node judges of a query's plan when it is opened: schema, grant, companies, what may leave."""

from __future__ import annotations

from collections import Counter

from enterprise_node.admission import AdmissionError, AdmittedPlan
from enterprise_node.decision import columns_for
from enterprise_node.store import RegisteredDataset
from federation.crypto import digest
from federation.policy import demanded_participants
from federation.policy.vocabulary import QUERY
from federation.query import QuerySchemaError, check_query, query_bits, query_micro_rho
from federation.secagg import noise_shares
from federation.statements import Column, DatasetDescription, Envelope, JobPlan
from federation.statements.code import CodeBundle
from federation.statements.query import QueryPlan

CONTEXT_FILE = "context.bfv"
"""The one file in a query's bundle: the asker's public encryption context."""


def described(dataset: RegisteredDataset) -> DatasetDescription:
    """The catalog entry of a dataset: its columns as its rules leave them, bounds, categories, privacy unit."""
    return DatasetDescription.read(Envelope.from_bytes(dataset.description))


def granted_columns(admitted: AdmittedPlan, dataset: RegisteredDataset) -> list[Column]:
    """The columns of a dataset, as its rules leave them, that a query under this agreement may name."""
    names = set(columns_for(admitted, QUERY, dataset.shown_names))
    return [column for column in described(dataset).columns if column.name in names]


def check_plan(admitted: AdmittedPlan, dataset: RegisteredDataset, bundle: CodeBundle) -> None:
    """Raise unless this node may compute its part of a query.

    Raises:
        QuerySchemaError: it asks for what is not there, not granted, or weakly protected.
        AdmissionError: the plan as a whole is not one of a query.
    """
    plan = admitted.plan
    query = plan.query
    if query is None:
        return
    if plan.protection != "fed:masked" or plan.aggregation != "sum":
        raise AdmissionError("a query is answered masked alone", code="protection-unavailable")
    if plan.rounds != 1 or plan.leak_bits != query_bits(query) or plan.outputs.train.sent or plan.outputs.evaluate.sent:
        raise AdmissionError("the plan states something else than its query gives", code="query-plan")
    if list(bundle.files) != [CONTEXT_FILE] or digest(bundle.files[CONTEXT_FILE]) != query.context:
        raise AdmissionError("the encryption context is not the one the plan names", code="cipher-context")
    twice = [entity for entity, count in Counter(admitted.members.values()).items() if count > 1]
    if twice:
        raise AdmissionError(
            "a query takes one dataset of each company, and this one takes two of one",
            hint="name the datasets (`--dataset`)",
            code="query-entity-twice",
        )
    if admitted.demands(QUERY).review:
        raise QuerySchemaError(
            "the agreement has each output reviewed, and a query's answers are sums that nobody here can look at",
            code="review",
        )
    if query.rules.contributors < demanded_participants(admitted.policy, QUERY):
        raise QuerySchemaError(
            "the agreement demands {least} companies in a cell, and the query's plan {count}",
            code="min-participants",
            least=demanded_participants(admitted.policy, QUERY),
            count=query.rules.contributors,
        )
    if admitted.demands(QUERY).approval:
        raise QuerySchemaError(
            "the agreement has code approved before it runs, and a query has none that anybody could approve",
            hint="agree on queries without --approval",
            code="approval",
        )
    _check_floor(query, described(dataset))
    check_query(query, granted_columns(admitted, dataset))
    _check_noise(plan, query, dataset)


def _check_floor(query: QueryPlan, own: DatasetDescription) -> None:
    """Raise where the plan's rules are weaker than what the owner published with the dataset; noise does without them."""
    rules = query.rules
    weaker = rules.subjects < own.least_subjects or (own.rounding > 1 and (rules.rounding or 1) < own.rounding)
    if query.noise is None and weaker:
        raise QuerySchemaError(
            "the owner demands {subjects} subjects in a cell and counts rounded to {rounding}, and the query's plan less",
            hint="plan the query again; `keyong catalog show` says what the owner demands",
            code="disclosure-rules",
            subjects=own.least_subjects or rules.subjects,
            rounding=own.rounding or 1,
        )


def _check_noise(plan: JobPlan, query: QueryPlan, dataset: RegisteredDataset) -> None:
    """Raise unless the noise costs what the plan states, and hides a privacy unit of this dataset."""
    if plan.micro_rho != query_micro_rho(query, noise_shares(plan)):
        raise AdmissionError("the plan states another cost than its noise has", code="query-plan")
    if query.noise is None:
        return
    most = described(dataset).unit_rows
    if not 0 < most <= query.noise.unit_rows:
        raise QuerySchemaError(
            "the noise is reckoned for {planned} rows of a privacy unit, and this dataset has up to {own}",
            hint="plan the query again; a dataset without --unit-rows is asked without noise",
            code="query-unit",
            planned=query.noise.unit_rows,
            own=most or "any number",
        )
