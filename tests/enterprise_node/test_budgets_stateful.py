"""inv1: uses, seconds, bytes and money of an agreement under whatever order of steps, races, crashes and replays.

Never over: what is reserved and settled together stays within every clause. Never lost: the state equals what the
ledger's own entries add up to. A denial and a replay cost nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from enterprise_node import metering
from enterprise_node.admission import AdmittedStep, admit_plan, admit_step
from enterprise_node.receipts import Held, of_step
from enterprise_node.record import Record
from enterprise_node.recovery import close_open_steps
from federation.policy import PolicyDeniedError
from federation.statements import Metered, Receipt, ReplayError
from sandbox import Runtime
from tests.enterprise_node.conftest import make

USES, SECONDS, BYTES, PAY = 6, 4000, 9_000_000, Decimal(500)
STEP_SECONDS, STEP_BYTES = 900, 2_000_000
TERMS: dict[str, Any] = {
    "count": USES,
    "cost": "50",
    "tariff": "CNY; second 0.05; megabyte 5",
    "further": {"metered-time": f"{SECONDS}s", "total-bytes": str(BYTES), "pay-amount": str(PAY)},
}


class Budgets(RuleBasedStateMachine):
    """One agreement, its plans, and steps that begin, end, race, crash and come again."""

    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        worlds = contextmanager(make)(folder, Runtime(folder, "sha256:" + "7" * 64))
        self.world = self.stack.enter_context(worlds)
        self.agreement = self.world.agreement(expires=self.world.clock() + timedelta(days=3), **TERMS)
        self.plans: list[Any] = []
        self.rounds: dict[str, int] = {}
        self.open: dict[str, tuple[AdmittedStep, Any]] = {}
        self.denied = 0

    def teardown(self) -> None:
        self.world.record.ledger.close()
        self.stack.close()

    def step(self, plan: Any) -> AdmittedStep:
        """The next step of a plan, or the first of a new one."""
        number = self.rounds[plan.digest] = self.rounds.get(plan.digest, 0) + 1
        world, home = self.world, self.world.home
        now = world.clock()
        admitted = admit_plan(
            plan, node="mill", history=home.history, find_agreement=lambda _: self.agreement,
            runtime=world.runtime.digest, tier="T2", now=now,
        )  # fmt: skip
        envelope, *_ = world.step(plan, number)
        content = world_content(envelope)
        return admit_step(admitted, envelope, node="mill", history=home.history, content=content, now=now)

    def facts(self, seconds: int, size: int) -> dict[str, Any]:
        dataset = self.world.store.dataset("passes")
        return {
            "action": "fed:train", "now": self.world.clock(), "accepted": frozenset(), "columns": dataset.shown_names,
            "rules": "", "tier": "T2", "seconds": seconds, "bytes": size,
        }  # fmt: skip

    async def begin(self, steps: list[AdmittedStep], seconds: int, size: int) -> list[Any]:
        facts = self.facts(seconds, size)
        record = self.world.record
        return await asyncio.gather(
            *(record.intend(step, facts, lambda: None, self.world.runtime.digest) for step in steps),
            return_exceptions=True,
        )

    @rule(
        target=begun,
        fresh=st.integers(1, 3),
        seconds=st.integers(1, STEP_SECONDS),
        size=st.integers(0, STEP_BYTES),
    )
    def race(self, fresh: int, seconds: int, size: int) -> list[str]:
        """Several plans begin at once, each wanting the last of what there is."""
        plans = [self.world.plan(self.agreement, rounds=1000) for _ in range(fresh)]
        return self.take([self.step(plan) for plan in plans], plans, seconds, size)

    @rule(seconds=st.integers(1, STEP_SECONDS), size=st.integers(0, STEP_BYTES), which=st.integers(0, 100))
    def go_on(self, seconds: int, size: int, which: int) -> None:
        """A plan that holds its use takes another step."""
        if self.plans:
            plan = self.plans[which % len(self.plans)]
            if not any(step.admitted.digest == plan.digest for step, _ in self.open.values()):
                self.take([self.step(plan)], [], seconds, size)

    def take(self, steps: list[AdmittedStep], plans: list[Any], seconds: int, size: int) -> list[str]:
        before = self.state()
        results = asyncio.run(self.begin(steps, seconds, size))
        names = []
        for step, result in zip(steps, results, strict=True):
            if isinstance(result, PolicyDeniedError):
                self.denied += 1
                continue
            assert not isinstance(result, BaseException), result
            self.open[step.envelope.digest] = (step, result)
            self.plans += [plan for plan in plans if plan.digest == step.admitted.digest]
            names.append(step.envelope.digest)
        if not names:
            assert self.state() == before, "a denial costs nothing"
        return names

    @rule(names=begun, seconds=st.integers(0, STEP_SECONDS), size=st.integers(0, STEP_BYTES))
    def settle(self, names: list[str], seconds: int, size: int) -> None:
        """A step ends, with less than it reserved or all of it."""
        for name in names:
            if name in self.open:
                step, intent = self.open.pop(name)
                reserved = intent.reserved
                metered = Metered(seconds=min(seconds, reserved.seconds), bytes=min(size, reserved.bytes))
                self.close(step, intent, metered)

    def close(self, step: AdmittedStep, intent: Any, metered: Metered) -> None:
        now = self.world.clock()
        receipt = of_step(
            step, intent.index, intent.decision, Held(), outcome="killed", code="closed", done=None,
            runtime=self.world.runtime.digest, started=now, ended=now, metered=metered,
        )  # fmt: skip
        asyncio.run(self.world.record.settle(receipt, receipt.seal(self.world.keys["mill"].statement)))

    @rule(names=begun)
    def play_again(self, names: list[str]) -> None:
        """A step that was taken comes again, whether it is at work or over."""
        before = self.state()
        steps = [self.open[name][0] for name in names if name in self.open]
        for result in asyncio.run(self.begin(steps, 1, 0)) if steps else ():
            assert isinstance(result, ReplayError | PolicyDeniedError), result
        assert self.state() == before

    @rule()
    def crash(self) -> None:
        """The process ends; the next one settles what stands open."""
        home, record = self.world.home, self.world.record
        before = self.state()
        record.ledger.close()
        self.world.record = Record(home.open_ledger())
        assert self.state() == before, "a crash keeps the reservation"
        key = self.world.keys["mill"].statement
        asyncio.run(close_open_steps(self.world.record, key, "mill", self.world.clock()))
        assert self.state() == before, "nor does settling after it give anything back"
        self.open.clear()

    def state(self) -> Any:
        with self.world.record.ledger.reader() as connection:
            return metering.usage(connection, self.agreement.digest)

    @invariant()
    def never_over(self) -> None:
        used = self.state()
        assert used.uses <= USES and used.seconds <= SECONDS and used.bytes <= BYTES
        price = 50 * used.uses + Decimal("0.05") * used.seconds + Decimal(5) * used.bytes / 1_000_000
        assert price <= PAY
        assert self.world.record.uses(self.agreement.digest) == used.uses

    @invariant()
    def never_lost(self) -> None:
        """From the entries alone: each INTENT's reservation, or what its OUTCOME's receipt meters."""
        from federation.statements import Envelope

        ledger = self.world.record.ledger
        charged, plans = {}, set()
        for entry in ledger.find(kind="intent"):
            fields = ledger.fields(entry.index)
            charged[entry.index] = fields["metered"]
            plans.add(fields["plan"])
        for entry in ledger.find(kind="outcome"):
            receipt = Receipt.read(Envelope.from_bytes(ledger.fields(entry.index)["receipt"]))
            if receipt.metered is not None:
                charged[receipt.intent] = receipt.metered.model_dump()
        used = self.state()
        assert used.uses == len(plans)
        assert used.seconds == sum(one["seconds"] for one in charged.values())
        assert used.bytes == sum(one["bytes"] for one in charged.values())


def world_content(envelope: Any) -> str:
    from federation.statements import Invocation

    return Invocation.read(envelope).content


SETTINGS = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_inv1_budgets_are_never_over_and_never_lost() -> None:
    run_state_machine_as_test(Budgets, settings=SETTINGS)


def test_without_the_reservation_the_property_fails(monkeypatch: Any) -> None:
    """The check has teeth: where a step's reservation is not added up, races overspend and it is found."""
    monkeypatch.setattr(metering, "_add", lambda *_: None)
    try:
        run_state_machine_as_test(Budgets, settings=settings(SETTINGS, phases=(Phase.generate,)))
    except AssertionError:
        return
    raise AssertionError("nothing was found")
