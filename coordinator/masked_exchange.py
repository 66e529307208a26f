"""One masked exchange: vectors that say nothing come in and are added; enough nodes then open their sum, and it alone.

    keys and shares -> invocations -> masked vectors -> survivors -> acknowledgements -> shares -> sum

What an attempt leaves unopened can be tried again with fresh keys; once the set of survivors was shown to a node, this
attempt alone can be gone on with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from coordinator.answers import Answer, code_from, read_masked, verify_answer, verify_receipt
from coordinator.attempt import Attempt
from coordinator.broadcast import Broadcast, Named
from coordinator.cohort import Cohort
from coordinator.exchange import REPLAY, Exchange, JobDeniedError, NodesAwayError, RoundFailedError
from coordinator.links import Links
from coordinator.mask_setup import MaskedCohort, MaskSetup
from coordinator.opening import WITHDRAWN, Openings
from coordinator.recording import Asked, Recording
from coordinator.sums import Sums, model_sums
from federation.crypto import SigningKey
from federation.errors import KeyongError, UnavailableError, VerificationError
from federation.home import Home, now
from federation.jobs.codec import Content
from federation.secagg import (
    Announcements,
    Scope,
    threshold,
)
from federation.statements import (
    Envelope,
    Invocation,
    JobPlan,
    KeyAnnouncement,
    SurvivorSet,
    Withdrawal,
)
from federation.wire.messages import (
    Invoked,
    MaskAbort,
    Opening,
)
from federation.wire.offload import offload
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming

log = structlog.get_logger("keyong.coordinator")

ATTEMPTS = 3
"""How often a round is tried; nodes take no more."""

Call = Callable[[str, Envelope, Named, tuple[str, ...]], Awaitable[Incoming]]
Seal = Callable[[str, str, str, int], Envelope]


class MaskedExchanges:
    """Carries the exchanges of one job whose plan says ``fed:masked``.

    Args:
        call: sends an invocation with its content and shares, and waits for the node's answer.
        seal: an invocation for a node, a stage, a content's digest and an attempt.
        on_answer: told of each verified receipt.
        sums: makes what an exchange's vectors are added to; by default that of models.
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
        call: Call,
        seal: Seal,
        on_answer: Callable[[Answer], Awaitable[None]],
        sums: Sums | None = None,
    ) -> None:
        self._home = home
        self._links = links
        self._envelope = envelope
        self._plan = plan
        self._cohort = cohort
        self._recording = recording
        self._call = call
        self._seal = seal
        self._on_answer = on_answer
        self._sums = sums or model_sums(plan)
        self._setup = MaskSetup(home, links, plan, envelope.digest, cohort)
        self._announced = ""
        self._openings = Openings(home, key, links, envelope.digest, plan, cohort, recording, self._noted)

    async def run(self, result: Exchange, broadcast: Broadcast, asked: Asked | None) -> None:
        """Make the exchange, or go on with one that was asked before; fills in ``result``.

        Raises:
            NodesAwayError: too few are there, and others may come back.
            RoundFailedError: too few are left, or a round that was being opened cannot be.
            AggregateVoidError: the sum is not one of so many honest replies.
        """
        plan, sent = self._plan, result.sent
        self._sums(result)  # what is wrong with the content shows before a node is asked
        content = broadcast.digest
        first = 1
        self._links.withdrawals.expect(self._envelope.digest)
        await self._openings.tell_late()
        try:
            if asked is not None and asked.survivors:
                await self._go_on(result, broadcast, asked)
                return
            if asked is not None:
                first = await self._give_up_earlier(result, asked)
            for attempt in range(first, first + ATTEMPTS):
                if attempt > first or asked is not None:
                    await self._cohort.muster(result.round)
                masked = await self._setup.ensure(result.round, attempt, result.fallen)
                if masked is None:
                    break
                one = await self._begin(result, masked, attempt, content)
                await self._gather(one, broadcast, result)
                enough = len(one.inputs) >= plan.minimal_participants and one.opens(one.inputs)
                if enough and await self._openings.open_up(one, result, await self._openings.name_survivors(one)):
                    await self._take(one, result, sent)
                    return
                await self._give_up(one, result)
                if not self._may_suffice():
                    break
            raise self._too_few(result)
        finally:
            self._links.withdrawals.forget(self._envelope.digest)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _begin(self, result: Exchange, masked: MaskedCohort, attempt: int, content: str) -> Attempt:
        await self._note_keys(masked)
        invocations = {node: self._seal(node, result.stage, content, attempt) for node in masked.participants}
        if not self._recording.dropped:
            sealed = {node: envelope.to_bytes() for node, envelope in invocations.items()}
            await asyncio.to_thread(self._recording.ask, result.round, result.stage, content, sealed)
        context = masked.announcements.context(result.round, attempt, result.stage, content)
        return Attempt(result.round, attempt, masked, context, invocations, self._sums(result))

    async def _note_keys(self, masked: MaskedCohort) -> None:
        if not self._recording.dropped and self._announced != masked.announcements.cohort:
            sealed = [one.to_bytes() for one in masked.envelopes]
            await asyncio.to_thread(self._recording.announced, sealed)
            self._announced = masked.announcements.cohort

    async def _gather(self, one: Attempt, broadcast: Broadcast, result: Exchange) -> None:
        await asyncio.gather(*(self._ask(node, one, broadcast, result) for node in one.masked.participants))
        for node, code in one.fallen.items():
            result.fallen[node] = code
            self._cohort.fell(node, code, away=node in one.away)

    async def _ask(self, node: str, one: Attempt, broadcast: Broadcast, result: Exchange) -> None:
        envelope = one.invocations[node]
        invocation = Invocation.read(envelope)
        try:
            if invocation.content == broadcast.digest:
                content = broadcast.signed_for(invocation.content)
            else:  # as a node of before names it: hashed as a whole
                content = await asyncio.to_thread(broadcast.signed_for, invocation.content)
            incoming = await self._call(node, envelope, content, one.masked.boxes.get(node, ()))
            if not Invoked.from_bytes(incoming.header).masked:
                await self._refused(node, envelope, invocation, incoming, one, result)
                return
            unread = 0 if incoming.digest else len(incoming.body)
            said = await offload(unread, read_masked, self._home, envelope, invocation, one.context, incoming, now())
            async with one.adding:  # one at a time: of all vectors that lie in the spool, one is in memory
                await one.sum.add(incoming)
            one.inputs[node] = said
        except KeyongError as error:
            one.fallen[node] = code_from(error.code)
            if isinstance(error, UnavailableError) or error.code in ("no-such-job", "mask-keys"):
                one.away.add(node)
            log.warning("node-fell-out", node=node, code=one.fallen[node], reason=str(error)[:500])

    async def _refused(
        self, node: str, asked: Envelope, invocation: Invocation, incoming: Incoming, one: Attempt, result: Exchange
    ) -> None:
        answer = await asyncio.to_thread(verify_answer, self._home, self._plan, asked, invocation, incoming, now())
        await self._noted(answer, result)
        receipt = answer.receipt
        one.fallen[node] = receipt.code or receipt.outcome
        if receipt.outcome == "killed" or one.fallen[node] == REPLAY:
            one.away.add(node)
        elif receipt.outcome == "denied" and not receipt.decision.permit:
            result.clauses[node] = receipt.decision.model_dump(mode="json")
        elif receipt.outcome == "ok":
            raise VerificationError("{node} sent a reply without masks", code="reply", node=node)

    # -- taking -------------------------------------------------------------------------------------------------------

    async def _take(self, one: Attempt, result: Exchange, sent: Content) -> None:
        """The sum is open: what it says, and who is out of the job for good because it is not in it."""
        result.contributed = sorted(one.inputs)
        count = len(one.inputs)
        opened = await one.sum.finish(count, sent)
        result.aggregate, result.body = opened.aggregate, opened.body
        for planned in self._plan.cohort:
            node = planned.node
            if node not in one.inputs:
                code = (
                    result.fallen.get(node) or self._cohort.away.get(node) or self._cohort.out.get(node, "node-offline")
                )
                self._cohort.fell(node, code, away=False)
            elif node in one.fallen:  # in the sum, and lost since: whoever follows the job is told
                result.fallen[node] = one.fallen[node]
                self._cohort.fell(node, one.fallen[node], away=node in one.away)

    # -- giving up ----------------------------------------------------------------------------------------------------

    async def _give_up(self, one: Attempt, result: Exchange) -> None:
        """Tell those whose vectors came that this attempt opens nothing; their steps end, the next begins anew."""
        header = MaskAbort(plan=self._envelope.digest, round=one.number, attempt=one.attempt).to_bytes()
        withdrew = [envelope for envelope in self._links.withdrawals.of(self._envelope.digest, one.number, one.attempt)]
        self._setup.held = None

        async def abort(node: str) -> None:
            incoming = await self._links.call_again(node, "mask.abort", header, timeout=ANSWER_SECONDS)
            if await self._openings.settle(node, one, incoming, result) is not None:
                raise RoundFailedError("{node} has opened round {round} already", node=node, round=one.number)
            self._cohort.fell(node, one.fallen.get(node, "round-aborted"), away=True)

        await self._openings.each([node for node in sorted(one.inputs) if node not in one.away], abort, one, result)
        for node, code in one.fallen.items():
            if code != "round-aborted":
                result.fallen[node] = code
            self._cohort.fell(node, code, away=node in one.away or code == "round-aborted")
        for envelope in withdrew:
            self._cohort.fell(_author(envelope), WITHDRAWN, away=False)
            result.fallen[_author(envelope)] = WITHDRAWN

    async def _give_up_earlier(self, result: Exchange, asked: Asked) -> int:
        """End the attempt that an earlier run of this job left; returns the number of the next one."""
        last = max(
            (Invocation.read(Envelope.from_bytes(sealed)).attempt for sealed in asked.invocations.values()), default=0
        )
        header = MaskAbort(plan=self._envelope.digest, round=result.round, attempt=max(last, 1)).to_bytes()

        async def abort(node: str) -> None:
            try:
                incoming = await self._links.call(node, "mask.abort", header, timeout=ANSWER_SECONDS)
                sealed = Envelope.from_bytes(asked.invocations[node])
                told, step = Opening.from_bytes(incoming.header), Invocation.read(sealed)
                answer = await asyncio.to_thread(
                    verify_receipt, self._home, self._plan, sealed, step, told.receipt, told.proof, now()
                )
            except KeyongError as error:
                log.info("nothing-to-give-up", node=node, code=code_from(error.code))
                return
            await self._noted(answer, result)
            self._cohort.fell(node, "round-aborted", away=True)

        await asyncio.gather(*(abort(node) for node in asked.invocations if node in self._cohort.live))
        return last + 1

    async def _go_on(self, result: Exchange, broadcast: Broadcast, asked: Asked) -> None:
        """Open the very sum that was being opened when the coordinator died; nodes answer from their records."""
        survivors = Envelope.from_bytes(asked.survivors)
        said = SurvivorSet.read(survivors)
        envelopes = tuple(Envelope.from_bytes(sealed) for sealed in asked.announcements)
        first = KeyAnnouncement.read(envelopes[0])
        scope = Scope(first.plan, first.roster, first.participants, first.first, first.attempt, len(first.rounds))
        public = lambda node: self._home.roster.member(node).public  # noqa: E731
        announcements = Announcements.open(envelopes, scope, public, now())
        invocations = {node: Envelope.from_bytes(asked.invocations[node]) for node in said.survivors}
        one = Attempt(
            result.round,
            said.attempt,
            MaskedCohort(announcements, envelopes, {}),
            announcements.context(result.round, said.attempt, result.stage, broadcast.digest),
            invocations,
            self._sums(result),
        )
        await asyncio.gather(*(self._ask(node, one, broadcast, result) for node in said.survivors))
        result.fallen |= one.fallen
        if set(one.inputs) != set(said.survivors) or not await self._openings.open_up(one, result, survivors):
            raise RoundFailedError(
                "round {round} was being opened when the job was interrupted, and cannot be any more ({reasons})",
                hint="plan the job again",
                round=result.round,
                reasons=", ".join(f"{node}: {code}" for node, code in sorted(one.fallen.items())),
            )
        await self._take(one, result, result.sent)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def _noted(self, answer: Answer, result: Exchange) -> None:
        result.answers.append(answer)
        await self._on_answer(answer)

    def _may_suffice(self) -> bool:
        least = max(self._plan.minimal_participants, threshold(3))
        return len(self._cohort.live) + len(self._cohort.away) >= least

    def _too_few(self, result: Exchange) -> KeyongError:
        codes: Mapping[str, str] = {**self._cohort.away, **self._cohort.out, **result.fallen}
        reasons = ", ".join(f"{node}: {code}" for node, code in sorted(codes.items()))
        if result.clauses and set(result.fallen) == set(result.clauses):
            return JobDeniedError("nodes refused round {round} ({reasons})", round=result.round, reasons=reasons)
        told: dict[str, Any] = {
            "planned": len(self._plan.cohort),
            "round": result.round,
            "minimum": self._plan.minimal_participants,
        }
        if self._may_suffice():
            return NodesAwayError(
                "too few of {planned} nodes are left to open round {round}, the plan needs {minimum} ({reasons})",
                hint="is `keyong node serve` running there? see `keyong coordinator status`",
                reasons=reasons,
                **told,
            )
        return RoundFailedError(
            "too few of {planned} nodes are left to open round {round}, the plan needs {minimum} ({reasons})",
            reasons=reasons,
            **told,
        )


def _author(withdrawal: Envelope) -> str:
    return Withdrawal.read(withdrawal).node
