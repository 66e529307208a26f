"""The bounds of the fixed-point encoding: how many bits a value gets, and when 32 are too few.

Element ``x`` of weight ``w`` is encoded as ``round(clip(x / scale, -1, 1) * (w / weight_maximum) * 2^f) mod 2^k``.
Adding ``n`` of them must not wrap, so ``f + ceil(log2 n)`` stays two bits below ``k``; dividing the sum by the total
weight gives the weighted mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from federation.errors import UsageError
from federation.secagg.errors import EncodingError, WeightError
from federation.statements import Encoding

Z32_BITS: Final = 30
"""``f + ceil(log2 n)`` in Z_2^32: one bit for the sign, one to spare."""
Z64_FRACTION: Final = 40
Z64_BITS: Final = 62
Z32_WEIGHT_SPREAD: Final = 2**10
"""In Z_2^32 the lightest node keeps ``f - 10`` bits; a wider spread would round its whole update away."""
TOTAL_BITS: Final = 60
"""Bits of a normalised metric or integer value, before ``ceil(log2 n)`` is taken off for the sum."""
METRIC_UNITS: Final = 2**24
"""The bound of a metric in integers of the encoding, under noise."""
NOISE_TAIL: Final = 14
"""Standard deviations of noise that a sum has room for; beyond lies less than 2^-140."""
INTEGER_BOUND: Final = 2**31
"""Largest absolute value (or difference) of an element of an integer array; larger ones saturate and are counted."""


def log2_ceil(n: int) -> int:
    """The least ``k`` with ``2^k >= n``."""
    return (n - 1).bit_length()


def choose_encoding(rows: Sequence[tuple[int, int]], *, scale: str = "8", clip: str | None = None) -> Encoding:
    """The encoding for a cohort whose row counts lie in these published buckets.

    Z_2^32 (half the upload) only if the heaviest node weighs at most 2^10 times the lightest, judged by the outer ends
    of the buckets; else Z_2^64.

    Args:
        rows: (at least, at most) for each node of the cohort.
        scale: largest absolute difference of one element, a decimal string.
        clip: L2 bound of a whole reply's difference, or None.

    Raises:
        UsageError: no node, or a bucket that is no bucket.
    """
    if not rows or any(not 0 <= low <= high for low, high in rows) or max(high for _, high in rows) < 1:
        raise UsageError("the cohort's row counts must be ranges from 0 upwards, one per node, not all of them empty")
    minimum, maximum = min(low for low, _ in rows), max(high for _, high in rows)
    narrow = maximum <= Z32_WEIGHT_SPREAD * minimum and log2_ceil(len(rows)) < Z32_BITS
    return Encoding(
        ring="z32" if narrow else "z64",
        fraction_bits=Z32_BITS - log2_ceil(len(rows)) if narrow else Z64_FRACTION,
        scale=scale,
        clip=clip,
        weight_minimum=minimum,
        weight_maximum=maximum,
    )


def check_encoding(encoding: Encoding, n: int) -> None:
    """Raise unless sums of ``n`` replies fit the ring.

    A plan is signed by a requester whose arithmetic a node has no reason to trust: a sum that wraps is a wrong model
    that looks like one.

    Raises:
        EncodingError: it does not fit, or a bound is not positive.
    """
    room = Z32_BITS if encoding.ring == "z32" else Z64_BITS
    if n < 1 or encoding.fraction_bits + log2_ceil(n) > room:
        raise EncodingError(
            "a sum of {n} replies with {bits} fraction bits does not fit the ring {ring}",
            hint="let the plan's encoding be chosen from the published row counts",
            n=n,
            bits=encoding.fraction_bits,
            ring=encoding.ring,
        )
    if Fraction(encoding.scale) <= 0 or (encoding.clip is not None and Fraction(encoding.clip) <= 0):
        raise EncodingError("the scale and the L2 bound of an encoding must be positive")
    if encoding.weight_minimum > encoding.weight_maximum:
        raise EncodingError("the plan's smallest weight exceeds its largest")


def check_weights(encoding: Encoding, low: int, high: int) -> None:
    """Raise unless every weight that a dataset of ``low`` to ``high`` rows can have is within the plan's range.

    The outcome tells a weight outside it from one within: with a range of his choice a requester could ask for the exact
    number of rows, which masks hide, bit by bit.

    Raises:
        WeightError: the range leaves some of them out.
    """
    if encoding.noise is None and not (encoding.weight_minimum <= low and high <= encoding.weight_maximum):
        raise WeightError(
            "the plan takes {minimum} to {maximum} rows, and this dataset is published with {low} to {high}",
            hint="let the plan's encoding be chosen from the published row counts",
            minimum=encoding.weight_minimum,
            maximum=encoding.weight_maximum,
            low=low,
            high=high,
        )


def total_bits(n: int) -> int:
    """Fraction bits of metrics and integer arrays in a sum of ``n`` replies."""
    return TOTAL_BITS - log2_ceil(n)


def metric_units(encoding: Encoding, n: int) -> int:
    """What a metric at its bound counts for in a sum of ``n`` replies; under noise less, for the noise takes room."""
    return METRIC_UNITS if encoding.noise is not None else 2 ** total_bits(n)


def metric_room(encoding: Encoding, n: int) -> int:
    """How far noise can carry the sum of a metric beyond what its values add up to."""
    if encoding.noise is None:
        return 0
    # all nodes' noise, were each to add all of it: more than there ever is
    return math.ceil(NOISE_TAIL * Fraction(encoding.noise.multiplier) * METRIC_UNITS * (math.isqrt(n) + 1))


def metric_bound(minimum: str, maximum: str) -> Fraction:
    """The absolute bound to which a metric is normalised, exactly."""
    return max(abs(Fraction(minimum)), abs(Fraction(maximum)))
