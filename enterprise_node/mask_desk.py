"""The link's methods of a masked round, handed to the job that each is for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from enterprise_node.job import Job, JobEndedError
from enterprise_node.line import Line
from enterprise_node.masked_round import ABORTED, JobMasks
from federation.home import Home
from federation.secagg import MaskingError
from federation.wire.messages import (
    Envelopes,
    MaskAbort,
    MaskKeys,
    MaskOpen,
    MaskShares,
    MaskSurvivors,
    pack,
    unpack,
)
from federation.wire.peer import Incoming, Outgoing, Peer

Method = Callable[[Peer, Incoming], Awaitable[Outgoing]]


class MaskDesk:
    """Answers for the jobs of a line."""

    def __init__(self, home: Home, line: Line) -> None:
        self._home = home
        self._line = line
        self.methods: Mapping[str, Method] = {
            "mask.keys": self._keys,
            "mask.shares": self._shares,
            "mask.survivors": self._survivors,
            "mask.open": self._open,
            "mask.abort": self._abort,
        }

    async def receive(self, plan: str, boxes: Sequence[str]) -> None:
        """Take the shares that came with an invocation."""
        _, masks = self._masks(plan)
        if not masks.received:
            await asyncio.to_thread(lambda: masks.receive([unpack(one) for one in boxes]))

    async def _keys(self, peer: Peer, message: Incoming) -> Outgoing:
        asked = MaskKeys.from_bytes(message.header)
        job, masks = self._masks(asked.plan)
        if masks.round is not None and not masks.round.answer.done():
            # Who asks for new keys has given up what was not opened, and lost the link before it could say so.
            masks.round.decide(ABORTED)
            with contextlib.suppress(MaskingError):
                await asyncio.shield(masks.round.answer)
        if job.stopped.is_set():
            raise JobEndedError("an attempt of a round was given up here", code="no-such-job")
        announced = await asyncio.to_thread(
            masks.announce, asked.participants, asked.first, asked.attempt, asked.rounds
        )
        return Outgoing(Envelopes(envelopes=(pack(announced),)).to_bytes())

    async def _shares(self, peer: Peer, message: Incoming) -> Outgoing:
        asked = MaskShares.from_bytes(message.header)
        _, masks = self._masks(asked.plan)
        sealed = await asyncio.to_thread(lambda: masks.share([unpack(one) for one in asked.announcements]))
        return Outgoing(Envelopes(envelopes=tuple(map(pack, sealed))).to_bytes())

    async def _survivors(self, peer: Peer, message: Incoming) -> Outgoing:
        asked = MaskSurvivors.from_bytes(message.header)
        job, masks = self._masks(asked.plan)
        coordinator = job.admitted.plan.coordinator
        inputs, withdrawals = [unpack(one) for one in asked.inputs], [unpack(one) for one in asked.withdrawals]
        acknowledged = await asyncio.to_thread(
            masks.acknowledge, unpack(asked.survivors), coordinator, inputs, withdrawals
        )
        job.check_live()
        return Outgoing(Envelopes(envelopes=(pack(acknowledged),)).to_bytes())

    async def _open(self, peer: Peer, message: Incoming) -> Outgoing:
        asked = MaskOpen.from_bytes(message.header)
        _, masks = self._masks(asked.plan)
        acknowledgements = [unpack(one) for one in asked.acknowledgements]
        current = await asyncio.to_thread(masks.accept, acknowledgements, [unpack(one) for one in asked.withdrawals])
        if current.survivors is not None:
            current.decide(current.survivors[1])
        return await asyncio.shield(current.answer)

    async def _abort(self, peer: Peer, message: Incoming) -> Outgoing:
        asked = MaskAbort.from_bytes(message.header)
        _, masks = self._masks(asked.plan)
        current = masks.round
        if current is None or (current.context.round, current.context.attempt) != (asked.round, asked.attempt):
            raise MaskingError(
                "no masked round {round}, attempt {attempt}, is open here", round=asked.round, attempt=asked.attempt
            )
        current.decide(ABORTED)
        return await asyncio.shield(current.answer)

    def _masks(self, plan: str) -> tuple[Job, JobMasks]:
        job = self._line.jobs.get(plan)
        if job is None:
            raise JobEndedError("this node has no such job open", code="no-such-job")
        if job.masks is None:
            raise MaskingError("this plan asks for no masks")
        return job, job.masks
