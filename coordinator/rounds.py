"""One exchange of a job: the same content to every node of the cohort, their replies added as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from coordinator.aggregate_file import finish
from coordinator.answers import Answer, ReceiptError, code_from, read_encoded, read_single, verify_answer
from coordinator.broadcast import Broadcast, Hashed, Named, Sender
from coordinator.cohort import Cohort
from coordinator.exchange import (
    REPLAY,
    Exchange,
    JobDeniedError,
    NodesAwayError,
    ResumeDiffersError,
    RoundFailedError,
    RoundRefusedError,
)
from coordinator.links import Links
from coordinator.masked_exchange import MaskedExchanges
from coordinator.recording import Answered, Asked, Recording
from coordinator.sums import Sums
from federation.crypto import SigningKey
from federation.errors import KeyongError, UnavailableError
from federation.home import Home, now
from federation.jobs.codec import Content, ContentError, decode, header_bytes
from federation.secagg import Accumulator, Layout, reply_digest
from federation.statements import Envelope, Invocation, JobPlan
from federation.wire.messages import pack
from federation.wire.offload import offload
from federation.wire.peer import Incoming

__all__ = ["Answer", "Exchange", "JobDeniedError", "ReceiptError", "RoundFailedError", "Rounds"]

log = structlog.get_logger("keyong.coordinator")

MARGIN_SECONDS = 30.0
"""Beyond what the plan gives a step: verifying, signing, the line's own delay. Bytes on the way do not count."""

ATTEMPTS = 3
"""How often a node is asked for one exchange whose step was killed each time; it refuses more."""


