"""A query from its text to its table: planned, signed, asked of the nodes, opened with the asker's own key.

    text -> datasets and agreements -> plan -> [nodes, coordinator] -> ciphertext -> table

An answer is kept as it came, encrypted, with its key: the identical query on the same versions of the same data is answered
from there, and asks nobody.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from federation.crypto import canonical_json, digest
from federation.errors import DeniedError, KeyongError, UsageError
from federation.home import Home, now
from federation.ledger import Appended
from federation.policy import demanded_participants, demands, parse_policy, shown_columns
from federation.policy.vocabulary import QUERY
from federation.privacy import MICRO, STANDARD, exact
from federation.query import (
    Answer,
    Descent,
    Private,
    check_query,
    decode_answer,
    is_fit,
    plan_of,
    query_bits,
    query_micro_rho,
    read_step,
    steps_of,
    unpack_parts,
)
from federation.query.front import Question, common_columns, parse_question, table_of
from federation.secagg import MINIMUM_ENTITIES, check_size, choose_encoding, shares_of, threshold
from federation.statements import Column, JobPlan, OutputSchema, PlannedDataset, StageOutput
from federation.statements.code import CodeBundle
from federation.statements.query import QueryPlan
from keyong.answer_receipts import contributors, delivered
from keyong.choosing import Choice, choose
from keyong.kept_answers import KeptAnswer, KeptAnswers
from keyong.receipts import ReceivedError
from keyong.refused import first_refusal
from keyong.text import Said

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from keyong.ciphering import Ciphers
    from keyong.client import Client
    from sandbox import Runtime

CONTEXT_FILE = "context.bfv"
VALIDITY = timedelta(hours=1)
STEP_SECONDS = 600
"""What a node may take to compute its part."""
MEMORY_BYTES = 2 * 2**30
_UNKNOWN = "sha256:" + "0" * 64


class QueryEndedError(KeyongError):
    """A query ended without an answer."""

    code = "query-ended"


@dataclass(frozen=True)
class Prepared:
    """A query that is understood, and could be asked.

    Attributes:
        chosen: the datasets, with the agreement that it rests on at each.
        query: without a key: its context is nobody's.
    """

    home: Home
    text: str
    purpose: str
    chosen: tuple[Choice, ...]
    question: Question
    query: QueryPlan

    @property
    def nodes(self) -> tuple[str, ...]:
        """Who would be asked."""
        return tuple(choice.published.description.provider for choice in self.chosen)

    @property
    def micro_rho(self) -> int:
        """What it costs of each dataset's privacy budget, all its steps together; 0 without noise."""
        return self.step_micro_rho * steps_of(self.query)

    @property
    def step_micro_rho(self) -> int:
        """What its plan costs: of a logistic regression, which takes a plan for each step, one of them."""
        return query_micro_rho(self.query, shares_of(len(self.chosen)))

    @property
    def identity(self) -> str:
        """Digest of all that makes this query this query: what is asked, for what, of which data in which version."""
        said = {
            "purpose": self.purpose,
            "query": self.query.model_dump(mode="json"),
            "data": sorted(
                [
                    one.published.description.provider,
                    one.published.description.dataset,
                    one.published.description.data_version,
                ]
                for one in self.chosen
            ),
        }
        return digest(canonical_json(said))

    @property
    def repeatable(self) -> bool:
        """Whether its data have a version: what is read anew from a data base has none."""
        return not any(choice.published.description.live for choice in self.chosen)


@dataclass(frozen=True)
class Answered:
    """A query and its table.

    Attributes:
        job: the job's id at the coordinator; of the first time, where the answer was kept; of a regression's last step.
        repeated: whether nobody was asked.
    """

    prepared: Prepared
    answer: Answer
    job: str
    repeated: bool


def prepare(client: Client, text: str, purpose: str, datasets: Sequence[str] = (), rho: str | None = None) -> Prepared:
    """Understand a query: find its datasets and agreements, read its text against their columns.

    Args:
        rho: what its noise may cost of each dataset's privacy budget, a decimal; None for the standard where a dataset demands
            noise and its agreement does not permit answers without, else no noise.

    Raises:
        QueryTextError: the text asks for something that is not answered.
        NoAgreementError, UsageError: there is no dataset, or no agreement, for it.
    """
    home, catalog = client.home, client.catalog()
    if not datasets:
        table = table_of(text)
        catalog = [entry for entry in catalog if entry.description.dataset == table]
        if not catalog:
            raise UsageError(
                "no dataset {name} is published",
                hint="see `keyong catalog list`; FROM names the dataset, or give --dataset MEMBER/DATASET",
                name=table,
                code="no-such-dataset",
            )
    chosen = choose(home, client.holdings, catalog, purpose=purpose, actions=[QUERY], code=_UNKNOWN, datasets=datasets)
    check_size(len(chosen))
    granted = [_granted(choice) for choice in chosen]
    columns = common_columns(granted)
    private = _private(chosen, rho)
    question = parse_question(text, columns, private=private is not None)
    rows = max(choice.published.description.rows_at_most for choice in chosen)
    query = plan_of(question, columns, rows, _UNKNOWN, private)
    least = max(demanded_participants(parse_policy(choice.agreement.policy), QUERY) for choice in chosen)
    groups = max(demands(parse_policy(choice.agreement.policy), QUERY).group for choice in chosen)
    demanded = [choice.published.description for choice in chosen]
    rounding = max(one.rounding for one in demanded)
    rules = query.rules.model_copy(
        update={
            "contributors": max(query.rules.contributors, least),
            "subjects": max(query.rules.subjects, groups, *(one.least_subjects for one in demanded)),
            "rounding": rounding if rounding > 1 and query.noise is None else None,
        }
    )
    query = query.model_copy(update={"rules": rules})
    for known in granted:
        check_query(query, known)
    return Prepared(home, text, purpose, tuple(chosen), question, query)


