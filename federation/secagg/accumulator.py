"""The running sum of a round's replies, and what it opens to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.pages import empty
from federation.secagg.bounds import check_encoding
from federation.secagg.decoding import Heap, Store, decode_arrays, decode_metrics
from federation.secagg.errors import AggregateVoidError, ReplyFormatError
from federation.secagg.keystream import MaskKey, add_masks
from federation.secagg.layout import ONE, SATURATED, WEIGHT, Array, Arrays, Layout
from federation.secagg.reply import Buffer, EncodedReply, Part, reply_header, reply_parts, ringed
from federation.secagg.stream import ReplyStream
from federation.statements import Encoding


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What a round's replies add up to; all that anyone outside the nodes may see of them.

    Attributes:
        arrays: what was sent plus the weighted mean difference, in the types that were sent; further arrays as
            their mean.
        metrics: weighted means.
        total_weight: the sum of all weights.
        count: how many replies are in it.
        saturated: how many elements of all replies together met a bound.
    """

    arrays: dict[str, dict[str, Array]]
    metrics: dict[str, float]
    total_weight: int
    count: int
    saturated: int


class Accumulator:
    """Adds replies modulo their rings as they arrive; takes the memory of one, however many there are.

    Not for several threads at once. Replies may be interleaved chunk by chunk, because addition commutes; one that is
    only half added spoils the sum for good (`void`), since what has been added cannot be told apart any more.

    Args:
        layout: derived from the broadcast content and the plan.
        encoding: the plan's.
        n: size of the plan's cohort.
    """

    def __init__(self, layout: Layout, encoding: Encoding, n: int) -> None:
        check_encoding(encoding, n)
        self.layout = layout
        self.encoding = encoding
        self._n = n
        self._header = reply_header(layout, encoding)
        self._sums: dict[Part, NDArray[Any]] = {
            name: empty(size, dtype) for name, dtype, size in reply_parts(layout, encoding)
        }
        self._begun = False
        self._added: dict[Part, int] = dict.fromkeys(self._sums, 0)
        self._void = False

    def add(self, reply: EncodedReply) -> None:
        """Add a whole reply.

        Raises:
            ReplyFormatError: it is of another layout or encoding; nothing was added.
            AggregateVoidError: the sum is spoilt.
        """
        self._check_open()
        vectors: dict[Part, NDArray[Any]] = {"totals": reply.totals, "wide": reply.wide, "narrow": reply.narrow}
        fits = all(vectors[p].dtype == s.dtype and vectors[p].shape == s.shape for p, s in self._sums.items())
        if reply.header != self._header or not fits:
            raise ReplyFormatError("a reply of another layout or encoding cannot be added to this sum")
        for part, total in self._sums.items():
            if self._begun:
                np.add(total, vectors[part], out=total)
            else:
                np.copyto(total, vectors[part])
            self._added[part] += len(total)
        self._begun = True

    def add_chunk(self, part: Part, offset: int, data: Buffer) -> None:
        """Add bytes ``offset`` to ``offset + len(data)`` of one vector; both fall on whole elements.

        `stream` cuts a reply's bytes into such chunks and sees that none is missing.

        Raises:
            ReplyFormatError: the chunk does not lie on elements of the vector; nothing was added.
            AggregateVoidError: the sum is spoilt.
        """
        self._check_open()
        total = self._sums[part]
        size = memoryview(data).nbytes
        if offset < 0 or offset % total.itemsize or size % total.itemsize or offset + size > total.nbytes:
            raise ReplyFormatError("a chunk does not lie on whole elements of its vector")
        self._begin()
        start, count = offset // total.itemsize, size // total.itemsize
        place = total[start : start + count]
        np.add(place, np.frombuffer(data, dtype=total.dtype), out=place)
        self._added[part] += count

    def add_masks(self, keys: Sequence[MaskKey]) -> None:
        """Add the masks of all keys to the sum; what `residual_masks` gives takes away what is left of the replies' own.

        Raises:
            AggregateVoidError: the sum is spoilt.
        """
        self._check_open()
        self._begin()
        add_masks(ringed(self._sums["totals"], self._sums["wide"], self._sums["narrow"]), keys)

    def stream(self) -> ReplyStream:
        """A reader that adds one reply's bytes as they come, cut anywhere."""
        return ReplyStream(self)

    def void(self) -> None:
        """Give the sum up: a reply was added in part, or turned out not to be what was signed."""
        self._void = True

    def finish(self, expected_count: int, sent: Arrays, store: Store | None = None) -> Aggregate:
        """Open the sum of ``expected_count`` replies.

        Args:
            expected_count: how many nodes are in it; the sum of their constants 1 must say the same.
            sent: the arrays of the broadcast content.
            store: takes the arrays; memory of their own where none is given.

        Raises:
            AggregateVoidError: count, weight or any element cannot be the sum of so many honest replies. A mask that
                was not removed shows here.
        """
        self._check_open()
        self._begin()
        complete = all(added == expected_count * len(self._sums[part]) for part, added in self._added.items())
        totals = [int(value) for value in self._sums["totals"]]
        if not 1 <= expected_count <= self._n or totals[ONE] != expected_count or not complete:
            raise AggregateVoidError(
                "the sum does not open to {expected} replies; the round is void", expected=expected_count
            )
        weight = totals[WEIGHT]
        low, high = self.encoding.weight_minimum * expected_count, self.encoding.weight_maximum * expected_count
        elements = self.layout.narrow_size + self.layout.wide_size
        if not max(low, 1) <= weight <= high or totals[SATURATED] > expected_count * elements:
            raise AggregateVoidError("the total weight is not one that the plan allows; the round is void")
        arrays = decode_arrays(
            self._sums, self.layout, self.encoding, self._n, expected_count, weight, sent, store or Heap(self.layout)
        )
        metrics = decode_metrics(totals, self.layout, self.encoding, self._n, expected_count, weight)
        return Aggregate(arrays, metrics, weight, expected_count, totals[SATURATED])

    def _begin(self) -> None:
        """Let the sums be zero, where nothing was added yet: their memory held something else before."""
        if not self._begun:
            for total in self._sums.values():
                total.fill(0)
            self._begun = True

    def _check_open(self) -> None:
        if self._void:
            raise AggregateVoidError("a reply was added only in part; the round is void")
