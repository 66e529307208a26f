"""A job's masks at this node: its keys and shares, and the one round that waits to be opened.

    announce -> share -> receive -> mask -> acknowledge -> release, or give up

One request of each kind is answered a round (asked again in the same words, with the same answer), and none out of turn.
Secrets live in this process alone: a node that is restarted has none, and counts as vanished.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from enterprise_node.admission import AdmittedPlan, AdmittedStep
from enterprise_node.mask_rules import MaskRules
from enterprise_node.reading import Reading
from enterprise_node.store import RegisteredDataset
from federation.crypto import SigningKey
from federation.errors import KeyongError
from federation.secagg import (
    Announcements,
    DifferenceError,
    MaskContext,
    MaskingError,
    MaskKey,
    NodeMasks,
    Opened,
    Scope,
    SurvivorsError,
    check_acknowledgements,
    check_withdrawals,
)
from federation.statements import (
    SETUP_ROUNDS,
    Acknowledgement,
    Envelope,
    Invocation,
    MaskedInput,
    ReleasedShares,
    SealedShares,
    SurvivorSet,
    Withdrawal,
)
from federation.wire.messages import Invoked, Opening, pack
from federation.wire.peer import Outgoing

ABORTED, ABANDONED = "round-aborted", "round-abandoned"


@dataclass
class MaskedRound:
    """A masked vector that has left, or is about to, until its step has an OUTCOME.

    Attributes:
        context: what its masks are bound to.
        statement: this node's word on the vector.
        reading: what tells the reading of a live source that it was computed on from others.
        survivors: what it acknowledged, with the sum that would be opened.
        verdict: set once: the sum to open, or the code for which it is given up.
        answer: to whoever asks for the shares, or gives the round up: set with the step's OUTCOME.
    """

    context: MaskContext
    scope: Scope
    statement: Envelope | None = None
    reading: Mapping[str, str] = field(default_factory=dict)
    survivors: tuple[Envelope, Opened] | None = None
    acknowledgement: Envelope | None = None
    verdict: asyncio.Future[Opened | str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    answer: asyncio.Future[Outgoing] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def decide(self, verdict: Opened | str) -> None:
        """Open or give up; the first word stays."""
        if not self.verdict.done():
            self.verdict.set_result(verdict)

    def fail(self, error: KeyongError) -> None:
        """Its OUTCOME could not be written: whoever waits for it is told why."""
        self.decide("")
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # told to whoever waits; where nobody does, it is on record


async def decided(waiting: MaskedRound, stopped: asyncio.Event, seconds: float) -> Opened | str:
    """Wait for a round's verdict, for the end of its job, at most so many seconds; empty where there is no verdict."""
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait((waiting.verdict, stop), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
    waiting.decide("")
    return waiting.verdict.result()


def opening_of(settled: Outgoing, shares: Envelope | None = None) -> Outgoing:
    """The answer to who opens a round or gives it up: receipt and proof as the step's OUTCOME has them, and the shares."""
    told = Invoked.from_bytes(settled.header)
    opening = Opening(receipt=told.receipt, proof=told.proof, shares=pack(shares) if shares is not None else "")
    return Outgoing(opening.to_bytes())


class JobMasks:
    """The masks of one job.

    Args:
        key: this node's statement key.
    """

    def __init__(
        self,
        node: str,
        admitted: AdmittedPlan,
        dataset: RegisteredDataset,
        key: SigningKey,
        rules: MaskRules,
        clock: Callable[[], datetime],
    ) -> None:
        self._node = node
        self._admitted = admitted
        self._dataset = dataset
        self._key = key
        self._rules = rules
        self._clock = clock
        self._masks: NodeMasks | None = None
        self._announcements: Announcements | None = None
        self.round: MaskedRound | None = None
        self._opened: dict[str, Opened] = {}

    # -- before a round -----------------------------------------------------------------------------------------------

    def announce(self, participants: Sequence[str], first: int, attempt: int, rounds: int) -> Envelope:
        """Fresh keys for some rounds; those that were announced before are forgotten.

        Raises:
            MaskingError: a round is waiting to be opened.
            DeniedError subclasses: see `MaskRules.check_cohort`.
        """
        if self.round is not None and not self.round.answer.done():
            raise MaskingError("a round is still open; it is to be opened or given up first")
        self._rules.check_cohort(self._admitted, self._dataset, participants)
        plan = self._admitted.plan
        scope = Scope(
            self._admitted.digest, plan.roster, tuple(sorted(participants)), first, attempt, min(rounds, SETUP_ROUNDS)
        )
        shared = plan.query is not None
        self._masks, self._announcements = NodeMasks(scope, self._node, secrets.randbelow, shared=shared), None
        return self._masks.announce(self._clock(), plan.expires).seal(self._key)

    def share(self, announcements: Sequence[Envelope]) -> list[Envelope]:
        """Shares of this node's secrets, sealed to each other one that is to hold some."""
        if self._masks is None:
            raise MaskingError("no keys were announced here")
        now = self._clock()
        found = Announcements.open(announcements, self._masks.scope, self._rules.public, now)
        self._rules.check_neighbourhood(self._admitted, found.graph, found.scope.participants)
        boxes = self._masks.share(found)
        self._announcements = found
        return [
            SealedShares(
                issued=now,
                expires=self._admitted.plan.expires,
                plan=self._admitted.digest,
                cohort=found.cohort,
                sender=self._node,
                receiver=receiver,
                box=box,
            ).seal(self._key)
            for receiver, box in boxes.items()
        ]

    @property
    def received(self) -> bool:
        """Whether there is nothing to receive: the shares are here already, or no keys were announced."""
        return self._masks is None or self._masks.ready

    def receive(self, envelopes: Sequence[Envelope]) -> None:
        """Take the shares that were sealed to this node; those that are here already are left alone."""
        if self._masks is None or self._masks.ready:
            return
        boxes: dict[str, str] = {}
        now, public = self._clock(), self._rules.public
        for envelope in envelopes:
            claimed = SealedShares.read(envelope)
            one = SealedShares.open(envelope, [public(claimed.sender)], now)
            if (one.plan, one.cohort, one.receiver) != (self._admitted.digest, self._masks.cohort, self._node):
                raise MaskingError("sealed shares of {node} are for another cohort or node", node=one.sender)
            if one.sender in boxes:
                raise MaskingError("sealed shares of {node} come twice", node=one.sender)
            boxes[one.sender] = one.box
        self._masks.receive(boxes)

    # -- in a round ---------------------------------------------------------------------------------------------------

    def begin(self, invocation: Invocation) -> None:
        """A step is about to begin; raises MaskingError unless there are keys for it."""
        if self._masks is None or self._announcements is None or not self._masks.ready:
            raise MaskingError(
                "there are no keys to mask this round with",
                hint="the coordinator asks for them before the round (upgrade it where it does not)",
                code="mask-keys",
            )
        context = self._announcements.context(
            invocation.round, invocation.attempt, invocation.stage, invocation.content
        )
        self.round = MaskedRound(context, self._masks.scope)

    def over(self) -> None:
        """The step has ended, one way or another: whoever still waits for its round is told."""
        if self.round is not None and not self.round.answer.done():
            self.round.fail(MaskingError("the step ended before its masked vector left"))

    def keys(self, invocation: Invocation) -> list[MaskKey]:
        """The masks of this node's vector; once a round."""
        if self._masks is None:
            raise MaskingError("no keys were announced here")
        return self._masks.masks(invocation.round, invocation.attempt, invocation.stage, invocation.content)

    @property
    def common(self) -> bytes:
        """The secret of this cohort's nodes; a query's alone."""
        if self._masks is None:
            raise MaskingError("no keys were announced here")
        return self._masks.common

    def strangers(self, entities: Sequence[str]) -> int:
        """How many of these companies this node's owner did not accept, the asker's and the coordinator's left out."""
        known = self._rules.accepted(self._admitted) | self._admitted.outside
        return sum(entity not in known for entity in entities)

    def opened(self, stage: str) -> Opened:
        """The sum of a stage that this node opened last; raises MaskingError where it opened none."""
        if stage not in self._opened:
            raise MaskingError("this node opened no sum of the stage {stage}", stage=stage)
        return self._opened[stage]

    def sign(self, step: AdmittedStep, output: str, output_bytes: int, reading: Mapping[str, str]) -> MaskedRound:
        """The round with this node's word on the vector that is about to leave, computed on that reading of a live source."""
        current, context = self._current(), self._current().context
        current.reading = reading
        current.statement = MaskedInput(
            issued=self._clock(),
            expires=self._admitted.plan.expires,
            plan=context.plan,
            invocation=step.envelope.digest,
            cohort=context.cohort,
            node=self._node,
            round=context.round,
            attempt=context.attempt,
            stage=step.invocation.stage,
            content=context.content,
            output=output,
            output_bytes=output_bytes,
        ).seal(self._key)
        return current

    @property
    def live(self) -> bool:
        """Whether the source is read anew for each job; the version of any other says when it changes."""
        return Reading.from_json(self._dataset.reading).live

    def check_reading(self) -> None:
        """Raise DifferenceError where a live source changed since a sum over it was opened (see `MaskRules.check_reading`)."""
        current = self._current()
        if not self.live:
            return
        if not current.reading:
            raise DifferenceError("what was read of this live source is not known, so its sums cannot be compared")
        self._rules.check_reading(self._admitted, current.scope.participants, current.reading)

    def acknowledge(
        self, survivors: Envelope, coordinator: str, inputs: Sequence[Envelope], withdrawals: Sequence[Envelope]
    ) -> Envelope:
        """Accept a set of survivors, one for each attempt of a round.

        Raises:
            MaskingError: no vector of this node is out, or another set was acknowledged.
            KeyongError subclasses: see `MaskRules.check_survivors`.
        """
        current = self._current()
        if current.survivors is not None and current.acknowledgement is not None:
            if current.survivors[0].digest != survivors.digest:
                raise MaskingError("another set of survivors was acknowledged in this round")
            return current.acknowledgement
        if current.statement is None or current.verdict.done():
            raise MaskingError("no masked vector of this node waits to be opened")
        now = self._clock()
        claimed = SurvivorSet.open(survivors, [self._rules.public(coordinator)], now)
        if current.context.stage == "cells" and set(claimed.survivors) != set(self.opened("flags").members):
            raise SurvivorsError(
                "a company left between the two stages of a query: a cell could open over fewer than its flags say",
                code="too-few-participants",
            )
        opened = self._rules.check_survivors(
            self._admitted,
            self._dataset,
            claimed,
            inputs,
            withdrawals,
            current.context,
            current.scope,
            current.reading,
        )
        current.survivors = (survivors, opened)
        current.acknowledgement = Acknowledgement(
            issued=now,
            expires=self._admitted.plan.expires,
            plan=current.context.plan,
            cohort=current.context.cohort,
            node=self._node,
            round=current.context.round,
            attempt=current.context.attempt,
            survivors=survivors.digest,
        ).seal(self._key)
        return current.acknowledgement

    def accept(self, acknowledgements: Sequence[Envelope], withdrawals: Sequence[Envelope]) -> MaskedRound:
        """Decide to open the round: enough nodes acknowledged the survivors that this one did."""
        current = self._current()
        if current.answer.done():
            return current
        if current.survivors is None:
            raise MaskingError("no survivors were acknowledged in this round")
        now = self._clock()
        check_withdrawals(withdrawals, current.context, current.scope, self._rules.public, now)
        check_acknowledgements(current.survivors[0], acknowledgements, current.scope, self._rules.public, now)
        return current

    def release(self) -> Envelope:
        """This node's shares for the round's survivors; once, and after its OUTCOME is durable."""
        current = self._current()
        if self._masks is None or current.survivors is None:
            raise MaskingError("no survivors were acknowledged in this round")
        context = current.context
        survivors = frozenset(current.survivors[1].members)
        seeds, keys = self._masks.release(context.round, context.attempt, survivors)
        self._opened[context.stage] = current.survivors[1]
        return ReleasedShares(
            issued=self._clock(),
            expires=self._admitted.plan.expires,
            plan=context.plan,
            cohort=context.cohort,
            node=self._node,
            round=context.round,
            attempt=context.attempt,
            seeds=seeds,
            keys=keys,
        ).seal(self._key)

    def withdraw(self, reason: str) -> Envelope:
        """This node's word that it takes its vector back."""
        context = self._current().context
        return Withdrawal(
            issued=self._clock(),
            expires=self._admitted.plan.expires,
            plan=context.plan,
            node=self._node,
            round=context.round,
            attempt=context.attempt,
            reason=reason,
        ).seal(self._key)

    def _current(self) -> MaskedRound:
        if self.round is None:
            raise MaskingError("no masked round is open here")
        return self.round
