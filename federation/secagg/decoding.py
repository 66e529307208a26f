"""From a sum of encoded replies back to arrays and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from federation.secagg.bounds import INTEGER_BOUND, metric_bound, metric_room, metric_units, total_bits
from federation.secagg.encoding import CHUNK
from federation.secagg.errors import AggregateVoidError
from federation.secagg.layout import FIRST_METRIC, Array, Arrays, Layout, Segment, flat
from federation.secagg.reply import Part
from federation.statements import Encoding

_RUN = 32 * CHUNK
"""Elements that one thread decodes before it takes more."""
_THREADS = 2
"""A model is decoded while nobody else of the round has anything to do."""


class Store(Protocol):
    """Where decoded arrays are put: chunk by chunk, each once, by several threads."""

    def put(self, segment: Segment, start: int, values: Array) -> None:
        """Take the elements of an array from ``start`` on; ``values`` is overwritten afterwards."""

    def arrays(self) -> dict[str, dict[str, Array]]:
        """All that was put."""


class Heap:
    """Decoded arrays in memory of their own."""

    def __init__(self, layout: Layout) -> None:
        self._arrays: dict[str, dict[str, Array]] = {}
        for segment in layout.segments:
            array: Array = np.empty(segment.shape, dtype=segment.dtype)
            self._arrays.setdefault(segment.record, {})[segment.name] = array

    def put(self, segment: Segment, start: int, values: Array) -> None:
        """Copy them in."""
        self._arrays[segment.record][segment.name].reshape(-1)[start : start + len(values)] = values

    def arrays(self) -> dict[str, dict[str, Array]]:
        """The arrays."""
        return self._arrays


def decode_arrays(
    sums: Mapping[Part, NDArray[Any]],
    layout: Layout,
    encoding: Encoding,
    n: int,
    count: int,
    weight: int,
    sent: Arrays,
    store: Store,
) -> dict[str, dict[str, Array]]:
    """The weighted means, added to what was sent, in the types that were sent.

    Args:
        sums: the vectors.
        n: size of the cohort, by which the encoding was made.
        count: replies in the sum.
        weight: their total weight, above 0.
        store: takes them.

    Raises:
        AggregateVoidError: an element exceeds what so many replies of this weight can add up to.
    """
    share = weight / encoding.weight_maximum

    def decode(run: tuple[Segment, int]) -> None:
        segment, first = run
        total = sums["wide" if segment.wide else "narrow"]
        total = total[segment.start : segment.start + segment.size]
        signed = total.view(np.int32 if total.itemsize == 4 else np.int64)
        one = 2.0 ** (total_bits(n) if segment.wide else encoding.fraction_bits)
        bound = float(INTEGER_BOUND) if segment.wide else float(encoding.scale)
        # each reply adds at most share * one, rounded; the factor is float64's own rounding on the way
        limit = share * one * (1 + 1e-12) + count
        base = flat(sent, segment) if segment.relative else None
        last = min(first + _RUN, segment.size)
        put = _put_integers if segment.wide else _put_floats
        buffer = np.empty(min(CHUNK, last - first), dtype=np.float64)
        mean: Array = np.empty(len(buffer), dtype=segment.dtype)
        for start in range(first, last, CHUNK):
            stop = min(start + CHUNK, last)
            values, chunk = buffer[: stop - start], mean[: stop - start]
            np.copyto(values, signed[start:stop])
            if not (-limit <= float(values.min()) and float(values.max()) <= limit):
                raise AggregateVoidError("an element exceeds what so many replies can add up to; the round is void")
            values *= bound / (share * one)
            put(values, None if base is None else base[start:stop], chunk)
            store.put(segment, start, chunk)

    runs = [(segment, first) for segment in layout.segments for first in range(0, segment.size, _RUN)]
    if layout.narrow_size + layout.wide_size <= _RUN:
        for run in runs:
            decode(run)
    else:
        with ThreadPoolExecutor(_THREADS, "decode") as threads:
            for _ in threads.map(decode, runs):
                pass
    return store.arrays()


def decode_metrics(
    totals: Sequence[int], layout: Layout, encoding: Encoding, n: int, count: int, weight: int
) -> dict[str, float]:
    """The weighted mean of each metric.

    Raises:
        AggregateVoidError: one exceeds what so many replies of this weight can add up to.
    """
    metrics: dict[str, float] = {}
    share = Fraction(weight, encoding.weight_maximum)
    one, room = metric_units(encoding, n), metric_room(encoding, n)
    for metric, total in zip(layout.metrics, totals[FIRST_METRIC:], strict=True):
        signed = total - 2**64 if total >= 2**63 else total
        if abs(signed) > share * one + count + room:
            raise AggregateVoidError("a metric exceeds what so many replies can add up to; the round is void")
        mean = Fraction(signed) / (share * one) * metric_bound(metric.minimum, metric.maximum)
        # rounding may carry a mean of values at the bound past it by less than a unit
        metrics[metric.name] = float(min(max(mean, Fraction(metric.minimum)), Fraction(metric.maximum)))
    return metrics


def _put_floats(mean: NDArray[np.float64], base: Array | None, out: Array) -> None:
    if base is not None:
        mean += base
    if out.dtype != np.float64:
        largest = float(np.finfo(out.dtype).max)
        if mean.size and not -largest <= float(mean.min()) <= float(mean.max()) <= largest:  # two scans, half a clip
            np.clip(mean, -largest, largest, out=mean)
    np.copyto(out, mean, casting="unsafe")


def _put_integers(mean: NDArray[np.float64], base: Array | None, out: Array) -> None:
    np.rint(mean, out=mean)
    change = mean.astype(np.int64)
    if out.dtype == np.bool_:
        change += 0 if base is None else base
        np.copyto(out, np.clip(change, 0, 1), casting="unsafe")
        return
    limits = np.iinfo(out.dtype)
    if out.dtype.itemsize < 8:
        change += 0 if base is None else base
        np.copyto(out, np.clip(change, limits.min, limits.max), casting="unsafe")
        return
    # 64 bits leave no room to add first and clip then: clip the change to the room there is, and it cannot wrap
    start = np.zeros_like(out) if base is None else base
    reach = 2**32  # more than any mean change, see INTEGER_BOUND
    above = limits.max - np.maximum(start, limits.max - reach)
    below = np.minimum(start, limits.min + reach) - limits.min
    change = np.clip(change, -below.astype(np.int64), above.astype(np.int64))
    np.add(start, change.astype(out.dtype), out=out)
