"""After a crash: every INTENT without an OUTCOME gets one, before the node serves again (invariant 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime

from enterprise_node.receipts import RECEIPT_VALIDITY, spent
from enterprise_node.record import Record
from federation.crypto import SigningKey
from federation.ledger import HeadError
from federation.secagg import OUTCOME_BITS
from federation.statements import DecisionRecord, Envelope, Invocation, Isolation, Metered, Receipt
from federation.statements.receipt import Outcome

ABORTED = "aborted"


async def close_open_steps(
    record: Record, key: SigningKey, node: str, now: datetime, running: Collection[str] = ()
) -> int:
    """Write OUTCOME ``killed``/``aborted`` for every step that was left open; returns how many.

    Args:
        running: invocations (digests) that are at work in this process and will settle by themselves.

    Raises:
        HeadError: an open step names an entry that is no INTENT: the node's state and its ledger do not fit.
    """
    closed = 0
    for index in await asyncio.to_thread(record.open_steps):
        entry = record.ledger.entry(index)
        if entry.kind != "intent":
            raise HeadError("entry {at} is not the INTENT that the node's state says it is", at=index)
        envelope = Envelope.from_bytes(record.ledger.fields(index)["invocation"])
        if envelope.digest in running:
            continue
        await close_step(record, key, node, now, index)
        closed += 1
    return closed


async def close_step(
    record: Record,
    key: SigningKey,
    node: str,
    now: datetime,
    index: int,
    outcome: Outcome = "killed",
    code: str = ABORTED,
) -> None:
    """Write the OUTCOME of one open step whose job is not in this process any more."""
    fields = await asyncio.to_thread(record.ledger.fields, index)
    envelope = Envelope.from_bytes(fields["invocation"])
    step = Invocation.read(envelope)
    receipt = Receipt(
        issued=now,
        expires=now + RECEIPT_VALIDITY,
        node=node,
        plan=step.plan,
        invocation=envelope.digest,
        round=step.round,
        attempt=step.attempt,
        stage=step.stage,
        intent=index,
        outcome=outcome,
        code=code,
        decision=DecisionRecord.model_validate(fields["decision"]),
        dataset=fields["dataset"],
        data_version=fields["data_version"],
        code_digest=fields["code"],
        runtime=fields["runtime"],
        isolation=Isolation(),
        input=step.content,
        protection=fields["protection"],
        started=now,
        ended=now,
        micro_rho=spent(await asyncio.to_thread(record.drawn, index), outcome),
        leak_bits=OUTCOME_BITS,
        # How long it ran is not known any more: what it had reserved stays used.
        metered=Metered.model_validate(fields["metered"]) if "metered" in fields else None,
    )
    await record.settle(receipt, receipt.seal(key))
