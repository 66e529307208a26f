"""After a crash: every INTENT without an OUTCOME gets one, before the node serves again (invariant 2)."""

from __future__ import annotations

from datetime import datetime

from enterprise_node.line import RECEIPT_VALIDITY
from enterprise_node.record import Record
from federation.crypto import SigningKey
from federation.statements import DecisionRecord, Envelope, Invocation, Isolation, Receipt


async def close_open_steps(record: Record, key: SigningKey, node: str, now: datetime) -> int:
    """Write OUTCOME ``killed``/``aborted`` for every step that a crash left open; returns how many."""
    steps = record.open_steps()
    if not steps:
        return 0
    intents: dict[str, tuple[int, dict[str, object]]] = {}
    for entry in record.ledger.find(kind="intent"):
        fields = record.ledger.fields(entry.index)
        raw = fields["invocation"]
        assert isinstance(raw, bytes)
        intents[Envelope.from_bytes(raw).digest] = (entry.index, fields)
    for plan, round_number, attempt, stage, invocation in steps:
        index, fields = intents[invocation]
        raw = fields["invocation"]
        assert isinstance(raw, bytes)
        step = Invocation.read(Envelope.from_bytes(raw))
        receipt = Receipt(
            issued=now,
            expires=now + RECEIPT_VALIDITY,
            node=node,
            plan=plan,
            invocation=invocation,
            round=round_number,
            attempt=attempt,
            stage=stage,
            intent=index,
            outcome="killed",
            code="aborted",
            decision=DecisionRecord.model_validate(fields["decision"]),
            dataset=str(fields["dataset"]),
            data_version=str(fields["data_version"]),
            code_digest=str(fields["code"]),
            runtime="sha256:" + "0" * 64,
            isolation=Isolation(),
            input=step.content,
            protection="",
            started=now,
            ended=now,
        )
        await record.settle(receipt, receipt.seal(key))
    return len(steps)
