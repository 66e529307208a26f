"""How a masked sum is opened: survivors are named, acknowledge one another, and release their shares.

masked vectors -> survivors -> acknowledgements -> shares -> sum
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from coordinator.answers import Answer, code_from, verify_receipt
from coordinator.attempt import Attempt
from coordinator.cohort import Cohort
from coordinator.exchange import Exchange, RoundFailedError
from coordinator.links import Links
from coordinator.recording import Recording
from federation.crypto import SigningKey
from federation.errors import KeyongError, UnavailableError, VerificationError
from federation.home import Home, now
from federation.secagg import WithdrawnError, check_acknowledgements, residual_masks
from federation.statements import Envelope, Invocation, JobPlan, ReleasedShares, SurvivorSet
from federation.wire.messages import Envelopes, MaskOpen, MaskSurvivors, Opening, pack, unpack
from federation.wire.offload import offload
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming

log = structlog.get_logger("keyong.coordinator")

WITHDRAWN = WithdrawnError.code


class Openings:
    """Opens the sums of one job.

    Args:
        digest: of the job's plan.
        note: takes each verified receipt into an exchange.
    """

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        links: Links,
        digest: str,
        plan: JobPlan,
        cohort: Cohort,
        recording: Recording,
        note: Callable[[Answer, Exchange], Awaitable[None]],
    ) -> None:
        self._home = home
        self._key = key
        self._links = links
        self._digest = digest
        self._plan = plan
        self._cohort = cohort
        self._recording = recording
        self._note = note
        self._late: dict[str, tuple[Attempt, Exchange, bytes, bytes]] = {}
        """Nodes whose vector is in an opened sum and who were lost before they released a share: what to tell them."""

    async def name_survivors(self, one: Attempt) -> Envelope:
        """Sign whose vectors are in the sum; on record before anybody sees it, for an attempt has one such word."""
        survivors = SurvivorSet(
            issued=now(),
            expires=self._plan.expires,
            plan=self._digest,
            cohort=one.context.cohort,
            round=one.number,
            attempt=one.attempt,
            survivors=tuple(sorted(one.inputs)),
        ).seal(self._key)
        if not self._recording.dropped:
            await asyncio.to_thread(self._recording.survivors, one.number, survivors.to_bytes())
        return survivors

    async def open_up(self, one: Attempt, result: Exchange, survivors: Envelope) -> bool:
        """Have the survivors acknowledged, then opened; whether the sum is without masks now.

        Raises:
            RoundFailedError: shares were released, and too few of them.
        """
        scope = one.masked.announcements.scope
        public = lambda node: self._home.roster.member(node).public  # noqa: E731
        plan = self._digest
        header = MaskSurvivors(
            plan=plan,
            survivors=pack(survivors),
            inputs=tuple(pack(one.inputs[node]) for node in sorted(one.inputs)),
            withdrawals=self._withdrawn(one),
        ).to_bytes()
        acknowledged: dict[str, Envelope] = {}

        async def acknowledge(node: str) -> None:
            incoming = await self._links.call_again(node, "mask.survivors", header, timeout=ANSWER_SECONDS)
            envelope = unpack(Envelopes.from_bytes(incoming.header).envelopes[0])
            check_acknowledgements(survivors, [envelope], scope, public, now(), least=1)
            acknowledged[node] = envelope

        await self.each(sorted(one.inputs), acknowledge, one, result)
        if not one.opens(acknowledged):
            return False
        opened = MaskOpen(
            plan=plan,
            acknowledgements=tuple(pack(acknowledged[node]) for node in sorted(acknowledged)),
            withdrawals=self._withdrawn(one),
        ).to_bytes()
        released: dict[str, ReleasedShares] = {}

        async def release(node: str) -> None:
            incoming = await self._links.call_again(node, "mask.open", opened, timeout=ANSWER_SECONDS)
            shares = await self.settle(node, one, incoming, result)
            if shares is not None:
                released[node] = shares

        await self.each(sorted(acknowledged), release, one, result)
        if released and not one.opens(released):
            raise RoundFailedError(
                "{count} nodes opened round {round}, it takes {need}; its sum stays closed ({reasons})",
                hint="plan the job again: nodes that opened a round do not take it a second time",
                count=len(released),
                round=one.number,
                need=one.need,
                reasons=", ".join(f"{node}: {code}" for node, code in sorted(result.fallen.items())),
            )
        if not released:
            return False
        keys = await asyncio.to_thread(
            residual_masks, one.masked.announcements, one.context, frozenset(one.inputs), released
        )
        await one.sum.add_masks(keys)
        self._late |= {node: (one, result, header, opened) for node in one.inputs if node not in released}
        return True

    async def tell_late(self) -> None:
        """Let nodes that are back settle the step whose sum was opened without their share."""
        for node in sorted(set(self._late) & set(self._cohort.live)):
            one, result, header, opened = self._late.pop(node)
            try:
                await self._links.call(node, "mask.survivors", header, timeout=ANSWER_SECONDS)
                incoming = await self._links.call(node, "mask.open", opened, timeout=ANSWER_SECONDS)
                await self.settle(node, one, incoming, result)
            except KeyongError as error:
                log.info("late-opening-not-taken", node=node, code=code_from(error.code))

    async def settle(self, node: str, one: Attempt, incoming: Incoming, result: Exchange) -> ReleasedShares | None:
        """Take a node's last word on a step: its receipt, and its shares where it releases them.

        Raises:
            VerificationError: the receipt does not hold, or the shares are for another round.
        """
        told = Opening.from_bytes(incoming.header)
        asked = one.invocations[node]
        invocation = Invocation.read(asked)
        size = len(told.receipt) + len(told.proof)
        answer = await offload(
            size, verify_receipt, self._home, self._plan, asked, invocation, told.receipt, told.proof, now()
        )
        await self._note(answer, result)
        if not told.shares:
            one.fallen[node] = answer.receipt.code or answer.receipt.outcome
            return None
        shares = ReleasedShares.open(unpack(told.shares), [self._home.roster.member(node).public], now())
        context = one.context
        said = (shares.node, shares.plan, shares.cohort, shares.round, shares.attempt)
        if said != (node, context.plan, context.cohort, context.round, context.attempt):
            raise VerificationError("the shares of {node} are for another round", code="reply", node=node)
        return shares

    async def each(
        self, nodes: Sequence[str], ask: Callable[[str], Awaitable[None]], one: Attempt, result: Exchange
    ) -> None:
        """Ask several nodes at once; who cannot answer has fallen out of this attempt, with the reason."""

        async def safely(node: str) -> None:
            try:
                await ask(node)
            except KeyongError as error:
                code = code_from(error.code)
                log.warning("round-not-opened", node=node, code=code, reason=str(error)[:500])
                if code != WITHDRAWN:  # it is another who withdrew
                    one.fallen[node] = code
                    if isinstance(error, UnavailableError) or code == "no-such-job":
                        one.away.add(node)

        await asyncio.gather(*(safely(node) for node in nodes))

    def _withdrawn(self, one: Attempt) -> tuple[str, ...]:
        return tuple(pack(envelope) for envelope in self._links.withdrawals.of(self._digest, one.number, one.attempt))
