"""The line: what is admitted and decided, what is on record, what leaves, and what ends a job."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from enterprise_node import open_jobs, steps
from enterprise_node.record import Record
from enterprise_node.recovery import close_open_steps
from enterprise_node.step_log import read_steps
from federation import correspondence
from federation.errors import DeniedError, KeyongError
from federation.ledger import LedgerUnavailableError, verify_ledger
from federation.statements import JobPlan, Receipt, Revocation
from federation.wire.messages import unpack


def untouched(world: Any) -> bool:
    """Whether nothing ran and nothing was read: no session, no snapshot, no INTENT."""
    return world.calls == 0 and not world.sessions and not list(world.home.folder("sessions").rglob("data*"))


async def test_a_permitted_step_runs_and_its_receipt_says_so(world: Any) -> None:
    plan = world.plan(agreement := world.agreement())
    assert (await world.open(plan)).permitted
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.weight, receipt.decision.permit) == ("ok", 3, True)
    assert receipt.exception and receipt.runtime == world.runtime.digest and answer.body
    assert world.record.uses(agreement.digest) == 1
    assert [entry["outcome"] for entry in world.entries("outcome")] == ["ok"]
    await world.line.close()
    assert world.sessions[0].closed


# -- invariant 1: nothing runs without a permit -----------------------------------------------------------------------

REFUSED_PLANS = {
    "purpose": {"purpose": "fed:Marketing"},
    "code-digest": {},
    "min-participants": {"protection": "fed:masked"},  # a cohort of one
    "runtime-differs": {"runtime": "sha256:" + "0" * 64},
    "tier-unavailable": {"tier": "T3"},
    "signature": {"signer": "other"},
    "roster-chain": {"roster": "sha256:" + "0" * 64},
}


@pytest.mark.parametrize("code", REFUSED_PLANS)
async def test_inv1_a_refused_plan_runs_nothing_costs_nothing_and_is_on_record(world: Any, code: str) -> None:
    terms = {"code": "sha256:" + "0" * 64} if code == "code-digest" else {}
    agreement = world.agreement(**terms)
    plan = world.plan(agreement, **REFUSED_PLANS[code])
    opened = await world.open(plan)
    assert (opened.permitted, opened.code) == (False, code)
    assert [entry["code"] for entry in world.entries("denied")] == [code]
    receipt = Receipt.open(unpack(opened.receipt), [world.keys["mill"].statement.public], world.clock())
    assert (receipt.outcome, receipt.code, receipt.intent) == ("denied", code, -1)
    with pytest.raises(DeniedError) as refused:
        await world.invoke(plan)
    assert refused.value.code == "no-such-job"
    assert untouched(world) and world.record.uses(agreement.digest) == 0 and not world.entries("intent")


async def test_inv1_changed_code_is_refused(world: Any) -> None:
    plan = world.plan(world.agreement())
    world.bundle.files["app/client.py"] += b"# one more line\n"
    assert (await world.open(plan)).code == "code-mismatch"


REFUSED_STEPS = {
    "signature": {"signer": "other"},
    "expired": {"issued_ago": 600, "expires_ago": 300},
    "not-yet-valid": {"issued_ago": -3600, "expires_ago": -7200},
    "invocation-mismatch": {"node": "other"},
    "content-mismatch": {"content": "sha256:" + "0" * 64},
    "action-not-planned": {"stage": "evaluate"},
    "rounds-exceeded": {"round": 12},
}


def altered(world: Any, change: dict[str, Any]) -> dict[str, Any]:
    change = dict(change)
    at = world.clock()
    for name in ("issued", "expires"):
        if f"{name}_ago" in change:
            change[name] = at - timedelta(seconds=change.pop(f"{name}_ago"))
    return change


@pytest.mark.parametrize("code", REFUSED_STEPS)
async def test_inv1_a_refused_step_runs_nothing_and_is_on_record_with_its_own_code(world: Any, code: str) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    receipt, answer = await world.invoke(plan, **altered(world, REFUSED_STEPS[code]))
    assert (receipt.outcome, receipt.code, receipt.intent, answer.body) == ("denied", code, -1, ())
    assert [entry["code"] for entry in world.entries("denied")] == [code]
    assert untouched(world) and world.record.uses(agreement.digest) == 0


@pytest.mark.parametrize("code", REFUSED_STEPS)
async def test_inv1_without_admission_the_same_steps_would_run(
    world: Any, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enterprise_node.admission import AdmittedStep
    from federation.statements import Invocation

    def believing(admitted: Any, envelope: Any, **_: Any) -> AdmittedStep:
        return AdmittedStep(admitted, envelope, Invocation.read(envelope))

    monkeypatch.setattr(steps, "admit_step", believing)
    plan = world.plan(world.agreement(actions=["fed:train", "fed:evaluate"]))
    await world.open(plan)
    await world.invoke(plan, **altered(world, REFUSED_STEPS[code]))
    assert world.calls == 1


async def test_inv1_an_agreement_that_expires_between_open_and_step_denies(world: Any) -> None:
    plan = world.plan(world.agreement(expires=world.clock() + timedelta(minutes=10)))
    assert (await world.open(plan)).permitted
    world.clock.ahead = timedelta(minutes=11)
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "expired")
    assert untouched(world)
    await world.line.sweep()
    assert not world.line.jobs


async def test_inv1_an_agreement_revoked_between_open_and_step_denies(world: Any) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    world.holdings.move(agreement.digest, "revoked")
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "agreement-revoked")
    assert untouched(world)


async def test_inv1_a_requester_removed_from_the_roster_gets_no_further_step(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    world.learn(members=[m for m in world.home.history.latest.model_dump()["members"] if m["id"] != "lab"])
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "roster-changed")
    await world.line.sweep()
    assert untouched(world) and not world.line.jobs


async def test_inv1_a_dataset_taken_away_after_the_opening_is_not_read(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    world.store.remove_dataset("passes")
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "no-such-dataset")
    assert untouched(world)


# -- uses -------------------------------------------------------------------------------------------------------------


async def test_two_plans_racing_for_the_last_use_get_one_permit(world: Any) -> None:
    agreement = world.agreement(count=1)
    plans = [world.plan(agreement) for _ in range(2)]
    for plan in plans:
        assert (await world.open(plan)).permitted
    answers = await asyncio.gather(*(world.invoke(plan) for plan in plans))
    assert sorted((receipt.outcome, receipt.code) for receipt, _ in answers) == [("denied", "count"), ("ok", "")]
    assert world.record.uses(agreement.digest) == 1 and len(world.entries("intent")) == 1 and world.calls == 1


async def test_the_race_would_have_two_winners_if_uses_were_counted_before_the_transaction(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enterprise_node import deciding
    from enterprise_node import record as record_module

    monkeypatch.setattr(
        record_module,
        "decide_within",
        lambda connection, admitted, request: (
            deciding.judge(admitted, request, uses_taken=0, continuing=False),
            None,
        ),
    )
    agreement = world.agreement(count=1)
    plans = [world.plan(agreement) for _ in range(2)]
    for plan in plans:
        await world.open(plan)
    answers = await asyncio.gather(*(world.invoke(plan) for plan in plans))
    assert [receipt.outcome for receipt, _ in answers] == ["ok", "ok"]


async def test_rounds_of_one_plan_are_one_use_and_a_failed_job_costs_its_own(world: Any) -> None:
    agreement = world.agreement(count=2)
    first = world.plan(agreement)
    await world.open(first)
    for number in (1, 2, 3):
        assert (await world.invoke(first, number))[0].outcome == "ok"
    assert world.record.uses(agreement.digest) == 1

    async def broken() -> Any:
        raise KeyongError("broken", code="app-exception")

    world.reply = broken
    second = world.plan(agreement)
    await world.open(second)
    assert (await world.invoke(second))[0].outcome == "failed"
    assert world.record.uses(agreement.digest) == 2
    assert (await world.open(world.plan(agreement))).code == "count"


# -- replay -----------------------------------------------------------------------------------------------------------


async def test_the_last_step_is_answered_again_an_older_one_is_a_replay(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    steps = [world.step(plan, number) for number in (1, 2)]
    answers = [await world.line.invoke(plan.digest, *step) for step in steps]
    assert await world.line.invoke(plan.digest, *steps[1]) == answers[1]
    assert world.calls == 2
    replayed = world.receipt(await world.line.invoke(plan.digest, *steps[0]))
    assert (replayed.outcome, replayed.code) == ("denied", "replay")
    assert world.calls == 2 and [entry["code"] for entry in world.entries("denied")] == ["replay"]


async def test_replay_is_refused_after_the_job_was_closed_and_opened_again(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    step = world.step(plan)
    await world.line.invoke(plan.digest, *step)
    await world.line.close_job(plan.digest)
    await world.open(plan)
    assert world.receipt(await world.line.invoke(plan.digest, *step)).code == "replay"
    assert world.calls == 1


async def test_opening_twice_is_opening_once(world: Any) -> None:
    plan = world.plan(world.agreement())
    await asyncio.gather(world.open(plan), world.open(plan))
    await world.invoke(plan)
    job = world.line.jobs[plan.digest]
    assert (await world.open(plan)).permitted
    assert world.line.jobs[plan.digest] is job and job.session is world.sessions[0] and len(world.sessions) == 1


async def test_open_jobs_are_bounded(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_jobs, "OPEN_JOBS", 2)
    agreement = world.agreement()
    for _ in range(2):
        assert (await world.open(world.plan(agreement))).permitted
    assert (await world.open(world.plan(agreement))).code == "too-many-jobs"


# -- invariant 2: nothing unrecorded ----------------------------------------------------------------------------------


async def test_inv2_no_intent_no_data(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    submit = world.record.ledger.submit

    def failing(kind: str, *args: Any, **options: Any) -> Any:
        if kind == "intent":
            raise LedgerUnavailableError("no room")
        return submit(kind, *args, **options)

    monkeypatch.setattr(world.record.ledger, "submit", failing)
    with pytest.raises(LedgerUnavailableError):
        await world.invoke(plan)
    assert untouched(world) and world.record.uses(agreement.digest) == 0


async def test_inv2_the_intent_is_durable_when_the_data_file_is_opened(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enterprise_node import stages

    seen: list[int] = []
    materialise = stages.materialise_apart

    def watched(*args: Any, **options: Any) -> Any:
        seen.append(len(world.entries("intent")))
        return materialise(*args, **options)

    monkeypatch.setattr(stages, "materialise_apart", watched)
    plan = world.plan(world.agreement())
    await world.open(plan)
    assert seen == []
    await world.invoke(plan)
    assert seen == [1]


async def test_inv2_nothing_leaves_while_the_outcome_cannot_be_written_and_it_follows_later(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    submit = world.record.ledger.submit

    def failing(kind: str, *args: Any, **options: Any) -> Any:
        if kind == "outcome":
            raise LedgerUnavailableError("no room")
        return submit(kind, *args, **options)

    monkeypatch.setattr(world.record.ledger, "submit", failing)
    with pytest.raises(LedgerUnavailableError):
        await world.invoke(plan)
    assert world.sessions[0].closed and len(world.record.open_steps()) == 1
    monkeypatch.undo()
    await world.line.sweep()
    assert world.record.open_steps() == []
    assert [(entry["outcome"], entry["code"]) for entry in world.entries("outcome")] == [("killed", "aborted")]


async def test_inv2_a_crash_between_is_closed_at_the_next_start(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    await world.invoke(plan)
    crashed = world.line
    hanging = asyncio.Event()

    async def forever() -> Any:
        hanging.set()
        await asyncio.Event().wait()

    world.reply = forever
    running = asyncio.create_task(world.invoke(plan, 2))
    await hanging.wait()
    # What a new process sees: the same ledger, none of this one's memory.
    record = Record(world.home.open_ledger())
    assert await close_open_steps(record, world.home.key("statement"), "mill", world.clock()) == 1
    outcome = world.entries("outcome")[-1]
    from federation.statements import Envelope

    receipt = Receipt.read(Envelope.from_bytes(outcome["receipt"]))
    assert (receipt.outcome, receipt.code, receipt.round) == ("killed", "aborted", 2)
    assert receipt.runtime == world.runtime.digest and receipt.protection == "fed:none"
    assert await close_open_steps(record, world.home.key("statement"), "mill", world.clock()) == 0
    await crashed.close()
    with pytest.raises(KeyongError):
        await running
    record.ledger.close()
    verdict = verify_ledger(world.home.path / "ledger", world.record.ledger.vkey)
    assert verdict.completeness == "complete"


async def test_inv2_recovery_leaves_alone_what_is_still_running(world: Any) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)
    step = world.step(plan)

    async def look() -> Any:
        key = world.home.key("statement")
        assert await close_open_steps(world.record, key, "mill", world.clock(), {step[0].digest}) == 0
        raise KeyongError("done looking", code="app-exception")

    world.reply = look
    assert world.receipt(await world.line.invoke(plan.digest, *step)).outcome == "failed"


async def test_inv2_refusals_beyond_the_rate_are_counted_not_written_and_not_forgotten(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from federation.ledger import refusals

    monkeypatch.setattr(refusals, "BURST", 3)
    monkeypatch.setattr(refusals, "SECONDS_EACH", 3600.0)
    world.line._refusals._tokens = 3.0
    plan = world.plan(world.agreement())
    await world.open(plan)
    size = world.record.ledger.size
    for _ in range(3):
        await world.invoke(plan, node="other")
    for _ in range(20):
        with pytest.raises(KeyongError):
            await world.invoke(plan, node="other")
    assert world.record.ledger.size == size + 3
    await world.line.close()
    assert world.entries("denied")[-1]["counted"] == {"invocation-mismatch": 20}


# -- what ends a step -------------------------------------------------------------------------------------------------


async def running_step(world: Any) -> tuple[Any, Any, asyncio.Task[Any]]:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    started = asyncio.Event()

    async def forever() -> Any:
        started.set()
        await asyncio.Event().wait()

    world.reply = forever
    running = asyncio.create_task(world.invoke(plan))
    await started.wait()
    return plan, agreement, running


def revoke(world: Any, agreement: Any) -> None:
    at = world.clock()
    revocation = Revocation(issued=at, expires=at + timedelta(days=1), agreement=agreement.digest, by="mill")
    envelope = revocation.seal(world.keys["mill"].statement)
    correspondence.revoke(world.holdings, world.record.ledger, envelope, revocation)


async def test_a_revocation_kills_the_running_step_and_nothing_of_it_leaves(world: Any) -> None:
    _, agreement, running = await running_step(world)
    revoke(world, agreement)
    async with asyncio.timeout(60):
        await world.line.sweep()
        receipt, answer = await running
    assert (receipt.outcome, receipt.code, receipt.output, answer.body) == ("killed", "agreement-revoked", "", ())
    assert world.sessions[0].closed and not world.line.jobs


async def test_a_revocation_that_nobody_swept_up_yet_still_stops_the_answer(world: Any, content: Any) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)

    async def late() -> Any:
        revoke(world, agreement)
        return content()

    world.reply = late
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.code, answer.body) == ("killed", "agreement-revoked", ())


async def test_without_the_check_at_the_outcome_the_revoked_answer_would_leave(
    world: Any, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)

    async def late() -> Any:
        revoke(world, agreement)
        monkeypatch.setattr(world.line._grounds, "check_in_force", lambda job: None)
        return content()

    world.reply = late
    receipt, answer = await world.invoke(plan)
    assert receipt.outcome == "ok" and answer.body


async def test_a_caller_that_goes_away_stops_the_job_and_the_outcome_follows(world: Any) -> None:
    plan, _, running = await running_step(world)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(entry["outcome"], entry["code"]) for entry in world.entries("outcome")] == [("killed", "cancelled")]
    assert world.sessions[0].closed
    receipt, _ = await world.invoke(plan, 2)
    assert (receipt.outcome, receipt.code) == ("denied", "job-ended") and len(world.sessions) == 1


async def test_stopping_the_node_settles_what_runs(world: Any) -> None:
    _, _, running = await running_step(world)
    await world.line.close()
    receipt, _ = await running
    assert (receipt.outcome, receipt.code) == ("killed", "node-stopped")
    assert world.record.open_steps() == [] and not list(world.home.folder("sessions").rglob("data*"))


async def test_an_unexpected_exception_is_an_outcome_and_its_text_goes_nowhere(
    world: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)

    async def broken() -> Any:
        raise RuntimeError("7531.25 is a value of the mill's")

    world.reply = broken
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("failed", "internal")
    assert b"7531" not in answer.header and "7531" not in "".join(capfd.readouterr())


# -- invariant 3: one door --------------------------------------------------------------------------------------------

REPLIES = {
    "output-not-finite": lambda make: make(float("nan")),
    "output-extra-metric": lambda make: make(metrics={"metrics": {"loss": 0.5, "num-examples": 3, "leak": 7531.25}}),
    "output-missing-metric": lambda make: make(metrics={}),
    "output-metric-range": lambda make: make(metrics={"metrics": {"loss": 1e9, "num-examples": 3}}),
    "output-config": lambda make: make(configs={"leak": {"row": 7531.25}}),
}


@pytest.mark.parametrize("code", REPLIES)
async def test_inv3_what_does_not_fit_the_schema_does_not_leave_and_ends_the_job(
    world: Any, content: Any, code: str
) -> None:
    plan = world.plan(world.agreement())
    await world.open(plan)

    async def bad() -> Any:
        return REPLIES[code](content)

    world.reply = bad
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.code, receipt.output, answer.body) == ("denied", "output-refused", "", ())
    (step,) = read_steps(world.home.folder("logs", JobPlan.read(plan).id.removeprefix("urn:uuid:")))
    assert (step["code"], step["round"]) == (code, 1) and step["reason"]  # the owner is told which rule it was
    assert b"7531" not in answer.header and world.sessions[0].closed
    assert (await world.invoke(plan, 2))[0].code == "job-ended"  # the gate is not asked again and again


async def test_inv3_without_the_gate_the_same_reply_would_leave(
    world: Any, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from enterprise_node import stages
    from enterprise_node.output_gate import GatedReply

    monkeypatch.setattr(stages, "check_reply", lambda reply, *_: GatedReply(reply, 0, 0))
    plan = world.plan(world.agreement())
    await world.open(plan)

    async def bad() -> Any:
        return content(metrics={"metrics": {"loss": 1e4, "num-examples": 3}})

    world.reply = bad
    assert (await world.invoke(plan))[0].outcome == "ok"


# -- the real sandbox -------------------------------------------------------------------------------------------------


async def test_inv4_the_app_runs_in_the_sandbox_and_only_its_gated_reply_leaves(real: Any) -> None:
    plan = real.plan(real.agreement())
    await real.open(plan)
    try:
        receipt, _ = await real.invoke(plan)
        assert (receipt.outcome, receipt.weight, receipt.isolation.tier) == ("ok", 3, "T2")
        assert receipt.isolation.seccomp and receipt.isolation.arguments and receipt.snapshot
        refused, empty = await real.invoke(plan, 2, mode="config")
        assert (refused.outcome, refused.code, empty.body) == ("denied", "output-refused", ())
    finally:
        await real.line.close()
    assert not list(real.home.folder("sessions").rglob("data*"))


async def test_inv3_the_text_of_an_exception_stays_in_the_owners_logs(
    real: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = real.plan(real.agreement())
    await real.open(plan)
    receipt, answer = await real.invoke(plan, mode="raise")
    await real.line.close()
    assert (receipt.outcome, receipt.code) == ("failed", "app-exception")
    assert b"7531" not in answer.header and "7531" not in "".join(capfd.readouterr())
    logs = "".join(path.read_text() for path in Path(real.home.folder("logs")).rglob("*.txt"))
    assert "7531.25" in logs and "RuntimeError" in logs


async def test_a_revocation_kills_a_real_session_within_seconds(real: Any) -> None:
    plan = real.plan(agreement := real.agreement())
    await real.open(plan)
    running = asyncio.create_task(real.invoke(plan, mode="sleep"))
    while (job := real.line.jobs[plan.digest]).session is None:
        assert not running.done()
        await asyncio.sleep(0.05)
    pid = job.session._session.pid
    revoke(real, agreement)
    async with asyncio.timeout(60):
        await real.line.sweep()
        receipt, answer = await running
    assert (receipt.outcome, receipt.code, answer.body) == ("killed", "agreement-revoked", ())
    assert not Path(f"/proc/{pid}").exists()
    assert not list(real.home.folder("sessions").rglob("data*"))
