"""One exchange of a job: the same content to every node of the cohort, their replies added as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from coordinator.answers import Answer, ReceiptError, code_from, read_encoded, read_single, verify_answer
from coordinator.broadcast import Broadcast, Sender
from coordinator.links import Links
from federation.crypto import SigningKey
from federation.errors import DeniedError, KeyongError
from federation.home import Home, now
from federation.jobs.codec import Content, ContentError, decode, header_bytes
from federation.secagg import Accumulator, Aggregate, Layout
from federation.statements import Envelope, Invocation, JobPlan
from federation.wire.messages import pack
from federation.wire.peer import Incoming

__all__ = ["Answer", "Exchange", "JobDeniedError", "ReceiptError", "RoundFailedError", "Rounds"]

log = structlog.get_logger("keyong.coordinator")

MARGIN_SECONDS = 30.0
"""Beyond what the plan gives a step: verifying, signing, the line's own delay. Bytes on the way do not count."""


class RoundFailedError(KeyongError):
    """Too few nodes answered for the plan's minimum."""

    code = "too-few-participants"
    exit_code = 5


class JobDeniedError(DeniedError):
    """Nodes refused, so that fewer than the plan's minimum remain."""

    code = "job-denied"


class RoundRefusedError(KeyongError):
    """What the app wants sent is not what the plan holds; no node was asked."""

    code = "exchange"


@dataclass
class Exchange:
    """What an exchange gave: the aggregate (or single replies under ``each``), every receipt, who fell out."""

    round: int
    stage: str
    sent: Content
    answers: list[Answer] = field(default_factory=list)
    fallen: dict[str, str] = field(default_factory=dict)
    contributed: list[str] = field(default_factory=list)
    aggregate: Aggregate | None = None
    replies: dict[str, Content] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    """Rows as each node's receipt states them, of those that contributed."""
    clauses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The decision of each node that refused the step by a clause: for the requester, who is party to the agreement."""


class Rounds:
    """Carries a job's exchanges to its nodes.

    Args:
        live: nodes still in the job; whoever falls out stays out.
        on_answer: told of each verified receipt as it comes.
        on_fallen: told of who fell out of each exchange, also of one that failed for it.
    """

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        links: Links,
        envelope: Envelope,
        plan: JobPlan,
        live: Sequence[str],
        on_answer: Callable[[Answer], Awaitable[None]],
        on_fallen: Callable[[Exchange], Awaitable[None]],
    ) -> None:
        self._home = home
        self._key = key
        self._links = links
        self._envelope = envelope
        self._plan = plan
        self._on_answer = on_answer
        self._on_fallen = on_fallen
        self._adding = asyncio.Lock()
        self._sender = Sender(links)
        self.live = list(live)
        self.count = 0
        self.trained = 0

    async def exchange(self, stage: str, header: Mapping[str, Any], body: memoryview) -> Exchange:
        """Send one content to all live nodes and gather their replies.

        Raises:
            RoundRefusedError: the plan does not hold this step, or the content is malformed.
            JobDeniedError: fewer than the plan's minimum answered, and all others refused by a clause.
            RoundFailedError: fewer than the plan's minimum answered; nothing of the round is shown.
        """
        self._count(stage)
        try:
            raw = header_bytes(header)
            sent = await asyncio.to_thread(decode, raw, body)
        except ContentError as error:
            raise RoundRefusedError(
                "the app sent a malformed content ({what})", what=error.code, code=error.code
            ) from None
        broadcast = await asyncio.to_thread(Broadcast, raw, body)
        output = self._plan.outputs.of(stage)  # type: ignore[arg-type]
        layout = Layout.derive(sent.arrays, output)
        summing = self._plan.aggregation == "sum"
        accumulator = Accumulator(layout, self._plan.encoding, len(self._plan.cohort)) if summing else None
        result = Exchange(self.count, stage, sent)
        noting: list[asyncio.Future[None]] = []

        async def ask(node: str) -> None:
            try:
                answer, incoming = await self._invoke(node, stage, broadcast)
                result.answers.append(answer)
                noting.append(asyncio.ensure_future(self._on_answer(answer)))  # kept on disk while the reply is added
                if answer.receipt.outcome != "ok":
                    result.fallen[node] = answer.receipt.code or answer.receipt.outcome
                    if answer.receipt.outcome == "denied" and not answer.receipt.decision.permit:
                        result.clauses[node] = answer.receipt.decision.model_dump(mode="json")
                    return
                # One at a time: of all replies that lie in the spool, one is in memory.
                async with self._adding:
                    await asyncio.to_thread(self._take, node, incoming, answer, accumulator, layout, result)
            except KeyongError as error:
                result.fallen[node] = code_from(error.code)
                log.warning("node-fell-out", node=node, code=result.fallen[node], reason=str(error)[:500])
                return
            result.contributed.append(node)

        try:
            await _together([ask(node) for node in self.live])
        finally:
            await asyncio.gather(*noting)
        self.live = [node for node in self.live if node in result.contributed]
        if result.fallen:
            await self._on_fallen(result)
        if len(self.live) < self._plan.minimal_participants:
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(result.fallen.items()))
            if set(result.fallen) == set(result.clauses):
                raise JobDeniedError("nodes refused round {round} ({reasons})", round=self.count, reasons=reasons)
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

    def _count(self, stage: str) -> None:
        # Nodes refuse beyond the same bounds; asked here, no node has to, and the app's author reads why.
        rounds = self._plan.rounds
        if self.count >= 2 * rounds + 1 or (stage == "train" and self.trained >= rounds):
            raise RoundRefusedError(
                "the app goes on after the {rounds} rounds the plan allows",
                hint="plan more rounds (`keyong job run --rounds`), or let the app end by itself",
                rounds=rounds,
                code="rounds-exceeded",
            )
        self.count += 1
        self.trained += stage == "train"

    async def _invoke(self, node: str, stage: str, broadcast: Broadcast) -> tuple[Answer, Incoming]:
        content = await asyncio.to_thread(broadcast.named, self._links.version(node))
        at = now()
        # With each step's time that of a start: a node that was restarted in between makes its session anew.
        timeout = self._plan.setup_seconds + self._plan.round_seconds + MARGIN_SECONDS
        invocation = Invocation(
            issued=at,
            expires=self._plan.expires,  # how long its content takes to arrive is the line's affair
            plan=self._envelope.digest,
            node=node,
            round=self.count,
            stage=stage,  # type: ignore[arg-type]
            content=content.digest,
        )
        envelope = invocation.seal(self._key)
        incoming = await self._sender.send(node, pack(envelope), content, timeout)
        answer = await asyncio.to_thread(verify_answer, self._home, self._plan, envelope, invocation, incoming, now())
        return answer, incoming

    def _take(
        self,
        node: str,
        incoming: Incoming,
        answer: Answer,
        accumulator: Accumulator | None,
        layout: Layout,
        result: Exchange,
    ) -> None:
        plan = self._plan
        if accumulator is not None:
            accumulator.add(read_encoded(answer, incoming, layout, plan.encoding, len(plan.cohort)))
        else:
            output = plan.outputs.of(result.stage)  # type: ignore[arg-type]
            result.replies[node] = read_single(answer, incoming, result.sent, output)
        result.weights[node] = answer.receipt.weight


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """Wait for all; where one fails by an error of our own, end the others first, so that none goes on unseen."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
