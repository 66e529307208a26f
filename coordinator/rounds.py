"""One exchange of a job: the same content to every node of the cohort, their replies added as they come."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog

from coordinator.links import Links
from federation.crypto import SigningKey
from federation.errors import KeyongError, VerificationError
from federation.home import Home, now
from federation.jobs.codec import Content, ContentError, content_digest, decode, header_bytes
from federation.secagg import Accumulator, Aggregate, EncodedReply, Layout, reply_digest
from federation.statements import Envelope, Invocation, JobPlan, Receipt
from federation.wire.messages import Invoke, Invoked, pack, unpack
from federation.wire.peer import Incoming

log = structlog.get_logger("keyong.coordinator")

MARGIN_SECONDS = 30.0
"""Beyond the time the plan gives the computation: transfer, the first snapshot, the sandbox's start."""


class RoundFailedError(KeyongError):
    """Too few nodes answered for the plan's minimum."""

    code = "too-few-participants"
    exit_code = 5


class ReceiptError(VerificationError):
    """A node's receipt does not fit what was asked or what came with it."""

    code = "receipt"


@dataclass(frozen=True)
class Answer:
    """One node's verified answer to one step."""

    node: str
    receipt: Receipt
    envelope: Envelope
    proof: bytes


@dataclass
class Exchange:
    """What an exchange gave: the aggregate (or single replies under ``each``), every receipt, who fell out."""

    round: int
    stage: str
    answers: list[Answer] = field(default_factory=list)
    fallen: dict[str, str] = field(default_factory=dict)
    aggregate: Aggregate | None = None
    replies: dict[str, Content] = field(default_factory=dict)


class Rounds:
    """Carries a job's exchanges to its nodes.

    Args:
        live: nodes still in the job; whoever falls out stays out.
        on_answer: told of each verified receipt as it comes.
    """

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        links: Links,
        envelope: Envelope,
        plan: JobPlan,
        live: Sequence[str],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._home = home
        self._key = key
        self._links = links
        self._envelope = envelope
        self._plan = plan
        self._on_answer = on_answer
        self._adding = threading.Lock()
        self.live = list(live)
        self.count = 0

    async def exchange(self, stage: str, header: Mapping[str, Any], body: memoryview) -> Exchange:
        """Send one content to all live nodes and gather their replies.

        Raises:
            RoundFailedError: fewer than the plan's minimum answered; nothing of the round is shown.
        """
        self.count += 1
        raw = header_bytes(header)
        try:
            sent = decode(raw, body)
        except ContentError as error:
            raise RoundFailedError("the app sent a malformed content", code=error.code) from None
        digest = await asyncio.to_thread(content_digest, raw, [body])
        output = self._plan.outputs.of(stage)  # type: ignore[arg-type]
        layout = Layout.derive(sent.arrays, output)
        summing = self._plan.aggregation == "sum"
        accumulator = Accumulator(layout, self._plan.encoding, len(self._plan.cohort)) if summing else None
        result = Exchange(self.count, stage)

        async def ask(node: str) -> None:
            try:
                incoming, envelope = await self._invoke(node, stage, digest, raw, body)
                answer = self._verify(node, envelope, incoming)
                result.answers.append(answer)
                self._on_answer(answer)
                if answer.receipt.outcome != "ok":
                    result.fallen[node] = answer.receipt.code or answer.receipt.outcome
                    return
                await asyncio.to_thread(self._take, node, incoming, answer, accumulator, layout, result)
            except KeyongError as error:
                log.warning("node-fell-out", node=node, code=error.code, reason=str(error))
                result.fallen[node] = error.code

        await asyncio.gather(*(ask(node) for node in self.live))
        self.live = [node for node in self.live if node not in result.fallen]
        if len(self.live) < self._plan.minimal_participants:
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(result.fallen.items()))
            raise RoundFailedError(
                "{left} of {planned} nodes answered round {round}, the plan needs {minimum} ({reasons})",
                left=len(self.live),
                planned=len(self._plan.cohort),
                round=self.count,
                minimum=self._plan.minimal_participants,
                reasons=reasons,
            )
        if accumulator is not None:
            result.aggregate = await asyncio.to_thread(accumulator.finish, len(self.live), sent.arrays)
        return result

    async def _invoke(
        self, node: str, stage: str, digest: str, raw: bytes, body: memoryview
    ) -> tuple[Incoming, Envelope]:
        at = now()
        invocation = Invocation(
            issued=at,
            expires=min(self._plan.expires, at + timedelta(seconds=self._plan.round_seconds + MARGIN_SECONDS)),
            plan=self._envelope.digest,
            node=node,
            round=self.count,
            stage=stage,  # type: ignore[arg-type]
            content=digest,
        )
        envelope = invocation.seal(self._key)
        header = Invoke(invocation=pack(envelope), content=raw.decode()).to_bytes()
        timeout = self._plan.round_seconds + MARGIN_SECONDS
        incoming = await self._links.call(node, "job.invoke", header, [body], timeout=timeout)
        return incoming, envelope

    def _verify(self, node: str, asked: Envelope, incoming: Incoming) -> Answer:
        header = Invoked.from_bytes(incoming.header)
        envelope = unpack(header.receipt)
        receipt = Receipt.open(envelope, [self._home.public_key(node)], now())
        if (receipt.node, receipt.plan, receipt.invocation) != (node, self._envelope.digest, asked.digest):
            raise ReceiptError("the receipt of {node} is for something else", node=node)
        return Answer(node, receipt, envelope, base64.b64decode(header.proof))

    def _take(
        self,
        node: str,
        incoming: Incoming,
        answer: Answer,
        accumulator: Accumulator | None,
        layout: Layout,
        result: Exchange,
    ) -> None:
        header = Invoked.from_bytes(incoming.header)
        if accumulator is not None:
            if reply_digest([incoming.body]) != answer.receipt.output:
                raise ReceiptError("the reply of {node} is not the one its receipt names", node=node)
            reply = EncodedReply.from_buffers(incoming.body, layout, self._plan.encoding)
            with self._adding:
                accumulator.add(reply)
            return
        raw = header.reply.encode()
        if content_digest(raw, [incoming.body]) != answer.receipt.output:
            raise ReceiptError("the reply of {node} is not the one its receipt names", node=node)
        result.replies[node] = decode(raw, incoming.body)

