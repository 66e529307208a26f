"""The nodes of one job: who takes part, who fell out and may come back, who is out for good.

Whoever was merely not to be had (offline, its link lost, no answer in time, restarted, its agreement suspended) is asked
to open the job again as soon as it is back, and takes part in the next exchange. Whoever refused or failed stays out: a
gate that could be asked again and again would be a door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from coordinator.answers import Answer, ReceiptError, code_from
from coordinator.links import Links
from federation.errors import KeyongError, UnavailableError
from federation.home import Home, now
from federation.statements import Envelope, JobPlan, Receipt
from federation.wire.messages import JobClose, JobOpen, JobOpened, pack, unpack
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.protocol import ALL_WITH_ALL, MASKS, NEIGHBOURHOODS, ProtocolVersionError

log = structlog.get_logger("keyong.coordinator")

SUSPENDED = "agreement-suspended"
Tell = Callable[[str, dict[str, Any]], Awaitable[None]]

CLOSE_SECONDS = 15.0
"""How long the end of a job waits for a node to say it has closed it: one that cannot be reached closes it unasked."""
REOPEN_SECONDS = 15.0
"""What the others wait for one that came back; it takes part one exchange later where that is too short."""
WAIT_SECONDS = 15.0
"""How long an exchange that cannot be made without them waits for nodes to come back: a redial waits at most four
seconds, then greets."""


class Cohort:
    """Who of a plan's cohort is in.

    Args:
        numbers: the random id under which the job's server part knows each node.
        code: reads the plan's code, as a node takes it.
        keep: keeps the receipt of a refusal.
        tell: appends an event that the requester sees.
    """

    def __init__(
        self,
        home: Home,
        links: Links,
        envelope: Envelope,
        plan: JobPlan,
        numbers: Mapping[str, int],
        code: Callable[[], bytes],
        keep: Callable[[Answer], Awaitable[None]],
        tell: Tell,
    ) -> None:
        self._home = home
        self._links = links
        self._envelope = envelope
        self._plan = plan
        self._numbers = numbers
        self._code = code
        self._keep = keep
        self._tell = tell
        self._in: set[str] = set()
        self.away: dict[str, str] = {}
        """Nodes that may come back, each with the code for which it fell out."""
        self.out: dict[str, str] = {}
        """Nodes that are out for good, each with the code."""
        self.refused: set[str] = set()
        """Of those, who refused the plan when it was opened."""

    @property
    def live(self) -> list[str]:
        """The nodes that take part, in the plan's order."""
        return [planned.node for planned in self._plan.cohort if planned.node in self._in]

    def resume(self, nodes: Iterable[str]) -> None:
        """Begin with everybody away: the nodes may have the job open still, or not."""
        self.away = dict.fromkeys(nodes, "interrupted")

    async def open(self) -> None:
        """Ask every node whether it would permit the plan, and take those in that would."""
        nodes = [planned.node for planned in self._plan.cohort]
        await self._gather(nodes, ANSWER_SECONDS)
        lost = {**self.away, **self.out}
        told = [
            ("permitted", {"node": node})
            if node in self._in
            else ("node-unavailable", {"node": node, "code": lost[node]})
            for node in nodes
            if node in self._in or node not in self.refused
        ]
        await asyncio.gather(*(self._tell(kind, data) for kind, data in told))

    async def muster(self, number: int) -> None:
        """Take in again whoever came back, before exchange ``number``; where too few are left, or a job is just being
        resumed, give those who are away some time."""
        if not self.away:
            return
        resuming = not self._in
        await self._take_back(number)
        clock = asyncio.get_running_loop().time
        end = clock() + WAIT_SECONDS
        while self.away and clock() < end and (resuming or len(self._in) < self._plan.minimal_participants):
            came = await self._links.any_of(self.away, end - clock())
            if not came:
                return
            before = set(self.away)
            await self._take_back(number)
            if set(self.away) & came == before & came:
                return  # it is there and does not take the job: no need to ask it over and over

    async def reopen(self, node: str) -> bool:
        """Ask one node that lost the job, in the middle of an exchange, to open it again; whether it did."""
        self._in.discard(node)
        await self._gather([node], REOPEN_SECONDS)
        return node in self._in

    def fell(self, node: str, code: str, *, away: bool) -> None:
        """A node gave nothing to an exchange; ``away`` where it may come back."""
        self._in.discard(node)
        if away and node not in self.out:
            self.away[node] = code
        elif not away:
            self.away.pop(node, None)
            self.out[node] = code

    async def close(self) -> None:
        """Tell every node that the job is over; one that cannot be told closes it by itself after some time."""
        header = JobClose(plan=self._envelope.digest).to_bytes()

        async def close(node: str) -> None:
            try:
                await self._links.call(node, "job.close", header, timeout=CLOSE_SECONDS)
            except KeyongError as error:
                log.info("close-not-delivered", node=node, code=code_from(error.code))

        await asyncio.gather(*(close(planned.node) for planned in self._plan.cohort))

    # -- opening ------------------------------------------------------------------------------------------------------

    async def _take_back(self, number: int) -> None:
        back = sorted(set(self.away) & self._links.online)
        await self._gather(back, REOPEN_SECONDS)
        for node in back:
            if node in self._in:
                await self._tell("returned", {"node": node, "round": number})

    async def _gather(self, nodes: list[str], seconds: float) -> None:
        if nodes:
            code = await asyncio.to_thread(self._code)
            async with asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(self._ask(node, code, seconds))

    async def _ask(self, node: str, code: bytes, seconds: float) -> None:
        masked = self._plan.protection != "fed:none"
        least = MASKS if len(self._plan.cohort) <= ALL_WITH_ALL else NEIGHBOURHOODS
        if masked and node in self._links.online and self._links.version(node) < least:
            self.out[node] = ProtocolVersionError.code
            self.away.pop(node, None)
            self.refused.add(node)
            await self._tell("denied", {"node": node, "code": self.out[node], "clause": {}})
            return
        header = JobOpen(plan=pack(self._envelope), node_number=self._numbers[node]).to_bytes()
        try:
            incoming = await self._links.call(node, "job.open", header, [code], timeout=seconds)
            opened = JobOpened.from_bytes(incoming.header)
            clause = {} if opened.permitted else await self._clause(node, opened)
        except KeyongError as error:
            # One that lies is out; one that is not there, or has no room now, may come back.
            self.fell(node, code_from(error.code), away=isinstance(error, UnavailableError))
            return
        self.away.pop(node, None)
        if opened.permitted:
            self._in.add(node)
            return
        if opened.code == SUSPENDED:  # it may go on: the node is asked again before each exchange
            self.fell(node, SUSPENDED, away=True)
            return
        self.out[node] = code_from(opened.code)
        self.refused.add(node)
        await self._tell("denied", {"node": node, "code": self.out[node], "clause": clause})

    async def _clause(self, node: str, opened: JobOpened) -> dict[str, Any]:
        """The decision of a verified denial, for the requester, who is party to the agreement."""
        if not opened.receipt:
            return {}
        envelope = unpack(opened.receipt)
        receipt = Receipt.open(envelope, [self._home.public_key(node)], now())
        check_refusal(receipt, node, self._envelope.digest)
        await self._keep(Answer(node, receipt, envelope, b""))
        return receipt.decision.model_dump(mode="json")


def check_refusal(receipt: Receipt, node: str, plan: str) -> None:
    """Raise ReceiptError unless a receipt is that of a node's refusal to open this plan."""
    said = (receipt.node, receipt.plan, receipt.invocation, receipt.outcome, receipt.stage, receipt.round)
    if said != (node, plan, plan, "denied", "open", 0) or receipt.intent != -1:
        raise ReceiptError("the receipt of {node} is for something else", node=node)
