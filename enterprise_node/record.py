"""INTENT and OUTCOME: what the node writes before a job may read a byte, and after it ended.

Reservation, replay check and INTENT are one transaction of the ledger, so a permit that is not on record does not
exist, and two requests for the last use cannot both win it (invariants 1 and 2).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from enterprise_node import attributes, budgets, leaks, metering, openings
from enterprise_node.admission import AdmittedPlan, AdmittedStep
from enterprise_node.consent import CONSENT_SCHEMA, NOT_ASKED, PRIVATE_SCHEMA, Consent, consent_within
from enterprise_node.decision import judge
from enterprise_node.held import HELD_SCHEMA
from federation import obligations
from federation.crypto import canonical_json
from federation.errors import DeniedError, KeyongError
from federation.ledger import Appended, Ledger
from federation.policy import PolicyDeniedError
from federation.policy.duties import tracked
from federation.privacy import rho_text
from federation.secagg import Opened, check_difference
from federation.statements import DecisionRecord, Envelope, Invocation, Metered, Receipt, ReplayError

_SCHEMA = (
    """CREATE TABLE plan_use (
        agreement TEXT NOT NULL, plan TEXT NOT NULL, PRIMARY KEY (agreement, plan)) STRICT""",
    """CREATE TABLE step (
        plan TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL, stage TEXT NOT NULL,
        invocation TEXT NOT NULL, intent INTEGER NOT NULL, outcome TEXT, PRIMARY KEY (plan, round, attempt, stage))
        STRICT""",
    "CREATE INDEX step_open ON step (plan) WHERE outcome IS NULL",
)

_SCHEMA_2 = (
    "ALTER TABLE plan_use ADD COLUMN leak_bound INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE plan_use ADD COLUMN leak_drawn INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE plan_use ADD COLUMN leak_closed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE step ADD COLUMN leak INTEGER NOT NULL DEFAULT 0",
    *CONSENT_SCHEMA,
    *HELD_SCHEMA,
)
"""Version 2: bits reserved and drawn, the owner's approvals, outputs that wait for the owner."""

ATTEMPTS = 3
"""How often one round may be tried at this node; see :func:`_check_new`."""
DECISION_BYTES = 128 * 1024
"""Largest decision that a receipt and an entry take beside everything else they hold."""


@dataclass(frozen=True)
class LastStep:
    """The newest step of a plan that has its OUTCOME."""

    invocation: str
    outcome: str
    entry: int
    """Index of its OUTCOME."""


@dataclass(frozen=True)
class Intent:
    """A durable INTENT entry, and the decision it holds."""

    index: int
    decision: DecisionRecord
    reserved: Metered | None = None
    """What the step may take of the agreement's time and volume; None where the agreement counts neither."""
    micro_rho: int = 0
    """What the step drew of its plan's privacy budget."""


