"""INTENT and OUTCOME: what the node writes before a job may read a byte, and after it ended.

Reservation, replay check and INTENT are one transaction of the ledger, so a permit that is not on record does not
exist, and two requests for the last use cannot both win it (invariants 1 and 2).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from enterprise_node import attributes, budgets, leaks, metering, openings
from enterprise_node.admission import AdmittedPlan, AdmittedStep
from enterprise_node.consent import CONSENT_SCHEMA, PRIVATE_SCHEMA
from enterprise_node.deciding import decide_within, moment_of, owed, use_of
from enterprise_node.held import HELD_SCHEMA
from enterprise_node.step_order import check_course, check_new
from federation import obligations
from federation.ledger import Appended, Ledger
from federation.policy import PolicyDeniedError
from federation.privacy import rho_text
from federation.query import micro_rho_left
from federation.secagg import Opened, check_difference
from federation.statements import DecisionRecord, Envelope, Metered, Receipt, ReplayError

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
        ledger.check_schema("node-policy", 4)
        ledger.ensure_schema("node-policy", 1, list(_SCHEMA))
        ledger.ensure_schema("node-policy", 2, list(_SCHEMA_2))
        ledger.ensure_schema("node-policy", 3, list(openings.SCHEMA))
        ledger.ensure_schema("node-policy", 4, list(openings.SCHEMA_2))
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
            check_new(connection, admitted.digest, invocation)
            check_course(connection, admitted, invocation.stage, invocation.round)
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
            now = moment_of(request)
            metering.reserve(
                connection, admitted.agreement_digest, admitted.digest, step.envelope.digest, now, reserved
            )
            if admitted.plan.micro_rho:
                budgets.check(connection, use_of(admitted), micro_rho_left(admitted.plan), now)
                budgets.reserve(connection, use_of(admitted), admitted.plan.micro_rho, now)
                if not admitted.plan.gate_noise:  # what code adds by itself is paid for whole, with the first step
                    cost = budgets.undrawn(connection, admitted.digest)
                budgets.draw(connection, admitted.digest, index, cost)
                drawn.append(cost)
            duties = owed(connection, admitted, decision, now)
            decided.append((decision, reserved))
            return {
                "decision": decision.model_dump(mode="json"),
                **({"metered": reserved.model_dump(mode="json")} if reserved is not None else {}),
                **({"duties": duties} if duties else {}),
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
                budgets.check(connection, use_of(admitted), micro_rho_left(admitted.plan), moment_of(request))
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

    def carry_openings(self, lost: Path | None, data_versions: Sequence[str]) -> int:
        """Go on from the openings of a ledger that was lost, on record; see :func:`openings.carry_over`."""
        found: list[int] = []

        def apply(connection: sqlite3.Connection) -> Mapping[str, object]:
            found.append(openings.carry_over(connection, lost, data_versions))
            return {"sets": found[-1]}

        self.ledger.append("openings-carried", {"data_versions": sorted(data_versions)}, apply=apply)
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
