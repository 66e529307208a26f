"""The exchanges of a job, one after the other: the same content to every node of the cohort, and what comes of it on record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from coordinator.answers import Answer, ReceiptError
from coordinator.broadcast import Broadcast, Hashed, Named, Sender
from coordinator.cohort import Cohort
from coordinator.exchange import (
    Exchange,
    JobDeniedError,
    NodesAwayError,
    ResumeDiffersError,
    RoundFailedError,
    RoundRefusedError,
)
from coordinator.links import Links
from coordinator.masked_exchange import MaskedExchanges
from coordinator.open_exchange import OpenExchanges
from coordinator.recording import Answered, Asked, Recording
from coordinator.sums import Sums
from federation.crypto import SigningKey
from federation.errors import KeyongError
from federation.home import Home, now
from federation.jobs.codec import Content, ContentError, decode, header_bytes
from federation.statements import Envelope, Invocation, JobPlan
from federation.wire.messages import pack
from federation.wire.offload import offload
from federation.wire.peer import Incoming

__all__ = ["Answer", "Exchange", "JobDeniedError", "ReceiptError", "RoundFailedError", "Rounds"]

log = structlog.get_logger("keyong.coordinator")

MARGIN_SECONDS = 30.0
"""Beyond what the plan gives a step: verifying, signing, the line's own delay. Bytes on the way do not count."""


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
        self._sender = Sender(links, envelope.digest)
        self._hashing: tuple[memoryview, asyncio.Future[Hashed]] | None = None
        self.leaving = False
        """Whether who is cancelled from here on goes on later: steps at the nodes are then not called off."""
        self._open = OpenExchanges(home, links, plan, cohort, recording, self._call, self._seal, on_answer, on_fallen)
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
        result = Exchange(self.count, stage, sent, content=broadcast.digest)
        if self._plan.masked:
            return await self._exchange_masked(result, broadcast, asked)
        return await self._open.run(result, broadcast, asked)

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
        return await self._open.single(Exchange(self.count, stage, Content(), content=broadcast.digest), broadcast)

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
