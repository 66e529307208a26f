"""Which members are connected, and calls to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from federation.errors import UnavailableError
from federation.home import now
from federation.statements import Envelope, Withdrawal
from federation.wire.body import Buffer
from federation.wire.peer import Incoming, LinkLostError, Peer

RETURN_SECONDS = 15.0
"""How long a node may stay away in the middle of a call: it redials within five, then greets."""
LINKS_A_CALL = 8
"""Links that a call may take: a proxy that cuts all streams at random costs time, and a line without end is given up."""


WITHDRAWALS = 64
"""Kept for one plan at work."""


class NodeOfflineError(UnavailableError):
    """The node is not connected."""

    code = "node-offline"


@dataclass(frozen=True)
class Served:
    """A node that serves: since when it is connected, and by which software."""

    since: datetime
    software: str


class Withdrawals:
    """What nodes said of masked vectors they take back, for the plans that are at work."""

    def __init__(self) -> None:
        self._of: dict[str, list[Envelope]] = {}

    def expect(self, plan: str) -> None:
        """Keep what comes for a plan (by its digest), from now on and anew."""
        self._of[plan] = []

    def forget(self, plan: str) -> None:
        """Keep nothing for a plan any more."""
        self._of.pop(plan, None)

    def note(self, envelope: Envelope, member: str) -> None:
        """Keep a withdrawal; whoever is shown it checks the signature. One for no plan at work is passed over."""
        one = Withdrawal.read(envelope)
        kept = self._of.get(one.plan)
        if kept is not None and one.node == member and len(kept) < WITHDRAWALS:
            kept.append(envelope)

    def of(self, plan: str, number: int, attempt: int) -> tuple[Envelope, ...]:
        """Those for one attempt of a round."""
        found = [(one, Withdrawal.read(one)) for one in self._of.get(plan, [])]
        return tuple(one for one, said in found if (said.round, said.attempt) == (number, attempt))


class Links:
    """Live links; a node's newest link serves it.

    Args:
        cut: ends a link. A node that greets on a new link has lost the old one, whatever the network still believes.
    """

    def __init__(self, cut: Callable[[Peer], None]) -> None:
        self._cut = cut
        self._nodes: dict[str, Peer] = {}
        self._dataspaces: dict[str, Peer] = {}
        self._all: set[Peer] = set()
        self._changed = asyncio.Event()
        self.serving: dict[str, Served] = {}
        self._served: set[str] = set()
        self.withdrawals = Withdrawals()

    def came(self, peer: Peer) -> None:
        """A link was established."""
        self._all.add(peer)

    def went(self, peer: Peer) -> None:
        """A link ended."""
        self._all.discard(peer)
        self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        if self._nodes.get(peer.member) is peer:
            del self._nodes[peer.member]
            self.serving.pop(peer.member, None)
        if self._dataspaces.get(peer.member) is peer:
            del self._dataspaces[peer.member]

    def answers_dataspace(self, peer: Peer) -> None:
        """The member at the other end answers the Dataspace Protocol over this link, without a node."""
        before = self._dataspaces.get(peer.member)
        self._dataspaces[peer.member] = peer
        if before is not None and before is not peer:
            self._cut(before)

    def serves(self, peer: Peer, software: str = "") -> None:
        """The member at the other end serves a node over this link."""
        self.serving[peer.member] = Served(now(), software)
        self._served.add(peer.member)
        before = self._nodes.get(peer.member)
        self._nodes[peer.member] = peer
        if before is not None and before is not peer:
            self._cut(before)
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def online(self) -> frozenset[str]:
        """Members whose nodes are connected."""
        return frozenset(self._nodes)

    def served(self) -> frozenset[str]:
        """Members whose nodes are connected, or were since this process began."""
        return frozenset(self._served)

    @property
    def peers(self) -> frozenset[Peer]:
        """Every live link."""
        return frozenset(self._all)

    def version(self, node: str) -> int:
        """Protocol version agreed on with a node; 1 while it is away."""
        peer = self._nodes.get(node)
        return peer.version if peer is not None else 1

    async def call(
        self,
        node: str,
        method: str,
        header: bytes,
        body: Sequence[Buffer] = (),
        *,
        timeout: float | None,
        job: str = "",
    ) -> Incoming:
        """Call a node, for a job; raises :class:`NodeOfflineError` where it is not connected."""
        peer = self._nodes.get(node)
        if peer is None:
            raise NodeOfflineError("{node} is not connected", hint="is `keyong node serve` running there?", node=node)
        try:
            return await peer.call(method, header, body, timeout=timeout, job=job)
        except LinkLostError:
            self._drop(peer)  # its end is told a moment later: until then nobody may be sent to a dead link
            raise

    async def ask_dataspace(
        self, member: str, header: bytes, body: Sequence[Buffer] = (), *, timeout: float
    ) -> Incoming:
        """Ask a member's dataspace endpoints: over its node's link, or over that of who answers them alone."""
        peer = self._nodes.get(member) or self._dataspaces.get(member)
        if peer is None:
            raise NodeOfflineError(
                "{node} is not connected",
                hint="is `keyong node serve` or `keyong dataspace serve` running there?",
                node=member,
            )
        return await peer.call("dataspace.ask", header, body, timeout=timeout)

    async def call_again(
        self,
        node: str,
        method: str,
        header: bytes,
        body: Sequence[Buffer] = (),
        *,
        timeout: float,
        job: str = "",
    ) -> Incoming:
        """Call a node, and ask again over its next link where the link was lost before the answer came.

        For methods that a node answers again from its record: asked twice, it computes once.

        Raises:
            LinkLostError, NodeOfflineError: the node did not come back in time, or was lost too often.
        """
        clock = asyncio.get_running_loop().time
        end, left = clock() + timeout, timeout
        for _ in range(LINKS_A_CALL - 1):
            try:
                return await self.call(node, method, header, body, timeout=left, job=job)
            except LinkLostError:
                await self._returned(node, RETURN_SECONDS)
            # What a body took that has to be sent anew was the line's: for its answer the node keeps some in any case.
            left = max(RETURN_SECONDS, end - clock())
        return await self.call(node, method, header, body, timeout=left, job=job)

    async def any_of(self, nodes: Iterable[str], seconds: float) -> frozenset[str]:
        """Those of some nodes that are connected, as soon as one is; none after ``seconds``."""
        wanted = frozenset(nodes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not wanted & self.online:
                    await self._changed.wait()
        return wanted & self.online

    async def _returned(self, node: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while node not in self._nodes:
                    await self._changed.wait()
        except TimeoutError:
            raise NodeOfflineError(
                "{node} is not connected", hint="is `keyong node serve` running there?", node=node
            ) from None
