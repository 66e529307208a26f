"""One node's reply as vectors of integers whose sum over the cohort is the weighted mean.

Where every agreement permits it these vectors are added in clear; masks add one more term modulo the same rings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.pages import empty
from federation.secagg.bounds import INTEGER_BOUND, check_encoding, metric_bound, metric_units, total_bits
from federation.secagg.errors import EncodingError, WeightError
from federation.secagg.layout import FIRST_METRIC, ONE, SATURATED, WEIGHT, Array, Arrays, Layout, Reply, Segment, flat
from federation.secagg.reply import EncodedReply, reply_header
from federation.statements import Encoding, MetricSpec

CHUNK = 1 << 15
"""Elements worked on at once: a float64 chunk (256 KiB) stays in a core's own cache; nothing larger is allocated."""

Floats = NDArray[np.float64]


def encode(reply: Reply, sent: Arrays, layout: Layout, encoding: Encoding, weight: int, n: int) -> EncodedReply:
    """Encode a gated reply, as differences from ``sent``, with the weight that the trusted line counted.

    Args:
        reply: the arrays and metrics that passed the output gate.
        sent: the arrays of the broadcast content.
        layout: where each value goes, derived from ``sent`` and the plan.
        encoding: the plan's bounds.
        weight: rows of the snapshot; 1 under noise. Never a number that job code claims.
        n: size of the plan's cohort, whose sum must fit the ring.

    Raises:
        WeightError: the weight lies outside the plan's bounds.
        EncodingError: the encoding cannot hold ``n`` replies, or a value is missing, misshapen, out of range
            or not finite.
    """
    check_encoding(encoding, n)
    _check_weight(weight, encoding)
    ring = np.uint32 if encoding.ring == "z32" else np.uint64
    narrow: Array = empty(layout.narrow_size, ring)
    wide = np.empty(layout.wide_size, dtype=np.uint64)
    scale = float(encoding.scale)
    share = weight / encoding.weight_maximum
    factor = share * 2.0**encoding.fraction_bits / scale
    integer_factor = share * 2.0 ** total_bits(n) / INTEGER_BOUND
    shrink = _shrink(reply.arrays, sent, layout, encoding)
    saturated = 0
    buffer = np.empty(CHUNK, dtype=np.float64)
    for segment in layout.segments:
        target = wide if segment.wide else narrow
        bound, multiplier = (float(INTEGER_BOUND), integer_factor) if segment.wide else (scale, factor)
        for place, values in differences(reply.arrays, sent, segment, buffer):
            if not segment.wide and shrink != 1.0:
                values *= shrink
            saturated += _saturate(values, bound)
            values *= multiplier
            np.rint(values, out=values)
            part = target[place]
            np.copyto(part.view(np.int32 if part.itemsize == 4 else np.int64), values, casting="unsafe")
    totals = np.zeros(layout.totals_size, dtype=np.uint64)
    totals[ONE], totals[WEIGHT] = 1, weight
    totals[SATURATED] = 0 if encoding.noise else saturated  # under noise nothing leaves without it
    for place_, metric in enumerate(layout.metrics, start=FIRST_METRIC):
        totals[place_] = _metric(reply, metric, weight, encoding, n)
    return EncodedReply(reply_header(layout, encoding), narrow, wide, totals, saturated)


def clip_difference(arrays: Arrays, sent: Arrays, layout: Layout, clip: str) -> dict[str, dict[str, Array]]:
    """The arrays with their difference from ``sent`` shrunk to an L2 norm of at most ``clip``, where it is larger.

    The norm is over all floating point arrays together; counters (integer arrays) have no meaning when scaled and stay.

    Raises:
        EncodingError: an array is missing or misshapen, or the norm is not finite.
    """
    shrink = _shrink_factor(arrays, sent, layout, clip)
    result: dict[str, dict[str, Array]] = {}
    buffer = np.empty(CHUNK, dtype=np.float64)
    for segment in layout.segments:
        source = flat(arrays, segment)
        if shrink != 1.0 and not segment.wide:
            clipped: Array = np.empty_like(source)
            base = flat(sent, segment) if segment.relative else None
            for place, values in differences(arrays, sent, segment, buffer):
                values *= shrink
                if base is not None:
                    values += base[_within(place, segment)]
                np.copyto(clipped[_within(place, segment)], values, casting="unsafe")
            source = clipped
        result.setdefault(segment.record, {})[segment.name] = source.reshape(segment.shape)
    return result


