"""Which members are connected, and calls to them."""

from __future__ import annotations

from collections.abc import Sequence

from federation.errors import UnavailableError
from federation.wire.body import Buffer
from federation.wire.peer import Incoming, Peer


class NodeOfflineError(UnavailableError):
    """The node is not connected."""

    code = "node-offline"


class Links:
    """Live links; a node's newest link serves it."""

    def __init__(self) -> None:
        self._nodes: dict[str, Peer] = {}
        self._all: set[Peer] = set()

    def came(self, peer: Peer) -> None:
        """A link was established."""
        self._all.add(peer)

    def went(self, peer: Peer) -> None:
        """A link ended."""
        self._all.discard(peer)
        if self._nodes.get(peer.member) is peer:
            del self._nodes[peer.member]

    def serves(self, peer: Peer) -> None:
        """The member at the other end serves a node over this link."""
        self._nodes[peer.member] = peer

    @property
    def online(self) -> frozenset[str]:
        """Members whose nodes are connected."""
        return frozenset(self._nodes)

    @property
    def peers(self) -> frozenset[Peer]:
        """Every live link."""
        return frozenset(self._all)

    async def call(
        self, node: str, method: str, header: bytes, body: Sequence[Buffer] = (), *, timeout: float | None
    ) -> Incoming:
        """Call a node; raises :class:`NodeOfflineError` where it is not connected."""
        peer = self._nodes.get(node)
        if peer is None:
            raise NodeOfflineError("{node} is not connected", hint="is `keyong node serve` running there?", node=node)
        return await peer.call(method, header, body, timeout=timeout)
