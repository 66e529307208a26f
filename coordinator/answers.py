"""What a node answered to one step, judged before any of it counts.

1. The receipt is signed by the node and says what was asked: plan, step, content, code, dataset, protection.
2. The proof beside it shows this very receipt in a tree that the node's ledger key signed.
3. The reply is the one that the receipt names, of the layout that the plan fixes.
4. Where nothing masks a reply, each of its values is one that an honest node of that weight could have sent. Else one
   node could void a round for all, and nobody could say which.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import VerificationError
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode
from federation.keyring import ledger_key
from federation.ledger import verify_bundle
from federation.secagg import EncodedReply, Layout, MaskContext, reply_digest
from federation.secagg.bounds import total_bits
from federation.secagg.layout import FIRST_METRIC, ONE, SATURATED, WEIGHT, expected_arrays
from federation.statements import Encoding, Envelope, Invocation, JobPlan, MaskedInput, Receipt, StageOutput
from federation.wire.messages import Invoked, unpack
from federation.wire.peer import Incoming

_BLOCK = 1 << 16
"""Values looked at twice while they lie in a core's cache."""
_CODE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}\Z")


class ReceiptError(VerificationError):
    """A node's receipt does not fit what was asked or what came with it."""

    code = "receipt"


class ReplyError(VerificationError):
    """A node's reply is not one that it could honestly have sent."""

    code = "reply"


@dataclass(frozen=True)
class Answer:
    """One node's verified answer to one step."""

    node: str
    receipt: Receipt
    envelope: Envelope
    proof: bytes


def code_from(text: str) -> str:
    """A code that another party sent, fit to be shown and kept; ``malformed`` for anything that is not one."""
    return text if _CODE.match(text) else "malformed"


def verify_answer(
    home: Home, plan: JobPlan, asked: Envelope, invocation: Invocation, incoming: Incoming, at: datetime
) -> Answer:
    """Judge points 1 and 2.

    Raises:
        ReceiptError: the receipt is for something else, or its proof is for another entry.
        VerificationError subclasses: a signature, a proof or a format does not hold.
    """
    header = Invoked.from_bytes(incoming.header)
    return verify_receipt(home, plan, asked, invocation, header.receipt, header.proof, at)


def verify_receipt(
    home: Home, plan: JobPlan, asked: Envelope, invocation: Invocation, told: str, proof_text: str, at: datetime
) -> Answer:
    """Judge points 1 and 2 for a receipt and a proof as a header holds them; raises as `verify_answer`."""
    envelope = unpack(told)
    node = invocation.node
    member = home.roster.member(node)
    receipt = Receipt.open(envelope, [member.public], at)
    share = plan.at(node)
    expected: dict[str, object] = {
        "node": node,
        "plan": invocation.plan,
        "invocation": asked.digest,
        "round": invocation.round,
        "attempt": invocation.attempt,
        "stage": invocation.stage,
        "input": invocation.content,
        "code_digest": plan.code,
        "runtime": plan.runtime,
        "dataset": share.dataset,
        "data_version": share.data_version,
        "protection": plan.protection,
    }
    for name, value in expected.items():
        if getattr(receipt, name) != value:
            raise ReceiptError(
                "the receipt of {node} is for something else: its {field} differs", node=node, field=name
            )
    if receipt.outcome == "ok" and not (receipt.decision.permit and receipt.intent >= 0):
        raise ReceiptError("the receipt of {node} says ok without a permit", node=node)
    try:
        proof = base64.b64decode(proof_text, validate=True)
    except (binascii.Error, ValueError):
        raise ReceiptError("the proof of {node} is not base64", node=node) from None
    bundle = verify_bundle(proof, ledger_key(home.history.rosters, node))
    # What is refused before an INTENT has no OUTCOME; the node records it as a denial.
    kind = "denied" if (receipt.outcome, receipt.intent) == ("denied", -1) else "outcome"
    if bundle.entry.kind != kind or bundle.fields.get("receipt") != envelope.to_bytes():
        raise ReceiptError("the proof of {node} is for another entry than its receipt", node=node)
    return Answer(node, receipt, envelope, proof)


