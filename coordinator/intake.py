"""What a coordinator takes on: a plan as it was submitted, judged before anything is kept of it."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from coordinator.store import JobRow
from federation.errors import DeniedError, UnavailableError
from federation.statements import Envelope, JobPlan, Roster, StatementError, instant_text
from federation.statements.code import CodeBundle
from sandbox import Runtime, Tier

DISK_RESERVE = 2 * 2**30


def open_plan(
    envelope: Envelope, roster: Roster, runtime: Runtime, me: str, sender: str, now: datetime, tier: Tier
) -> JobPlan:
    """The plan in an envelope; raises unless its requester sent it, and this coordinator can and may run it now.

    Args:
        tier: what the server part would be isolated by.
    """
    claimed = JobPlan.read(envelope)
    plan = JobPlan.open(envelope, [roster.member(claimed.requester).public], now)
    if plan.requester != sender or plan.coordinator != me:
        raise StatementError("the plan is another member's, or for another coordinator")
    for planned in plan.cohort:
        roster.member(planned.node)
    if plan.runtime != runtime.digest:
        raise DeniedError(
            "the plan names another runtime than the coordinator's",
            hint="install the same runtime everywhere (`keyong node runtime show`), then plan the job again",
            code="runtime-differs",
        )
    memory = memory_here()
    if plan.memory_bytes > memory:
        raise DeniedError(
            "the plan wants {wanted} MiB of memory, and the coordinator has {here} MiB",
            hint="plan the job with less",
            code="memory-unavailable",
            wanted=plan.memory_bytes // 2**20,
            here=memory // 2**20,
        )
    if tier is Tier.T0 and plan.tier != Tier.T0:
        raise DeniedError(
            "the coordinator serves for development, without isolation (T0), and the plan does not accept that",
            hint="have it serve without --development; or use agreements on made-up data with --min-tier T0",
            code="tier-unavailable",
        )
    if plan.aggregation == "each" and plan.protection != "fed:none":
        raise DeniedError(
            "aggregation each shows every company's reply; this plan's protection {protection} forbids it",
            hint="every agreement of the cohort must say fed:protection fed:none; else aggregate by sum",
            code="protection",
            protection=plan.protection,
        )
    return plan


def memory_here() -> int:
    """Memory of this machine in bytes: a session's bound above it would bind nobody."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_code(plan: JobPlan, code: bytes | memoryview) -> None:
    """Raise unless the code is what the plan was signed for."""
    if CodeBundle.from_bytes(code).digest != plan.code:
        raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")


def check_disk(folder: Path) -> None:
    """Raise where the coordinator's disk has no room for another job."""
    if shutil.disk_usage(folder).free < DISK_RESERVE:
        raise UnavailableError(
            "the coordinator's disk is nearly full", hint="its operator must make room", code="disk-full"
        )


def row_of(envelope: Envelope, plan: JobPlan, at: datetime) -> JobRow:
    """What the store keeps of a plan that is taken on."""
    return JobRow(
        id=plan.id,
        plan_digest=envelope.digest,
        requester=plan.requester,
        purpose=plan.purpose,
        status="submitted",
        rounds=plan.rounds,
        participants=len(plan.cohort),
        protection=plan.protection,
        submitted=instant_text(at),
        envelope=envelope.to_bytes(),
    )