def differences(arrays: Arrays, sent: Arrays, segment: Segment, buffer: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield each chunk of ``arrays - sent`` as float64 in ``buffer``, with its place in the segment's vector.

    Arrays that were not sent are taken as they are.
    """
    own = flat(arrays, segment)
    base = flat(sent, segment) if segment.relative else None
    for start in range(0, segment.size, len(buffer)):
        stop = min(start + len(buffer), segment.size)
        values = buffer[: stop - start]
        if segment.wide and base is not None:
            _integer_difference(own[start:stop], base[start:stop], values)
        elif base is not None:
            np.copyto(values, own[start:stop])  # first: subtracting shorter fractions as float64 would buffer both
            with np.errstate(over="ignore"):  # float64's largest less its smallest is inf, and saturates as it should
                np.subtract(values, base[start:stop], out=values)
        else:
            np.copyto(values, own[start:stop])
        yield slice(segment.start + start, segment.start + stop), values


def _integer_difference(own: Array, base: Array, out: Floats) -> None:
    # float64 rounds integers beyond 2^53, 64-bit subtraction wraps beyond 2^63: each covers where the other fails
    np.subtract(own, base, out=out, dtype=np.float64, casting="unsafe")
    if own.dtype.itemsize == 8:
        exact = own.view(np.int64) - base.view(np.int64)
        np.copyto(out, exact, where=np.abs(out) < 2.0**53)


def _saturate(values: Floats, bound: float) -> int:
    """Clip in place and count what was clipped; the common case costs two scans."""
    low, high = float(values.min()), float(values.max())
    if -bound <= low and high <= bound:
        return 0
    if math.isnan(low) or math.isnan(high):
        raise EncodingError("an array holds a value that is not a number")
    count = int(np.count_nonzero(values < -bound)) + int(np.count_nonzero(values > bound))
    np.clip(values, -bound, bound, out=values)
    return count


def _within(place: slice, segment: Segment) -> slice:
    return slice(place.start - segment.start, place.stop - segment.start)


def _shrink(arrays: Arrays, sent: Arrays, layout: Layout, encoding: Encoding) -> float:
    return 1.0 if encoding.clip is None else _shrink_factor(arrays, sent, layout, encoding.clip)


def _shrink_factor(arrays: Arrays, sent: Arrays, layout: Layout, clip: str) -> float:
    squares = 0.0
    buffer = np.empty(CHUNK, dtype=np.float64)
    for segment in layout.segments:
        if not segment.wide:
            for _, values in differences(arrays, sent, segment, buffer):
                with np.errstate(over="ignore"):
                    squares += float(np.square(values, out=values).sum())
    if not math.isfinite(squares):
        raise EncodingError("the difference from what was sent is too large to be clipped")
    norm = math.sqrt(squares)
    bound = float(clip)
    return 1.0 if norm <= bound else bound / norm


def _metric(reply: Reply, metric: MetricSpec, weight: int, encoding: Encoding, n: int) -> Any:
    found = [entries[metric.name] for entries in reply.metrics.values() if metric.name in entries]
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], (int, float)):
        raise EncodingError("the metric {name} is missing, ambiguous or not a number", name=metric.name)
    if isinstance(found[0], float) and not math.isfinite(found[0]):
        raise EncodingError("the metric {name} is not finite", name=metric.name)
    value, bound = Fraction(found[0]), metric_bound(metric.minimum, metric.maximum)
    if not Fraction(metric.minimum) <= value <= Fraction(metric.maximum):
        raise EncodingError("the metric {name} lies outside its declared range", name=metric.name)
    if not bound:
        return np.uint64(0)
    share = Fraction(weight, encoding.weight_maximum)
    return np.uint64(round(value / bound * share * metric_units(encoding, n)) % 2**64)


def _check_weight(weight: int, encoding: Encoding) -> None:
    if not encoding.weight_minimum <= weight <= encoding.weight_maximum:
        raise WeightError(
            "this dataset's row count lies outside the {minimum} to {maximum} the plan was made for",
            hint="publish the dataset again, then ask the requester for a new plan",
            minimum=encoding.weight_minimum,
            maximum=encoding.weight_maximum,
        )