def read_encoded(answer: Answer, incoming: Incoming, layout: Layout, encoding: Encoding, n: int) -> EncodedReply:
    """Judge points 3 and 4 for a reply under ``sum`` that no mask covers.

    Raises:
        ReceiptError: it is not the reply that the receipt names.
        ReplyFormatError: another layout.
        ReplyError: a value that no honest node of that weight could have sent.
    """
    reply = EncodedReply.from_buffers(incoming.body, layout, encoding)  # judges the length before anything is hashed
    if (incoming.digest or reply_digest([incoming.body])) != answer.receipt.output:
        raise ReceiptError("the reply of {node} is not the one its receipt names", node=answer.node)
    totals = [int(value) for value in reply.totals]
    weight = answer.receipt.weight
    if totals[ONE] != 1 or totals[WEIGHT] != weight:
        raise ReplyError("the reply of {node} does not count as one of the weight in its receipt", node=answer.node)
    if not encoding.weight_minimum <= weight <= encoding.weight_maximum:
        raise ReplyError("the weight of {node} is not one that the plan allows", node=answer.node)
    share = weight / encoding.weight_maximum
    whole = share * 2.0 ** total_bits(n) * (1 + 1e-12) + 1
    metrics = reply.totals[FIRST_METRIC:]
    limits = (
        (reply.narrow, share * 2.0**encoding.fraction_bits * (1 + 1e-12) + 1),
        (reply.wide, whole),
        (metrics, whole),
    )
    fits = all(_largest(vector) <= limit for vector, limit in limits)
    if not fits or totals[SATURATED] > layout.narrow_size + layout.wide_size:
        raise ReplyError("the reply of {node} holds a value beyond the plan's bounds", node=answer.node)
    return reply


def read_masked(
    home: Home, asked: Envelope, invocation: Invocation, context: MaskContext, incoming: Incoming, at: datetime
) -> Envelope:
    """The node's signed word on a masked vector, judged by what was asked and by the vector that came.

    Raises:
        ReceiptError: it is for something else, or of another vector.
        VerificationError subclasses: the signature does not hold.
    """
    node = invocation.node
    envelope = unpack(Invoked.from_bytes(incoming.header).masked)
    one = MaskedInput.open(envelope, [home.roster.member(node).public], at)
    said = (one.node, one.plan, one.invocation, one.cohort, one.round, one.attempt, one.stage, one.content)
    if said != (
        node,
        context.plan,
        asked.digest,
        context.cohort,
        context.round,
        context.attempt,
        context.stage,
        context.content,
    ):
        raise ReceiptError("the masked input of {node} is for something else", node=node)
    if (incoming.digest or reply_digest([incoming.body])) != one.output:
        raise ReceiptError("the reply of {node} is not the one its receipt names", node=node)
    return envelope


def read_single(answer: Answer, incoming: Incoming, sent: Content, output: StageOutput) -> Content:
    """Judge point 3 for a reply under ``each``, and that it holds the arrays and metrics of the plan's schema alone.

    Raises:
        ReceiptError: it is not the reply that the receipt names.
        ReplyError: it holds something else than the schema says.
    """
    raw = Invoked.from_bytes(incoming.header).reply.encode()
    try:
        reply = decode(raw, incoming.body)
    except ContentError as error:
        raise ReplyError("the reply of {node} is malformed ({what})", node=answer.node, what=error.code) from None
    if content_digest(raw, [incoming.body]) != answer.receipt.output:
        raise ReceiptError("the reply of {node} is not the one its receipt names", node=answer.node)
    expected = {place: (dtype, shape) for place, (dtype, shape, _) in expected_arrays(sent.arrays, output).items()}
    held = {
        (record, name): (array.dtype.name, array.shape)
        for record, entries in reply.arrays.items()
        for name, array in entries.items()
    }
    named = [name for entries in reply.metrics.values() for name in entries]
    if held != expected or reply.configs or not set(named) <= {metric.name for metric in output.metrics}:
        raise ReplyError("the reply of {node} holds something else than the plan's schema", node=answer.node)
    return reply


def _largest(vector: NDArray[Any]) -> float:
    if not vector.size:
        return 0.0
    signed = vector.view(np.int32 if vector.itemsize == 4 else np.int64)
    parts = (signed[start : start + _BLOCK] for start in range(0, len(signed), _BLOCK))
    return max(max(float(part.max()), -float(part.min())) for part in parts)