def _private(chosen: Sequence[Choice], rho: str | None) -> Private | None:
    """What noise a query of these datasets carries."""
    described = [choice.published.description for choice in chosen]
    demanded = any(
        one.unit_rows and not demands(parse_policy(choice.agreement.policy), QUERY).unbounded
        for one, choice in zip(described, chosen, strict=True)
    )
    if rho is None and not demanded:
        return None
    without = [f"{one.provider}/{one.dataset}" for one in described if not one.unit_rows]
    if without:
        raise DeniedError(
            "noise hides what one privacy unit does, and {names} say not how many rows one has",
            hint="their owners declare it: keyong node dataset add ... --unit-rows 1",
            code="query-unit",
            names=", ".join(without),
        )
    micro_rho = STANDARD.query if rho is None else int(exact(rho) * MICRO)
    if not 1 <= micro_rho < 2**52:
        raise UsageError("a privacy budget is at least rho 0.000001", hint="write it as a decimal, such as --rho 0.05")
    unit_rows = max(one.unit_rows for one in described)
    return Private(micro_rho, unit_rows, len(chosen), shares_of(len(chosen)))


def ask(
    client: Client, prepared: Prepared, runtime: Runtime, ciphers: Ciphers, *, again: bool = False, confirm: Any = None
) -> Answered:
    """Ask a query, or answer it from what is kept.

    Args:
        runtime: what the plan names.
        ciphers: makes the query's key, and opens its answer.
        again: ask the nodes even where the answer is kept.
        confirm: called with the plan before it is signed; may raise.

    Raises:
        QueryEndedError: it ended without an answer; the code says why.
    """
    if not is_fit(prepared.query):
        vector, known, repeated = _vector(client, prepared, runtime, ciphers, again, confirm)
        answer = decode_answer(prepared.query, vector, known.nodes, shares_of(len(prepared.chosen)))
        return Answered(prepared, answer, known.job, repeated)
    return _fitted(client, prepared, runtime, ciphers, again, confirm)


def _fitted(
    client: Client, prepared: Prepared, runtime: Runtime, ciphers: Ciphers, again: bool, confirm: Any
) -> Answered:
    """A logistic regression: a plan, signed and asked, for each step. One that broke off goes on with what is kept of it."""
    descent, everything = Descent(prepared.query), True
    while (query := descent.plan()) is not None:
        step = replace(prepared, query=query)
        vector, known, repeated = _vector(client, step, runtime, ciphers, again, confirm)
        descent.take(read_step(query, vector, known.nodes, shares_of(len(prepared.chosen))))
        everything &= repeated
        if not repeated:
            confirm = None  # agreed to, all steps together
    return Answered(prepared, descent.answer(), known.job, everything)


def _vector(
    client: Client, prepared: Prepared, runtime: Runtime, ciphers: Ciphers, again: bool, confirm: Any
) -> tuple[list[int], KeptAnswer, bool]:
    """The opened sum of one plan, with its answer as it came; whether that was kept."""
    kept = KeptAnswers(client.home)
    known = kept.find(prepared.identity) if prepared.repeatable and not again else None
    repeated = known is not None
    recorded: Future[Appended] | None = None
    if known is None:
        known, opening, recorded = _asked(client, prepared, runtime.digest, ciphers, confirm)
    else:
        opening = ciphers.opening(known.secret, unpack_parts(known.answer))
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(_end, recorded, kept, prepared, known) if recorded is not None else None
        vector = opening.result()
        if ended is not None:
            ended.result()
    return [int(one) for one in vector], known, repeated


def _end(recorded: Future[Appended], kept: KeptAnswers, prepared: Prepared, known: KeptAnswer) -> None:
    """Keep an answer once its end is on record: none is given out, now or from what is kept, whose record was lost."""
    recorded.result()
    if prepared.repeatable:
        kept.keep(prepared.identity, known)


