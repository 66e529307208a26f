"""The privacy budget: reserved before, settled after, never overspent, whatever crashes or comes twice."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enterprise_node import budgets
from enterprise_node.budgets import BudgetError, Limits, Use, quarter_of
from enterprise_node.recovery import close_open_steps
from federation.secagg import Layout, noise_shares, noised_encoding, step_micro_rho
from federation.statements import JobPlan, MetricSpec, OutputSchema, StageOutput

AT = datetime(2026, 11, 20, tzinfo=UTC)
LIMITS = Limits(quarterly=1000, requester=600)


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in budgets.SCHEMA:
        connection.execute(statement)
    budgets.set_limits(connection, "passes", LIMITS)
    return connection


class Spending(RuleBasedStateMachine):
    """Plans of three entities reserve, draw, settle, crash, come again and end in any order, over quarters.

    The model knows no SQL: for each plan what it may still cost at most. No budget may ever be exceeded by what plans have
    drawn, even if every open plan goes on to draw all it reserved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection = database()
        self.now = AT
        self.plans: dict[str, dict[str, Any]] = {}
        self.open: dict[int, tuple[str, int]] = {}
        self.intent = 0

    def transaction(self, work: Any, crash: bool = False) -> bool:
        """Run work as the ledger does: all or nothing; a crash before the commit is nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            work(self.connection)
        except BudgetError:
            self.connection.execute("ROLLBACK")
            return False
        self.connection.execute("ROLLBACK" if crash else "COMMIT")
        return not crash

    @rule(plan=st.sampled_from("abcdef"), bound=st.integers(1, 700), cost=st.integers(0, 400), crash=st.booleans())
    def step(self, plan: str, bound: int, cost: int, crash: bool) -> None:
        """A plan's first or next step."""
        known = self.plans.get(plan)
        stated = known["bound"] if known else bound
        entity = "xyz"[ord(plan) % 3]
        use = Use(plan, "passes", entity, f"agreement-{entity}")
        self.intent += 1

        def work(connection: sqlite3.Connection) -> None:
            budgets.reserve(connection, use, stated, self.now)
            budgets.draw(connection, plan, self.intent, cost)

        if self.transaction(work, crash):
            quarter = known["quarter"] if known else quarter_of(self.now)
            entry = self.plans.setdefault(
                plan, {"bound": stated, "drawn": 0, "closed": False, "entity": entity, "quarter": quarter}
            )
            entry["closed"] = False
            entry["drawn"] += cost
            self.open[self.intent] = (plan, cost)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), spent=st.booleans(), crash=st.booleans(), twice=st.booleans())
    def settle(self, data: st.DataObject, spent: bool, crash: bool, twice: bool) -> None:
        """An OUTCOME: all of the cost, or nothing of it; perhaps sent again."""
        intent = data.draw(st.sampled_from(sorted(self.open)))
        plan, cost = self.open[intent]
        left = cost if spent else 0
        if self.transaction(lambda c: budgets.settle(c, intent, left), crash):
            del self.open[intent]
            self.plans[plan]["drawn"] += left - cost
            if twice:
                self.transaction(lambda c: budgets.settle(c, intent, 0))

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """A job's end at this node; not while a step of it runs."""
        plan = data.draw(st.sampled_from(sorted(self.plans)))
        if all(one != plan for one, _ in self.open.values()):
            self.transaction(lambda c: budgets.close(c, plan))
            self.plans[plan]["closed"] = True

    @rule()
    def next_quarter(self) -> None:
        self.now += timedelta(days=92)

    def most(self, **where: str) -> int:
        """What plans have cost, or may yet."""
        chosen = [p for p in self.plans.values() if all(p[key] == value for key, value in where.items())]
        return sum(p["drawn"] if p["closed"] else max(p["bound"], p["drawn"]) for p in chosen)

    @invariant()
    def nothing_is_overspent(self) -> None:
        for quarter in {p["quarter"] for p in self.plans.values()}:
            assert self.most(quarter=quarter) <= LIMITS.quarterly
        for entity in "xyz":
            assert self.most(entity=entity) <= LIMITS.requester
        assert all(0 <= p["drawn"] <= p["bound"] for p in self.plans.values())

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        quarter = quarter_of(self.now)
        gauges = budgets.gauges(self.connection, ("passes",), self.now)
        assert gauges[0].taken == self.most(quarter=quarter)
        assert {g.requester: g.taken for g in gauges[1:]} == {
            entity: self.most(entity=entity) for entity in {p["entity"] for p in self.plans.values()}
        }
        assert {s.plan: s.drawn for s in budgets.history(self.connection)} == {
            name: p["drawn"] for name, p in self.plans.items()
        }


Spending.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSpending = Spending.TestCase


