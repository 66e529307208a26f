"""What a masked exchange adds up: models in Z_2^k, a query's flags in Z_t, or ciphertexts under the asker's key.

An exchange needs four things of it: take a node's vector, take masks off, and say what the sum is. The coordinator learns
of a model its sum; of flags a sum under masks that the nodes alone know; of ciphertexts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coordinator.aggregate_file import finish
from coordinator.exchange import Exchange
from federation.jobs.codec import Content
from federation.query import MODULUS, RING, VectorLayout, pack_parts, unpack_parts
from federation.secagg import Accumulator, Aggregate, EncodedReply, Layout, MaskKey, ReplyFormatError, add_masks
from federation.statements import JobPlan
from federation.statements.query import QueryPlan
from federation.wire.cipher import CipherSession
from federation.wire.offload import offload
from federation.wire.peer import Incoming


@dataclass(frozen=True)
class Opened:
    """An opened sum: an aggregate, or bytes."""

    aggregate: Aggregate | None
    body: memoryview | None


class Sum(Protocol):
    """One attempt's sum. Vectors are added one at a time."""

    async def add(self, incoming: Incoming) -> None:
        """Add a node's vector; raises a KeyongError, and adds nothing, where it is not one."""

    async def add_masks(self, keys: Sequence[MaskKey]) -> None:
        """Add masks, which takes away those that are left."""

    async def finish(self, count: int, sent: Content) -> Opened:
        """The sum of so many vectors."""


Sums = Callable[[Exchange], Sum]


def model_sums(plan: JobPlan) -> Sums:
    """Sums of encoded replies."""

    def of(exchange: Exchange) -> Sum:
        layout = Layout.derive(exchange.sent.arrays, plan.outputs.of(exchange.stage))  # type: ignore[arg-type]
        return ModelSum(Accumulator(layout, plan.encoding, len(plan.cohort)))

    return of


class ModelSum:
    """Encoded replies."""

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator

    async def add(self, incoming: Incoming) -> None:
        """Add a reply."""
        await asyncio.to_thread(self._add, incoming)

    def _add(self, incoming: Incoming) -> None:
        accumulator = self._accumulator
        accumulator.add(EncodedReply.from_buffers(incoming.body, accumulator.layout, accumulator.encoding))

    async def add_masks(self, keys: Sequence[MaskKey]) -> None:
        """Add masks."""
        await asyncio.to_thread(self._accumulator.add_masks, keys)

    async def finish(self, count: int, sent: Content) -> Opened:
        """The aggregate."""
        return Opened(*await asyncio.to_thread(finish, self._accumulator, count, sent.arrays))


class FlagSum:
    """Contributor flags: pairs in Z_t, see ``federation.query.flags``."""

    def __init__(self, query: QueryPlan) -> None:
        self._total = np.zeros(2 * (query.cells + 1), dtype=np.uint64)

    async def add(self, incoming: Incoming) -> None:
        """Add a node's flags."""
        if len(incoming.body) != self._total.nbytes:
            raise ReplyFormatError("a vector of flags is of another length than its query's")
        vector = np.frombuffer(incoming.body, dtype="<u8")
        if int(vector.max()) >= MODULUS:
            raise ReplyFormatError("a vector of flags holds what is no element of its ring")
        self._total = (self._total + vector) % np.uint64(MODULUS)

    async def add_masks(self, keys: Sequence[MaskKey]) -> None:
        """Add masks."""
        await offload(self._total.nbytes * len(keys), add_masks, [(self._total, RING)], keys)

    async def finish(self, count: int, sent: Content) -> Opened:
        """The sum, still under what the nodes alone know."""
        return Opened(None, memoryview(self._total.astype("<u8").tobytes()))


class CipherSum:
    """Ciphertexts, added in a session of their own.

    Args:
        begin: has the session begin from nothing under the asker's context; called by each attempt, before its first vector.
    """

    def __init__(self, query: QueryPlan, session: CipherSession, begin: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._begin = begin
        self._correction = np.zeros(VectorLayout.of(query).size, dtype=np.uint64)
        self._begun = False

    async def add(self, incoming: Incoming) -> None:
        """Add a node's ciphertexts."""
        parts = unpack_parts(incoming.body)
        if not self._begun:
            await self._begin()
            self._begun = True
        await self._session.add(parts)

    async def add_masks(self, keys: Sequence[MaskKey]) -> None:
        """Add masks to what will be added to the sum as a plaintext."""
        await offload(self._correction.nbytes * len(keys), add_masks, [(self._correction, RING)], keys)

    async def finish(self, count: int, sent: Content) -> Opened:
        """The sum's ciphertexts."""
        parts = await self._session.finish(self._correction)
        return Opened(None, memoryview(b"".join(pack_parts(parts))))
