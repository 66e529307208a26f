"""One exchange without masks: replies that the coordinator reads, added as they come, or handed on one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from coordinator.aggregate_file import finish
from coordinator.answers import Answer, ReceiptError, code_from, read_encoded, read_single, verify_answer
from coordinator.broadcast import Broadcast
from coordinator.cohort import Cohort
from coordinator.exchange import REPLAY, Exchange, JobDeniedError, NodesAwayError, RoundFailedError
from coordinator.links import Links
from coordinator.masked_exchange import Call, Seal
from coordinator.recording import Asked, Recording
from federation.errors import KeyongError, UnavailableError
from federation.home import Home, now
from federation.secagg import Accumulator, Layout, reply_digest
from federation.statements import Envelope, Invocation, JobPlan
from federation.wire.offload import offload
from federation.wire.peer import Incoming

log = structlog.get_logger("keyong.coordinator")

ATTEMPTS = 3
"""How often a node is asked for one exchange whose step was killed each time; it refuses more."""


class OpenExchanges:
    """Carries the exchanges of one job whose agreements permit replies without masks, and those of a bilateral one.

    Args:
        call: sends an invocation with its content, and waits for the node's answer.
        seal: an invocation for a node, a stage, a content's digest and an attempt.
        on_answer: told of each verified receipt.
        on_fallen: told of who fell out of an exchange, also of one that failed for it.
    """

    def __init__(
        self,
        home: Home,
        links: Links,
        plan: JobPlan,
        cohort: Cohort,
        recording: Recording,
        call: Call,
        seal: Seal,
        on_answer: Callable[[Answer], Awaitable[None]],
        on_fallen: Callable[[Exchange], Awaitable[None]],
    ) -> None:
        self._home = home
        self._links = links
        self._plan = plan
        self._cohort = cohort
        self._recording = recording
        self._call = call
        self._seal = seal
        self._on_answer = on_answer
        self._on_fallen = on_fallen
        self._adding = asyncio.Lock()
        self._writing = asyncio.Lock()

    async def run(self, result: Exchange, broadcast: Broadcast, asked: Asked | None) -> Exchange:
        """Make the exchange, or go on with one that was asked before; fills in ``result``.

        Raises:
            NodesAwayError: fewer than the plan's minimum answered, and others may come back.
            JobDeniedError: fewer than the plan's minimum answered, and all others refused by a clause.
            RoundFailedError: fewer than the plan's minimum answered; nothing of the round is shown.
        """
        invocations = await self._begin(result, broadcast, asked)
        output = self._plan.outputs.of(result.stage)  # type: ignore[arg-type]
        layout = Layout.derive(result.sent.arrays, output)
        summing = self._plan.aggregation == "sum"
        accumulator = Accumulator(layout, self._plan.encoding, len(self._plan.cohort)) if summing else None
        away: set[str] = set()
        noting: list[asyncio.Future[None]] = []

        async def ask(node: str, invocation: Envelope) -> None:
            try:
                answer, incoming = await self._settled(result, node, invocation, broadcast)
                result.answers.append(answer)
                noting.append(asyncio.ensure_future(self._on_answer(answer)))  # kept on disk while the reply is added
                if answer.receipt.outcome != "ok":
                    result.fallen[node] = answer.receipt.code or answer.receipt.outcome
                    if answer.receipt.outcome == "killed" or result.fallen[node] == REPLAY:
                        away.add(node)
                    elif answer.receipt.outcome == "denied" and not answer.receipt.decision.permit:
                        result.clauses[node] = answer.receipt.decision.model_dump(mode="json")
                    return
                # One at a time: of all replies that lie in the spool, one is in memory.
                async with self._adding:
                    taken = (node, incoming, answer, accumulator, layout, result)
                    await offload(len(incoming.body), self._take, *taken)
            except KeyongError as error:
                result.fallen[node] = code_from(error.code)
                if isinstance(error, UnavailableError) or error.code == "no-such-job":
                    away.add(node)
                log.warning("node-fell-out", node=node, code=result.fallen[node], reason=str(error)[:500])
                return
            result.contributed.append(node)

        try:
            await _together([ask(node, invocation) for node, invocation in invocations.items()])
        finally:
            await asyncio.gather(*noting)
        for node, code in result.fallen.items():
            self._cohort.fell(node, code, away=node in away)
        if result.fallen:
            await self._on_fallen(result)
        if len(result.contributed) < self._plan.minimal_participants:
            raise self._too_few(result)
        if accumulator is not None:
            size = 8 * (layout.narrow_size + layout.wide_size)
            count = len(result.contributed)
            result.aggregate, result.body = await offload(size, finish, accumulator, count, result.sent.arrays)
        return result

    async def single(self, result: Exchange, broadcast: Broadcast) -> tuple[Answer, Incoming]:
        """One content to the one node of a bilateral plan: its verified answer, and the reply that its receipt names.

        Raises:
            JobDeniedError: a clause refused it.
            RoundFailedError: the node failed, or is not there.
            ReceiptError: the reply is another than the receipt names.
        """
        ((node, invocation),) = (await self._begin(result, broadcast, None)).items()
        answer, incoming = await self._settled(result, node, invocation, broadcast)
        await self._on_answer(answer)
        if answer.receipt.outcome != "ok":
            result.fallen[node] = answer.receipt.code or answer.receipt.outcome
            if answer.receipt.outcome == "denied" and not answer.receipt.decision.permit:
                result.clauses[node] = answer.receipt.decision.model_dump(mode="json")
            await self._on_fallen(result)
            raise self._too_few(result)
        if (incoming.digest or reply_digest([incoming.body])) != answer.receipt.output:
            raise ReceiptError("the reply of {node} is not the one its receipt names", node=node)
        return answer, incoming

    async def _begin(self, result: Exchange, broadcast: Broadcast, asked: Asked | None) -> dict[str, Envelope]:
        """The invocation of each live node, on record; those that were sent before are sent again as they were."""
        before = asked.invocations if asked is not None else {}
        invocations = {}
        for node in self._cohort.live:
            if node in before:
                invocations[node] = Envelope.from_bytes(before[node])
            else:
                content = await offload(len(broadcast.body), broadcast.named, self._links.version(node))
                invocations[node] = self._seal(node, result.stage, content.digest, 1)
        await self._record(result, broadcast.digest, invocations)
        return invocations

    async def _record(self, result: Exchange, digest: str, invocations: Mapping[str, Envelope]) -> None:
        sealed = {node: envelope.to_bytes() for node, envelope in invocations.items()}
        async with self._writing:
            await asyncio.to_thread(self._recording.ask, result.round, result.stage, digest, sealed)

    async def _settled(
        self, result: Exchange, node: str, envelope: Envelope, broadcast: Broadcast
    ) -> tuple[Answer, Incoming]:
        """A node's verified answer. A node that lost the job opens it again, a step that was killed is tried again."""
        while True:
            invocation = Invocation.read(envelope)
            content = await offload(len(broadcast.body), broadcast.signed_for, invocation.content)
            try:
                incoming = await self._call(node, envelope, content, ())
            except KeyongError as error:
                if error.code != "no-such-job" or not await self._cohort.reopen(node):
                    raise
                incoming = await self._call(node, envelope, content, ())
            at = now()
            answer = await asyncio.to_thread(verify_answer, self._home, self._plan, envelope, invocation, incoming, at)
            if answer.receipt.outcome != "killed" or invocation.attempt >= ATTEMPTS:
                return answer, incoming
            if not await self._cohort.reopen(node):
                return answer, incoming
            await self._on_answer(answer)
            envelope = self._seal(node, invocation.stage, invocation.content, invocation.attempt + 1)
            await self._record(result, broadcast.digest, {node: envelope})

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

    def _too_few(self, result: Exchange) -> KeyongError:
        reasons = ", ".join(f"{node}: {code}" for node, code in sorted(result.fallen.items()))
        if set(result.fallen) == set(result.clauses):
            return JobDeniedError("nodes refused round {round} ({reasons})", round=result.round, reasons=reasons)
        # What a node has lost of this round it will not have when it is asked again.
        back = sum(result.fallen.get(node) != REPLAY for node in self._cohort.away)
        kind = NodesAwayError if len(result.contributed) + back >= self._plan.minimal_participants else RoundFailedError
        return kind(
            "{left} of {planned} nodes answered round {round}, the plan needs {minimum} ({reasons})",
            left=len(result.contributed),
            planned=len(self._plan.cohort),
            round=result.round,
            minimum=self._plan.minimal_participants,
            reasons=reasons,
        )


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """Wait for all; where one fails by an error of our own, end the others first, so that none goes on unseen."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