class Rounds:
    """Carries a job's exchanges to its nodes.

    Args:
        cohort: who takes part.
        recording: what was asked and answered so far; exchanges in it are not made again.
        on_answer: told of each verified receipt as it comes.
        on_fallen: told of who fell out of each exchange, also of one that failed for it.
        sums: what masked vectors are added to; by default that of models.
    """

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        links: Links,
        envelope: Envelope,
        plan: JobPlan,
        cohort: Cohort,
        recording: Recording,
        on_answer: Callable[[Answer], Awaitable[None]],
        on_fallen: Callable[[Exchange], Awaitable[None]],
        sums: Sums | None = None,
    ) -> None:
        self._home = home
        self._key = key
        self._links = links
        self._envelope = envelope
        self._plan = plan
        self._cohort = cohort
        self._recording = recording
        self._on_answer = on_answer
        self._on_fallen = on_fallen
        self._adding = asyncio.Lock()
        self._sender = Sender(links, envelope.digest)
        self._writing = asyncio.Lock()
        self._hashing: tuple[memoryview, asyncio.Future[Hashed]] | None = None
        self.leaving = False
        """Whether who is cancelled from here on goes on later: steps at the nodes are then not called off."""
        self._masked = MaskedExchanges(
            home, key, links, envelope, plan, cohort, recording, self._call, self._seal, on_answer, sums
        )
        self.count = 0
        self.trained = 0

    async def exchange(
        self,
        stage: str,
        header: Mapping[str, Any],
        body: memoryview,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Exchange:
        """Send one content to all live nodes and gather their replies; or give what is on record for it.

        Args:
            before: awaited before anything is looked up or sent, while the content is hashed already.

        Raises:
            RoundRefusedError: the plan does not hold this step, or the content is malformed.
            ResumeDiffersError: another step, or another content, is on record in its place.
            NodesAwayError: fewer than the plan's minimum answered, and others may come back.
            JobDeniedError: fewer than the plan's minimum answered, and all others refused by a clause.
            RoundFailedError: fewer than the plan's minimum answered; nothing of the round is shown.
        """
        self._count(stage)
        try:
            raw = header_bytes(header)
            sent = await offload(len(body), decode, raw, body)
        except ContentError as error:
            raise RoundRefusedError(
                "the app sent a malformed content ({what})", what=error.code, code=error.code
            ) from None
        broadcast = await offload(len(body), Broadcast, raw, body, await self._foreseen(body))
        self._remember(broadcast.hashed)
        if before is not None:
            await before()
        known = self.count <= self._recording.answered
        recorded = await asyncio.to_thread(self._recording.find, self.count) if known else None
        asked = self._recording.pending(self.count) if recorded is None else None
        self._check_course(stage, broadcast.digest, recorded or asked)
        if recorded is not None:
            return _replayed(self.count, stage, sent, recorded)
        await self._muster()
        if self._plan.masked:
            return await self._exchange_masked(
                Exchange(self.count, stage, sent, content=broadcast.digest), broadcast, asked
            )
        invocations = await self._begin(stage, broadcast, asked)
        output = self._plan.outputs.of(stage)  # type: ignore[arg-type]
        layout = Layout.derive(sent.arrays, output)
        summing = self._plan.aggregation == "sum"
        accumulator = Accumulator(layout, self._plan.encoding, len(self._plan.cohort)) if summing else None
        result = Exchange(self.count, stage, sent, content=broadcast.digest)
        away: set[str] = set()
        noting: list[asyncio.Future[None]] = []

        async def ask(node: str, invocation: Envelope) -> None:
            try:
                answer, incoming = await self._settled(node, invocation, broadcast)
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
            result.aggregate, result.body = await offload(size, finish, accumulator, count, sent.arrays)
        return result

    def foresee(self, body: memoryview) -> None:
        """Hash a body that will probably be sent, while the app makes up its mind."""
        self._hashing = (body, asyncio.ensure_future(asyncio.to_thread(Hashed.of, body)))

    async def _foreseen(self, body: memoryview) -> Hashed | None:
        known, self._hashing = self._hashing, None
        return await known[1] if known is not None and known[0] is body else None

    def _remember(self, hashed: Hashed) -> None:
        done: asyncio.Future[Hashed] = asyncio.get_running_loop().create_future()
        done.set_result(hashed)
        self._hashing = (hashed.body, done)

    def release(self) -> None:
        """Give back the last content that was sent, once there is no further exchange."""
        self._hashing = None

    async def single(self, stage: str, header: Mapping[str, Any], body: memoryview) -> tuple[Answer, Incoming]:
        """One content to the one node of a bilateral plan: its verified answer, and the reply that its receipt names.

        Raises:
            JobDeniedError: a clause refused it.
            RoundFailedError: the node failed, or is not there.
            ReceiptError: the reply is another than the receipt names.
        """
        self._count(stage)
        raw = header_bytes(header)
        broadcast = await offload(len(body), Broadcast, raw, body)
        await self._muster()
        ((node, invocation),) = (await self._begin(stage, broadcast, None)).items()
        result = Exchange(self.count, stage, Content(), content=broadcast.digest)
        answer, incoming = await self._settled(node, invocation, broadcast)
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

    async def _exchange_masked(self, result: Exchange, broadcast: Broadcast, asked: Asked | None) -> Exchange:
        try:
            await self._masked.run(result, broadcast, asked)
        finally:
            if result.fallen:
                await self._on_fallen(result)
        return result

    def model(self, exchange: Exchange) -> Path | None:
        """The file on record that holds an exchange's aggregate, if one does."""
        return self._recording.model(exchange.round)

    async def keep(self, exchange: Exchange, entry: dict[str, Any]) -> bool:
        """Put an exchange on record, with the entry that the history has of it; durable when this returns.

        Returns:
            Whether the recording has become too large with it, and is given up from here on.
        """
        if self._recording.dropped:
            return False
        answered = Answered(
            exchange.stage,
            exchange.content,
            tuple(exchange.contributed),
            exchange.fallen,
            exchange.weights,
            entry,
            exchange.aggregate,
            exchange.replies,
        )
        await asyncio.to_thread(self._recording.answer, exchange.round, answered)
        return self._recording.dropped

    def _check_course(self, stage: str, digest: str, known: Answered | Asked | None) -> None:
        if known is not None and (known.stage, known.content) != (stage, digest):
            raise ResumeDiffersError(
                "run again, the server part asks for something else in exchange {number} ({stage}) than it did before",
                hint="its start must not be left to chance: plan the job anew with a fixed seed (`--config`)",
                number=self.count,
                stage=stage if stage == known.stage else f"{stage}, {known.stage} before",
            )

    async def _muster(self) -> None:
        await self._cohort.muster(self.count)
        if len(self._cohort.live) < self._plan.minimal_participants:
            gone = {**self._cohort.away, **self._cohort.out}
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(gone.items()))
            if len(self._cohort.live) + len(self._cohort.away) < self._plan.minimal_participants:
                raise JobDeniedError("nodes refused round {round} ({reasons})", round=self.count, reasons=reasons)
            raise NodesAwayError(
                "nodes cannot be reached ({reasons})",
                hint="is `keyong node serve` running there? see `keyong coordinator status`",
                code="nodes-unavailable",
                reasons=reasons,
            )

    async def _begin(self, stage: str, broadcast: Broadcast, asked: Asked | None) -> dict[str, Envelope]:
        """The invocation of each live node, on record; those that were sent before are sent again as they were."""
        before = asked.invocations if asked is not None else {}
        invocations = {}
        for node in self._cohort.live:
            if node in before:
                invocations[node] = Envelope.from_bytes(before[node])
            else:
                content = await offload(len(broadcast.body), broadcast.named, self._links.version(node))
                invocations[node] = self._seal(node, stage, content.digest)
        await self._record(stage, broadcast.digest, invocations)
        return invocations

    async def _record(self, stage: str, digest: str, invocations: Mapping[str, Envelope]) -> None:
        sealed = {node: envelope.to_bytes() for node, envelope in invocations.items()}
        async with self._writing:
            await asyncio.to_thread(self._recording.ask, self.count, stage, digest, sealed)

    def _too_few(self, result: Exchange) -> KeyongError:
        reasons = ", ".join(f"{node}: {code}" for node, code in sorted(result.fallen.items()))
        if set(result.fallen) == set(result.clauses):
            return JobDeniedError("nodes refused round {round} ({reasons})", round=self.count, reasons=reasons)
        # What a node has lost of this round it will not have when it is asked again.
        back = sum(result.fallen.get(node) != REPLAY for node in self._cohort.away)
        kind = NodesAwayError if len(result.contributed) + back >= self._plan.minimal_participants else RoundFailedError
        return kind(
            "{left} of {planned} nodes answered round {round}, the plan needs {minimum} ({reasons})",
            left=len(result.contributed),
            planned=len(self._plan.cohort),
            round=self.count,
            minimum=self._plan.minimal_participants,
            reasons=reasons,
        )

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

    def _seal(self, node: str, stage: str, digest: str, attempt: int = 1) -> Envelope:
        return Invocation(
            issued=now(),
            expires=self._plan.expires,  # how long its content takes to arrive is the line's affair
            plan=self._envelope.digest,
            node=node,
            round=self.count,
            attempt=attempt,
            stage=stage,  # type: ignore[arg-type]
            content=digest,
        ).seal(self._key)

    async def _settled(self, node: str, envelope: Envelope, broadcast: Broadcast) -> tuple[Answer, Incoming]:
        """A node's verified answer. A node that lost the job opens it again, a step that was killed is tried again."""
        while True:
            invocation = Invocation.read(envelope)
            content = await offload(len(broadcast.body), broadcast.signed_for, invocation.content)
            try:
                incoming = await self._call(node, envelope, content)
            except KeyongError as error:
                if error.code != "no-such-job" or not await self._cohort.reopen(node):
                    raise
                incoming = await self._call(node, envelope, content)
            at = now()
            answer = await asyncio.to_thread(verify_answer, self._home, self._plan, envelope, invocation, incoming, at)
            if answer.receipt.outcome != "killed" or invocation.attempt >= ATTEMPTS:
                return answer, incoming
            if not await self._cohort.reopen(node):
                return answer, incoming
            await self._on_answer(answer)
            envelope = self._seal(node, invocation.stage, invocation.content, invocation.attempt + 1)
            await self._record(invocation.stage, broadcast.digest, {node: envelope})

    async def _call(self, node: str, envelope: Envelope, content: Named, boxes: tuple[str, ...] = ()) -> Incoming:
        # With each step's time that of a start: a node that was restarted in between makes its session anew.
        plan = self._plan
        timeout = plan.setup_seconds + plan.round_seconds + plan.pause_seconds + MARGIN_SECONDS
        calling = asyncio.ensure_future(self._sender.send(node, pack(envelope), content, timeout, boxes))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            if self.leaving:
                calling.add_done_callback(_look_away)
            else:
                calling.cancel()
                with contextlib.suppress(KeyongError, asyncio.CancelledError):
                    await calling
            raise

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


def _replayed(number: int, stage: str, sent: Content, recorded: Answered) -> Exchange:
    return Exchange(
        number,
        stage,
        sent,
        fallen=recorded.fallen,
        contributed=list(recorded.contributed),
        aggregate=recorded.aggregate,
        replies=recorded.replies,
        weights=recorded.weights,
        content=recorded.content,
        replayed=True,
    )


def _look_away(calling: asyncio.Future[Incoming]) -> None:
    if not calling.cancelled():
        calling.exception()


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """Wait for all; where one fails by an error of our own, end the others first, so that none goes on unseen."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