def planned(home: Home, prepared: Prepared, runtime: str, public: bytes) -> tuple[JobPlan, CodeBundle]:
    """The plan, unsigned, and the bundle that holds its context."""
    chosen, at = prepared.chosen, now()
    bundle = CodeBundle({CONTEXT_FILE: public})
    query = prepared.query.model_copy(update={"context": digest(public)})
    described = [choice.published.description for choice in chosen]
    slot = max(demands(parse_policy(choice.agreement.policy), QUERY).slot_seconds for choice in chosen)
    expires = min([at + VALIDITY, *(choice.agreement.expires for choice in chosen)])
    plan = JobPlan(
        issued=at,
        expires=max(expires, at + timedelta(seconds=1)),
        id=f"urn:uuid:{uuid.uuid4()}",
        requester=home.identity.member,
        coordinator=home.roster.coordinator.id,
        roster=home.history.digest,
        actions=("fed:aggregateQuery",),
        purpose=prepared.purpose,
        code=bundle.digest,
        runtime=runtime,
        cohort=tuple(
            PlannedDataset(
                node=one.provider,
                dataset=one.dataset,
                data_version=one.data_version,
                agreement=choice.holding.digest,
            )
            for one, choice in zip(described, chosen, strict=True)
        ),
        rounds=1,
        run_config={},
        outputs=OutputSchema(train=StageOutput(sent=False), evaluate=StageOutput(sent=False)),
        encoding=choose_encoding([(one.rows_at_least, one.rows_at_most) for one in described]),
        protection="fed:masked",
        minimal_participants=max(MINIMUM_ENTITIES, threshold(len(chosen))),
        round_seconds=STEP_SECONDS,
        memory_bytes=MEMORY_BYTES,
        leak_bits=query_bits(query),
        micro_rho=prepared.step_micro_rho,
        slot_seconds=slot,
        anchoring="committed",
        query=query,
    )
    return plan, bundle


def _asked(
    client: Client, prepared: Prepared, runtime: str, ciphers: Ciphers, confirm: Any
) -> tuple[KeptAnswer, Future[NDArray[np.uint64]], Future[Appended]]:
    """The answer, once its nodes' receipts hold. Its opening began before, and its record of the end is on its way to the disk:
    whoever gives the answer out waits for both, and neither waits for the other."""
    public, secret = ciphers.keys()
    plan, bundle = planned(client.home, prepared, runtime, public)
    if confirm is not None:
        confirm(plan)
    envelope = plan.seal(client.home.key("statement"))
    recorded = client.ledger.append(
        "plan", {"plan": envelope.to_bytes(), "digest": envelope.digest, "purpose": plan.purpose}
    )
    status, code = "not-submitted", ""
    try:
        job = client.submit(envelope, bundle.to_bytes())
        status = "failed"
        ciphers.expect(secret)
        _followed(client, job)
        files = client.result_files(job)
        answer, named = delivered(client, files)
        opening = ciphers.opening(secret, unpack_parts(answer))
        nodes = contributors(client, files, plan, envelope.digest)
        if list(nodes) != named:
            raise ReceivedError("the coordinator names other nodes in the answer than gave a receipt for it")
        status = "done"
    except KeyongError as error:
        code = error.code
        raise
    finally:
        fields = {"job": plan.id, "plan": envelope.digest, "status": status, "code": code}
        ended = client.ledger.submit("result", fields, ref=recorded.index)
        if status != "done":
            ended.result()
    return KeptAnswer(job, len(nodes), secret, answer), opening, ended


def _followed(client: Client, job: str) -> None:
    """Wait until a job is done; raises where it ends without an answer."""
    told: list[dict[str, Any]] = []
    for event in client.events(job):
        if event.kind in ("denied", "fell-out", "node-unavailable") and "node" in event.data:
            told.append(event.data)
        if event.kind == "done":
            return
        if event.kind in ("failed", "denied", "cancelled", "interrupted") and "node" not in event.data:
            raise _ended(event.kind, event.data, told)
    raise _ended("failed", {"code": "query-ended"}, told)


def _ended(kind: str, data: dict[str, Any], told: Sequence[dict[str, Any]]) -> QueryEndedError:
    code = str(told[0].get("code", "")) if told else str(data.get("code", "query-ended"))
    nodes = ", ".join(sorted(f"{one.get('node')}: {one.get('code')}" for one in told))
    node, why, fix = first_refusal(told)
    error = QueryEndedError(
        "the query was not answered: {reason}",
        hint="{node} says: {why}; {fix}"
        if why and fix
        else "{node} says: {why}"
        if why
        else "`keyong query ... --explain` says what it needs; {nodes}"
        if nodes
        else "{nodes}",
        code=code or "query-ended",
        reason=Said(data, otherwise=kind),
        nodes=nodes,
        node=node,
        why=why,
        fix=fix,
    )
    error.exit_code = 3 if kind == "denied" else int(data.get("exit", 1))  # type: ignore[misc]
    return error


def _granted(choice: Choice) -> list[Column]:
    columns = choice.published.description.columns
    names = set(shown_columns(parse_policy(choice.agreement.policy), QUERY, tuple(one.name for one in columns)))
    return [column for column in columns if column.name in names]