class Record:
    """The node's ledger together with the policy state that lives in its transactions."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        ledger.check_schema("node-policy", 3)
        ledger.ensure_schema("node-policy", 1, list(_SCHEMA))
        ledger.ensure_schema("node-policy", 2, list(_SCHEMA_2))
        ledger.ensure_schema("node-policy", 3, list(openings.SCHEMA))
        ledger.check_schema("node-metering", 1)
        ledger.ensure_schema("node-metering", 1, list(metering.SCHEMA))
        obligations.ensure(ledger)
        attributes.ensure(ledger)
        ledger.check_schema("node-budget", 2)
        ledger.ensure_schema("node-budget", 1, list(budgets.SCHEMA))
        ledger.ensure_schema("node-budget", 2, list(PRIVATE_SCHEMA))

    async def write(self, kind: str, fields: Mapping[str, object]) -> Appended:
        """Append an entry that needs no decision."""
        return await asyncio.wrap_future(self.ledger.submit(kind, fields))

    async def intend(
        self,
        step: AdmittedStep,
        request: Mapping[str, object],
        guard: Callable[[], None],
        runtime: str,
        leak: int = 0,
        cost: int = 0,
    ) -> Intent:
        """Decide, reserve one use (with the plan's first step) and write INTENT, all or nothing.

        Args:
            guard: raises where the job or its agreement has ended; asked inside the transaction, so that a revocation
                that is on record before this entry is never overlooked.
            runtime: digest of what the job will run on.
            leak: bits that the step's answer may carry; they are drawn from what the plan has reserved.
            cost: micro-rho of the step, drawn from what the plan has reserved.

        Raises:
            PolicyDeniedError: a clause forbids it; nothing was reserved.
            LeakBudgetError: the plan has no bits left for this step.
            BudgetError: the privacy budget does not cover the plan, or the plan not this step.
            ReplayError: this step was taken before.
            LedgerUnavailableError: it could not be made durable; nothing runs.
        """
        admitted, invocation = step.admitted, step.invocation
        decided: list[tuple[DecisionRecord, Metered | None]] = []
        drawn: list[int] = []

        def reserve(connection: sqlite3.Connection) -> Mapping[str, object]:
            nonlocal cost
            guard()
            decision, reserved = decide_within(connection, admitted, request)
            _check_new(connection, admitted.digest, invocation)
            _check_course(connection, admitted, invocation.stage, invocation.round)
            leaks.draw(connection, admitted.agreement_digest, admitted.digest, admitted.leak_bound, leak)
            # The index this entry is about to get: entries before it in the transaction are flushed, and none can come
            # between.
            index = connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0]
            connection.execute(
                "INSERT INTO step (plan, round, attempt, stage, invocation, intent, leak) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    admitted.digest,
                    invocation.round,
                    invocation.attempt,
                    invocation.stage,
                    step.envelope.digest,
                    index,
                    leak,
                ),
            )
            now = _moment(request)
            metering.reserve(
                connection, admitted.agreement_digest, admitted.digest, step.envelope.digest, now, reserved
            )
            if admitted.plan.micro_rho:
                budgets.reserve(connection, use_of(admitted), admitted.plan.micro_rho, now)
                if (
                    admitted.plan.encoding.noise is None
                ):  # what code adds by itself is paid for whole, with the first step
                    cost = budgets.undrawn(connection, admitted.digest)
                budgets.draw(connection, admitted.digest, index, cost)
                drawn.append(cost)
            owed = _owed(connection, admitted, decision, now)
            decided.append((decision, reserved))
            return {
                "decision": decision.model_dump(mode="json"),
                **({"metered": reserved.model_dump(mode="json")} if reserved is not None else {}),
                **({"duties": owed} if owed else {}),
            }

        fields = {
            "plan": admitted.digest,
            "invocation": step.envelope.to_bytes(),
            "requester": admitted.plan.requester,
            "agreement": admitted.agreement_digest,
            "dataset": admitted.mine.dataset,
            "data_version": admitted.mine.data_version,
            "rules": request.get("rules") or "",
            "purpose": admitted.plan.purpose,
            "action": invocation.action,
            "code": admitted.plan.code,
            "runtime": runtime,
            "protection": admitted.plan.protection,
            "rho": rho_text(admitted.plan.micro_rho) if admitted.plan.micro_rho else "unbounded",
            "round": invocation.round,
            "attempt": invocation.attempt,
            "stage": invocation.stage,
        }
        appended = await asyncio.wrap_future(self.ledger.submit("intent", fields, apply=reserve))
        return Intent(appended.index, *decided[-1], drawn[-1] if drawn else 0)

    async def note_stage(self, intent: int, stage: str, statement: Envelope, guard: Callable[[], None]) -> Appended:
        """Put on record, between a step's INTENT and its OUTCOME, that something of it leaves.

        Args:
            guard: as for :meth:`intend`.
        """
        fields = {"intent": intent, "stage": stage, "statement": statement.to_bytes()}

        def check(_: sqlite3.Connection) -> None:
            guard()

        return await asyncio.wrap_future(self.ledger.submit("stage", fields, apply=check))

    async def settle(
        self,
        receipt: Receipt,
        envelope: Envelope,
        guard: Callable[[], None] = lambda: None,
        opened: Opened | None = None,
    ) -> Appended:
        """Write OUTCOME and close the step it belongs to, in one transaction; an INTENT has one OUTCOME.

        Args:
            guard: as for :meth:`intend`; an outcome ``ok`` must not follow a revocation.
            opened: the survivors for whom shares are about to be released.

        Raises:
            DifferenceError: such a sum was opened since that was asked; nothing was written.
        """

        def close(connection: sqlite3.Connection) -> None:
            guard()
            leaks.settle(connection, receipt.plan, receipt.intent, receipt.leak_bits)
            metering.settle(connection, receipt.plan, receipt.invocation, receipt.metered)
            budgets.settle(connection, receipt.intent, receipt.micro_rho)
            if opened is not None:
                check_difference(opened, openings.earlier_openings(connection, receipt.data_version, opened))
                openings.note_opening(connection, receipt.data_version, opened, receipt.round)
            closed = connection.execute(
                "UPDATE step SET outcome = ?, leak = ?"
                " WHERE plan = ? AND invocation = ? AND intent = ? AND outcome IS NULL",
                (receipt.outcome, receipt.leak_bits, receipt.plan, receipt.invocation, receipt.intent),
            )
            if closed.rowcount != 1:
                raise ReplayError("entry {intent} has its outcome already", intent=receipt.intent)
            connection.execute("DELETE FROM held WHERE invocation = ?", (receipt.invocation,))

        fields: dict[str, object] = {
            "receipt": envelope.to_bytes(),
            "plan": receipt.plan,
            "outcome": receipt.outcome,
            "code": receipt.code,
            "dataset": receipt.dataset,
            "intent": receipt.intent,
        }
        return await asyncio.wrap_future(self.ledger.submit("outcome", fields, ref=receipt.intent, apply=close))

    async def return_leak(self, plan: str) -> None:
        """Give back what a plan that is over at this node reserved and did not draw."""
        with self.ledger.reader() as connection:
            left = leaks.undrawn(connection, plan)
        if left is None:
            return
        fields = {"plan": plan, "agreement": left.agreement, "reserved": left.bound, "drawn": left.drawn}

        def close(connection: sqlite3.Connection) -> None:
            leaks.close(connection, plan)

        await asyncio.wrap_future(self.ledger.submit("leak", fields, apply=close))

    async def return_budget(self, plan: str) -> None:
        """Give back the rho that a plan that is over at this node reserved and did not draw."""
        with self.ledger.reader() as connection:
            left = budgets.undrawn(connection, plan)
        if not left:
            return

        def close(connection: sqlite3.Connection) -> None:
            budgets.close(connection, plan)

        fields = {"plan": plan, "event": "returned", "rho": rho_text(left)}
        await asyncio.wrap_future(self.ledger.submit("budget", fields, apply=close))

    def set_limits(self, dataset: str, limits: budgets.Limits) -> None:
        """Put the owner's limits of a dataset's privacy budget on record, and in force."""
        fields = {
            "dataset": dataset,
            "event": "set",
            "quarterly": rho_text(limits.quarterly),
            "requester": rho_text(limits.requester),
        }

        def put(connection: sqlite3.Connection) -> None:
            budgets.set_limits(connection, dataset, limits)

        self.ledger.append("budget", fields, apply=put)

    def limits(self, dataset: str) -> budgets.Limits:
        """The owner's limits of a dataset's privacy budget."""
        with self.ledger.reader() as connection:
            return budgets.limits_of(connection, dataset)

    def gauges(self, datasets: tuple[str, ...], now: datetime) -> list[budgets.Gauge]:
        """The privacy budgets of these datasets."""
        with self.ledger.reader() as connection:
            return budgets.gauges(connection, datasets, now)

    def spent(self, dataset: str = "") -> list[budgets.Spent]:
        """Every plan that spent or reserved rho, oldest first."""
        with self.ledger.reader() as connection:
            return budgets.history(connection, dataset)

    def drawn(self, intent: int) -> int:
        """Micro-rho that a step drew."""
        with self.ledger.reader() as connection:
            return budgets.drawn_by(connection, intent)

    def leak_taken(self, agreement: str) -> int:
        """Bits that are reserved or have left under an agreement."""
        with self.ledger.reader() as connection:
            return leaks.taken(connection, agreement)

    async def proof(self, appended: Appended) -> bytes:
        """The proof of an entry that was just written, for its receipt to travel with."""
        if appended.last is not None:
            return self.ledger.bundle_of(appended)
        return await asyncio.to_thread(self.ledger.bundle_of, appended)  # it was written with others

    def rehearse(self, admitted: AdmittedPlan, request: Mapping[str, object]) -> DecisionRecord:
        """What would be decided now; reserves and writes nothing.

        Raises:
            BudgetError: the privacy budget would not cover the plan.
        """
        with self.ledger.reader() as connection:
            try:
                decision, _ = decide_within(connection, admitted, request)
            except PolicyDeniedError as error:
                return error.record
            if admitted.plan.micro_rho:
                budgets.check(connection, use_of(admitted), admitted.plan.micro_rho, _moment(request))
            return decision

    def check_difference(self, data_version: str, wanted: Opened) -> None:
        """Raise DifferenceError where a sum that was opened on this data stands against another."""
        with self.ledger.reader() as connection:
            check_difference(wanted, openings.earlier_openings(connection, data_version, wanted))

    def openings(self) -> list[openings.OpenedSet]:
        """The sums that this node helped to open."""
        with self.ledger.reader() as connection:
            return openings.opened_sets(connection)

    def forgive(self, data_version: str, dataset: str) -> int:
        """Let what was opened on a data version no longer stand against other sums, by the owner's word; how many did."""
        found: list[int] = []

        def apply(connection: sqlite3.Connection) -> Mapping[str, object]:
            found.append(openings.forgive(connection, data_version))
            return {"sets": found[-1]}

        self.ledger.append("openings-allowed", {"dataset": dataset, "data_version": data_version}, apply=apply)
        return found[-1]

    def open_steps(self) -> list[int]:
        """Indices of the INTENT entries without an OUTCOME, oldest first."""
        with self.ledger.reader() as connection:
            rows = connection.execute("SELECT intent FROM step WHERE outcome IS NULL ORDER BY intent").fetchall()
        return [int(row[0]) for row in rows]

    def last_step(self, plan: str) -> LastStep | None:
        """The newest step of a plan; None where it took none, or its newest is still open."""
        with self.ledger.reader() as connection:
            row = connection.execute(
                "SELECT invocation, outcome, intent FROM step WHERE plan = ? ORDER BY round DESC, attempt DESC LIMIT 1",
                (plan,),
            ).fetchone()
        if row is None or row[1] is None:
            return None
        entry = next(self.ledger.find(kind="outcome", ref=row[2]), None)
        return LastStep(row[0], row[1], entry.index) if entry is not None else None

    def uses(self, agreement: str) -> int:
        """Uses of an agreement reserved so far."""
        with self.ledger.reader() as connection:
            return int(
                connection.execute("SELECT count(*) FROM plan_use WHERE agreement = ?", (agreement,)).fetchone()[0]
            )


def _check_new(connection: sqlite3.Connection, plan: str, invocation: Invocation) -> None:
    """Raise where this step was taken before.

    A round may be tried again under a higher attempt where its last try was killed, for then nothing of it came past the
    gate; and not without end, for when and how a step is killed may be in its requester's hand.
    """
    tried = connection.execute(
        "SELECT round, stage, attempt, outcome FROM step WHERE plan = ? AND round >= ? ORDER BY round DESC, attempt DESC",
        (plan, invocation.round),
    ).fetchall()
    if not tried:
        return
    last, stage, attempt, outcome = tried[0]
    if (last, stage, outcome) != (invocation.round, invocation.stage, "killed") or invocation.attempt <= attempt:
        raise ReplayError("round {round} of this plan was taken before", round=invocation.round)
    if len(tried) >= ATTEMPTS:
        raise ReplayError("round {round} was tried {count} times", round=invocation.round, count=len(tried))


def _check_course(connection: sqlite3.Connection, admitted: AdmittedPlan, stage: str, number: int) -> None:
    """Raise where the plan ended here before, or has had its training rounds; asked of the ledger, not of memory.

    A gate that a coordinator could ask again and again, by opening the plan anew, would be a door.
    """
    ended = connection.execute(
        "SELECT outcome FROM step WHERE plan = ? AND outcome IN ('denied', 'failed') LIMIT 1", (admitted.digest,)
    ).fetchone()
    if ended is not None:
        raise DeniedError(
            "this plan has ended here, with a step that was {outcome}",
            hint="plan the job again",
            code="job-ended",
            outcome=ended[0],
        )
    trained = connection.execute(
        "SELECT count(DISTINCT round) FROM step WHERE plan = ? AND stage = 'train' AND round < ?",
        (admitted.digest, number),
    ).fetchone()[0]
    if stage == "train" and trained >= admitted.plan.rounds:
        raise DeniedError(
            "the plan ends after {rounds} rounds",
            hint="plan more rounds (`keyong job run --rounds`)",
            code="rounds-exceeded",
            rounds=admitted.plan.rounds,
        )


def decide_within(
    connection: sqlite3.Connection, admitted: AdmittedPlan, request: Mapping[str, Any]
) -> tuple[DecisionRecord, Metered | None]:
    """Judge with the uses as this transaction sees them; the decision, and what the step is to reserve.

    Args:
        request: what the line found out (:func:`enterprise_node.decision.judge`), with the most ``seconds`` that the
            step may take and ``bytes`` that its reply may have where one is known; without, nothing of either.
    """
    key = (admitted.agreement_digest, admitted.digest)
    continuing = (
        connection.execute("SELECT 1 FROM plan_use WHERE agreement = ? AND plan = ?", key).fetchone() is not None
    )
    taken = connection.execute("SELECT count(*) FROM plan_use WHERE agreement = ?", key[:1]).fetchone()[0]
    demands = admitted.demands(str(request["action"]))
    course, reserved = _course(connection, admitted, request, continuing)
    consent = consent_within(connection, admitted) if demands.approval else NOT_ASKED
    decision = judge(
        admitted,
        request,
        uses_taken=int(taken),
        continuing=continuing,
        leak_taken=leaks.taken(connection, *key) if demands.leak_bounded else None,
        rho_taken=budgets.taken_under(connection, *key) if demands.rho_bounded else None,
        consent=consent,
        course=course,
    )
    if request.get("private") and not admitted.plan.micro_rho and not demands.unbounded:
        raise DeniedError(
            "the dataset has a privacy unit, so its answers carry noise, and the plan adds none",
            hint="plan the job with --rho, or agree on --rho unbounded in words",
            code="noise",
        )
    _check_private_code(admitted, consent)
    if _size(decision) > DECISION_BYTES:
        raise DeniedError(
            "the agreement's clauses are too long to be put on record with every step",
            hint="agree on shorter clauses",
            code="decision-size",
        )
    return decision, reserved


def _course(
    connection: sqlite3.Connection, admitted: AdmittedPlan, request: Mapping[str, Any], continuing: bool
) -> tuple[dict[str, Any], Metered | None]:
    """What this transaction knows of the agreement's uses and circumstances, and what the step would reserve."""
    agreement, now = admitted.agreement_digest, _moment(request)
    said = attributes.circumstances(connection, admitted.plan.requester)
    times = metering.course(connection, agreement, admitted.digest, now)
    found: dict[str, Any] = {
        "elapsed": times.elapsed,
        "interval": times.interval,
        "place": said.place,
        "industry": said.industry,
        "events": said.events,
        "duties": obligations.tallies(connection, agreement, admitted.policy, now),
    }
    wanted = admitted.measures(str(request["action"]))
    if not wanted.metered:
        return found, None
    used = metering.usage(connection, agreement)
    used = used if continuing else replace(used, uses=used.uses + 1)
    size = int(request.get("bytes", 0))
    step = Metered(seconds=wanted.seconds_for(used, int(request.get("seconds", 1)), size), bytes=size)
    seconds, total = used.seconds + step.seconds, used.bytes + size
    found["metered"] = timedelta(seconds=seconds)
    found["total_bytes"] = total
    found["paid"] = wanted.tariff.amount(used.uses, seconds, total)
    return found, step


def _moment(request: Mapping[str, Any]) -> datetime:
    now: datetime = request["now"]
    return now


def _owed(
    connection: sqlite3.Connection, admitted: AdmittedPlan, decision: DecisionRecord, now: datetime
) -> list[dict[str, str]]:
    """What the permission that decided makes the consumer owe, put down with this job's first step."""
    permission = admitted.policy.permission[int(decision.rule.removeprefix("permission/"))]
    return obligations.arise(connection, admitted.agreement_digest, admitted.digest, tracked(permission.duty), now)


def _check_private_code(admitted: AdmittedPlan, consent: Consent) -> None:
    """Raise where a plan counts on noise that its code adds, without the owner's word on exactly that code and config."""
    plan = admitted.plan
    if plan.encoding.noise is not None or not plan.micro_rho:
        return
    if not 0 < consent.micro_rho <= plan.micro_rho:
        raise DeniedError(
            "the plan counts on noise that its code adds, and the owner has not approved code and config for so little",
            hint="ask the owner (`keyong node approvals grant --dp`), or let nodes add it: `keyong job run --rho --clip`",
            code="noise",
        )


def use_of(admitted: AdmittedPlan) -> budgets.Use:
    """Whom a plan's privacy budget is charged to: the legal entity that asks, whichever of its members signed."""
    return budgets.Use(admitted.digest, admitted.mine.dataset, admitted.requester_entity, admitted.agreement_digest)


def denied_record(error: KeyongError, agreement: str) -> DecisionRecord:
    """The decision that a refusal stands for: the policy's, or one that names the check that failed."""
    if isinstance(error, PolicyDeniedError):
        record = error.record
        return record if _size(record) <= DECISION_BYTES else record.model_copy(update={"constraints": ()})
    return DecisionRecord(permit=False, agreement=agreement, rule=error.code)


def _size(decision: DecisionRecord) -> int:
    """Bytes of a decision on record; where it is far below what is asked about, a bound on them that costs less."""
    texts = sum(
        len(one.operand) + len(one.operator) + len(one.right) + len(one.left) + len(one.note)
        for one in decision.constraints
    )
    if (most := 12 * texts + 200 * len(decision.constraints) + 4000) < DECISION_BYTES:
        return most  # no character takes more than twelve bytes as JSON
    return len(canonical_json(decision.model_dump(mode="json")))