def test_the_machine_fails_where_a_reservation_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, an invariant that cannot fail would look the same."""
    monkeypatch.setattr(budgets, "_SPENT", "drawn")
    connection = database()
    for number, plan in enumerate("ab"):
        budgets.reserve(connection, Use(plan, "passes", "x", "one"), 600, AT)
        budgets.draw(connection, plan, number, 0)
    for number, plan in enumerate("ab", start=2):
        budgets.draw(connection, plan, number, 600)
    spent = budgets.gauges(connection, ("passes",), AT)
    assert spent[1].taken == 1200 > LIMITS.requester


def test_quarters_are_those_of_the_calendar_in_utc() -> None:
    assert quarter_of(datetime(2026, 1, 1, tzinfo=UTC)) == "2026Q1"
    assert quarter_of(datetime(2026, 9, 30, 23, 59, tzinfo=UTC)) == "2026Q3"
    beijing = datetime.fromisoformat("2027-01-01T07:59:59+08:00")
    assert quarter_of(beijing) == "2026Q4"


# -- on the line ----------------------------------------------------------------------------------------------------------


def noised(world: Any, agreement: Any, micro_rho: int = 50_000, multiplier: str = "10", **changes: Any) -> Any:
    """A plan whose replies carry noise; unprotected, so that a scripted world sees them."""
    stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss", minimum="0", maximum="1"),))
    values: dict[str, Any] = {
        "micro_rho": micro_rho,
        "encoding": noised_encoding(1, "1", multiplier, 1),
        "outputs": OutputSchema(train=stage, evaluate=StageOutput(sent=False), maximal_bytes=2**20),
    }
    return world.plan(agreement, **(values | changes))


def answer(content: Any) -> Any:
    async def replied() -> Any:
        return content(metrics={"metrics": {"loss": 0.5}})

    return replied


def cost_of(plan: Any) -> int:
    statement = JobPlan.read(plan)
    layout = Layout.derive({"arrays": {"0": np.zeros(2, dtype=np.float32)}}, statement.outputs.train)
    return step_micro_rho(statement, layout)


async def test_each_receipt_states_what_was_spent_and_the_budget_is_reserved_and_settled(
    world: Any, content: Any
) -> None:
    plan = noised(world, world.agreement())
    world.reply = answer(content)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.micro_rho, receipt.weight) == ("ok", cost_of(plan), 1)
    assert noise_shares(JobPlan.read(plan)) == 1
    quarter, mine = world.record.gauges(("passes",), world.clock())
    assert (quarter.taken, mine.taken, mine.requester) == (50_000, 50_000, "lab Ltd")
    await world.line.close_job(plan.digest)
    quarter, mine = world.record.gauges(("passes",), world.clock())
    assert quarter.taken == mine.taken == receipt.micro_rho
    (returned,) = world.entries("budget")
    assert returned["event"] == "returned"
    assert [one["rho"] for one in world.entries("intent")] == ["0.05"]


async def test_inv1_plans_that_would_overspend_are_denied_and_cost_nothing(world: Any, content: Any) -> None:
    world.record.set_limits("passes", Limits(quarterly=500_000, requester=99_999))
    one, other = (noised(world, world.agreement()) for _ in range(2))
    world.reply = answer(content)
    await world.open(one)
    await world.open(other)
    assert (await world.invoke(one))[0].outcome == "ok"
    denied, _ = await world.invoke(other)
    assert (denied.outcome, denied.code, denied.intent) == ("denied", "budget", -1)
    assert world.record.gauges(("passes",), world.clock())[0].taken == 50_000
    assert (await world.open(noised(world, world.agreement()))).code == "budget"  # said before anything is begun


async def test_inv1_a_step_beyond_what_its_plan_states_is_denied(world: Any, content: Any) -> None:
    plan = noised(world, world.agreement(), micro_rho=15_000)
    world.reply = answer(content)
    await world.open(plan)
    assert cost_of(plan) > 7_500
    assert (await world.invoke(plan))[0].outcome == "ok"
    denied, _ = await world.invoke(plan, 2)
    assert (denied.outcome, denied.code) == ("denied", "budget")


async def test_a_step_that_failed_before_anything_left_gives_its_rho_back(world: Any, content: Any) -> None:
    plan = noised(world, world.agreement())

    async def diverged() -> Any:
        return content(float("nan"), metrics={"metrics": {"loss": 0.5}})

    world.reply = diverged
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert (receipt.code, receipt.micro_rho) == ("output-refused", 0)
    assert world.record.spent()[0].drawn == 0


async def test_a_crash_keeps_the_reservation_and_the_cost(world: Any, content: Any) -> None:
    plan = noised(world, world.agreement())
    stuck = asyncio.Event()

    async def never() -> Any:
        await stuck.wait()

    world.reply = never
    await world.open(plan)
    running = asyncio.create_task(world.invoke(plan))
    while not world.calls:
        await asyncio.sleep(0.01)
    # as a restarted node finds it: an INTENT without an OUTCOME
    world.line._steps.running.clear()
    assert await close_open_steps(world.record, world.keys["mill"].statement, "mill", world.clock()) == 1
    (one,) = world.record.spent()
    assert (one.drawn, one.drawn + one.reserved) == (cost_of(plan), 50_000)
    receipt = JobPlan  # the receipt itself says so
    (outcome,) = world.entries("outcome")
    from federation.statements import Envelope, Receipt

    receipt = Receipt.read(Envelope.from_bytes(outcome["receipt"]))
    assert (receipt.outcome, receipt.micro_rho) == ("killed", cost_of(plan))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_agreements_own_budget_binds_beside_the_owners(world: Any, content: Any) -> None:
    agreement = world.agreement(rho="0.08")
    one, other = (noised(world, agreement) for _ in range(2))
    world.reply = answer(content)
    await world.open(one)
    await world.open(other)
    receipt, _ = await world.invoke(one)
    judged = [found for found in receipt.decision.constraints if found.operand == "fed:rho"]
    assert receipt.outcome == "ok" and [found.left for found in judged] == ["0.05"]
    denied, _ = await world.invoke(other)
    assert (denied.outcome, denied.code) == ("denied", "rho")
    without = world.plan(agreement)
    assert (await world.open(without)).code == "rho"


async def test_inv8_noise_that_code_adds_counts_only_by_the_owners_word_on_code_and_config(world: Any) -> None:
    from enterprise_node.approvals import Approvals

    agreement = world.agreement(approval=True)
    plan = world.plan(agreement, micro_rho=30_000, run_config={"noise": "1.5"})
    assert (await world.open(plan)).code == "approval"
    approvals = Approvals(world.home, world.record.ledger)
    (waiting,) = approvals.known()
    approvals.grant(waiting, "read", world.clock())
    assert (await world.open(plan)).code == "noise"  # approved to run, not to count
    approvals.grant(waiting, "accountant checked", world.clock(), micro_rho=30_000)
    assert world.entries("approval")[-1]["rho"] == "0.03"
    others = (
        {"micro_rho": 29_999, "run_config": {"noise": "1.5"}},
        {"micro_rho": 30_000, "run_config": {"noise": "0"}},
        {"micro_rho": 30_000, "run_config": {"noise": "1.5"}, "rounds": 4},
    )
    for changes in others:
        answered = await world.open(world.plan(agreement, **changes))
        assert (answered.permitted, answered.code) == (False, "noise"), changes
    # without a clause for approval nobody's word stands behind it
    assert (await world.open(world.plan(world.agreement(), micro_rho=30_000))).code == "noise"

    assert (await world.open(plan)).permitted
    costs = [(await world.invoke(plan, number))[0] for number in (1, 2)]
    assert [one.micro_rho for one in costs] == [30_000, 0]  # whole with the first step
    assert "by the owner's approval" in costs[0].exception
    assert world.record.gauges(("passes",), world.clock())[0].taken == 30_000
    approvals.refuse(approvals.find(waiting.id), "", world.clock())
    assert (await world.invoke(plan, 3))[0].outcome == "denied"


async def test_a_dataset_with_a_privacy_unit_wants_noise_or_a_clause_in_words(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enterprise_node.store import RegisteredDataset

    monkeypatch.setattr(RegisteredDataset, "privacy_unit", ("", 1))
    refused = await world.open(world.plan(world.agreement()))
    assert (refused.permitted, refused.code) == (False, "noise")
    plan = world.plan(world.agreement(rho="unbounded"))
    assert (await world.open(plan)).permitted
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok" and "rho: unbounded" in receipt.exception
    assert world.entries("intent")[-1]["rho"] == "unbounded"


async def test_inv8_a_plan_whose_noise_is_not_what_it_says_is_refused(world: Any) -> None:
    agreement = world.agreement()
    honest = JobPlan.read(noised(world, agreement)).encoding
    narrow = honest.model_copy(update={"scale": "1000000000000000"})  # the clip is less than one unit: noise of nothing
    telling = honest.model_copy(update={"weight_maximum": 1000})
    loose = honest.model_copy(update={"clip": None})
    plain = honest.model_copy(update={"noise": None})
    for encoding, code in ((narrow, "encoding"), (telling, "encoding"), (loose, "encoding"), (plain, "noise")):
        answered = await world.open(noised(world, agreement, encoding=encoding))
        assert (answered.permitted, answered.code) == (False, code)
    assert (await world.open(noised(world, agreement, micro_rho=0))).code == "encoding"
    assert (await world.open(noised(world, agreement))).permitted
