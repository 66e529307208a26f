"""A refusal on record: the receipt of what was refused before an INTENT, and the ledger entry that proves it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from enterprise_node.deciding import denied_record
from enterprise_node.receipts import of_refusal
from enterprise_node.record import Record
from federation.crypto import SigningKey
from federation.errors import KeyongError
from federation.ledger import Refusals
from federation.statements import Envelope, JobPlan

log = structlog.get_logger("keyong.node")


class Denials:
    """Writes the node's refusals, each with the decision it stands for.

    Args:
        told: hears the code of each, also of those that are only counted.
    """

    def __init__(
        self, refusals: Refusals, record: Record, node: str, key: SigningKey, told: Callable[[str], None]
    ) -> None:
        self._refusals = refusals
        self._record = record
        self._node = node
        self._key = key
        self._told = told

    async def write(
        self, envelope: Envelope, plan: Envelope | None, plan_digest: str, error: KeyongError, now: datetime
    ) -> tuple[Envelope | None, bytes]:
        """Put a refusal on record; returns its receipt and the proof beside it, both empty where it was only counted.

        Args:
            envelope: what was refused: a plan or an invocation.
            plan: the plan it belongs to; None where there is none here.
        """
        self._told(error.code)
        log.info("denied", statement=envelope.digest, code=error.code, reason=str(error))
        decision = denied_record(error, plan_agreement(plan, self._node))
        receipt = None
        if plan is not None and (job_plan := read_plan(plan)) is not None:
            receipt = of_refusal(self._node, job_plan, plan_digest, envelope, error.code, decision, now)
        fields: dict[str, object] = {"statement": envelope.digest, "plan": plan_digest}
        if receipt is None:
            await self._refusals.write(error.code, {**fields, "decision": decision.model_dump(mode="json")})
            return None, b""
        sealed = receipt.seal(self._key)
        appended = await self._refusals.write(error.code, {**fields, "receipt": sealed.to_bytes()})
        if appended is None:
            return None, b""
        return sealed, await self._record.proof(appended)


def read_plan(envelope: Envelope) -> JobPlan | None:
    """The plan in an envelope; None where it holds none."""
    try:
        return JobPlan.read(envelope)
    except KeyongError:
        return None


def plan_agreement(envelope: Envelope | None, node: str) -> str:
    """Digest of the agreement that a plan names for this node; empty where it names none."""
    plan = read_plan(envelope) if envelope is not None else None
    return next((planned.agreement for planned in plan.cohort if planned.node == node), "") if plan else ""
