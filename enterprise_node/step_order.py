"""The order of a plan's steps at this node: none twice, none after its end, no more rounds than planned; asked of the ledger,
never of memory."""

from __future__ import annotations

import sqlite3
from typing import Final

from enterprise_node.admission import AdmittedPlan
from federation.errors import DeniedError
from federation.statements import Invocation, ReplayError

ATTEMPTS: Final = 3
"""How often one round may be tried at this node; see :func:`check_new`."""


def check_new(connection: sqlite3.Connection, plan: str, invocation: Invocation) -> None:
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


def check_course(connection: sqlite3.Connection, admitted: AdmittedPlan, stage: str, number: int) -> None:
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
