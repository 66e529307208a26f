"""Discrete Gaussian noise for long vectors: the inverse of its distribution function in a table, fed by AES in counter mode.

A table covers variances up to :data:`TABLE_VARIANCE`. A larger one is put together: if ``x1`` and ``x2`` are discrete
Gaussians of variances ``v1`` and ``v2``, ``x1 + s * x2`` is one of variance ``v1 + s^2 v2`` but for a factor of
``1 +- 2 exp(-2 pi^2 t)`` with ``1/t = s^2/v1 + 1/v2`` (complete the square in the sum over ``x2``; what is left is a sum of a
Gaussian over shifted integers, by Poisson's formula constant up to that factor). With ``v1 >= 16 s^2`` that is below 2^-400.
"""

from __future__ import annotations

import functools
import math
import os
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

TABLE_VARIANCE: Final = 2**18
"""Largest variance of one table: 14,000 thresholds, 110 KB, which stay in a core's second-level cache."""
TABLE_DISTANCE: Final = Fraction(1, 2**110)
"""Bound on the statistical distance of one drawn value from the discrete Gaussian: tails beyond 13.5 standard deviations
(below 2^-129), thresholds rounded to 128 bits (15,000 of them), and the factor above, at each of at most eight levels."""
_TAIL: Final = 13.5
_ONE: Final = 2**128
_GUIDE_SHIFT: Final = np.uint64(48)
_NEVER: Final = 2**64 - 1
_CHUNK: Final = 1 << 15
_THREADED: Final = 8 * _CHUNK


class Keystream:
    """Uniform words from AES-256 in counter mode; not for several threads."""

    def __init__(self, key: bytes) -> None:
        self._context: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def fresh(cls) -> Keystream:
        """One under a key that nobody else will ever have."""
        return cls(os.urandom(32))

    def words(self, count: int) -> NDArray[np.uint64]:
        """That many uniform 64-bit words."""
        return np.frombuffer(self._context.update(bytes(8 * count)), dtype="<u8")

    def child(self) -> Keystream:
        """Another keystream, for a thread of its own."""
        return Keystream(self.words(4).tobytes())


@dataclass(frozen=True, eq=False)
class _Table:
    """Thresholds between the values ``-reach .. reach``: a uniform 128-bit number counts how many it has passed."""

    reach: int
    exact: list[int]
    high: NDArray[np.uint64]
    """Their upper halves, and behind them one that no word passes."""
    guide: NDArray[np.int32]
    """For each value of a word's first 16 bits, how many thresholds lie below all such words."""

    def draw(self, size: int, stream: Keystream) -> NDArray[np.int64]:
        words = stream.words(size)
        passed = self.guide[words >> _GUIDE_SHIFT]
        open_ = np.flatnonzero(self.high[passed] <= words)
        while open_.size:  # few thresholds share their first 16 bits, but in the tails, which few words reach
            open_ = open_[passed[open_] < len(self.exact)]  # the largest word of all reaches the one that none passes
            passed[open_] += 1
            open_ = open_[self.high[passed[open_]] <= words[open_]]
        # equal upper halves: the lower halves decide, which are drawn only then (once in 2^49 values)
        for place in np.flatnonzero(self.high[passed - 1] == words):
            word = int(words[place]) << 64 | int(stream.words(1)[0])
            passed[place] = bisect_right(self.exact, word)
        values: NDArray[np.int64] = passed.astype(np.int64) - self.reach
        return values


@functools.lru_cache(maxsize=32)
def _table(variance: Fraction) -> _Table:
    reach = math.ceil(_TAIL * math.sqrt(variance)) + 1
    with localcontext() as context:
        context.prec = 60  # 2^-199; the recurrence adds up 30,000 roundings at most
        exponent = Decimal(variance.denominator) / (2 * Decimal(variance.numerator))
        step, square = (-exponent).exp(), (-2 * exponent).exp()
        weights = [Decimal(1)]  # of 0, 1, 2, ...: exp(-(k + 1)^2 e) = exp(-k^2 e) * exp(-(2k + 1) e)
        for _ in range(reach):
            weights.append(weights[-1] * step)
            step *= square
        total = weights[0] + 2 * sum(weights[1:])
        unit = _ONE / total
        running, exact = Decimal(0), []
        for value in range(-reach, reach):
            running += weights[abs(value)]
            exact.append(min(int(running * unit), _ONE - 1))
    high = np.array([*(threshold >> 64 for threshold in exact), _NEVER], dtype=np.uint64)
    firsts = np.arange(1 << 16, dtype=np.uint64) << _GUIDE_SHIFT
    return _Table(reach, exact, high, np.searchsorted(high[:-1], firsts, side="left").astype(np.int32))


@functools.lru_cache(maxsize=32)
def _levels(variance: Fraction) -> tuple[tuple[int, Fraction], ...]:
    """Factors and table variances that add up to a variance: ``sum of factor^2 * part``."""
    levels: list[tuple[int, Fraction]] = []
    while variance > TABLE_VARIANCE:
        factor = math.isqrt(math.ceil(variance / TABLE_VARIANCE) - 1) + 1
        part = math.floor(variance / factor**2) - 16
        levels.append((factor, Fraction(part)))
        variance -= factor**2 * part
    return (*levels, (1, variance))


def table_gaussian(size: int, variance: Fraction, stream: Keystream, threads: int | None = None) -> NDArray[np.int64]:
    """That many values within :data:`TABLE_DISTANCE` of the discrete Gaussian each.

    Args:
        variance: above 0; what exceeds :data:`TABLE_VARIANCE` is put together from several tables.
        stream: where the randomness comes from.
        threads: as many as there are cores by default; one for short vectors.
    """
    out = np.empty(size, dtype=np.int64)
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if size >= _THREADED else 1
    levels = [(factor, _table(part)) for factor, part in _levels(variance)]
    share = -(-size // (threads * _CHUNK)) * _CHUNK
    parts = [(out[at : at + share], stream.child()) for at in range(0, size, max(share, 1))]
    if len(parts) <= 1:
        for part, own in parts:
            _fill(part, levels, own)
        return out
    with ThreadPoolExecutor(len(parts), "noise") as pool:
        for done in [pool.submit(_fill, part, levels, own) for part, own in parts]:
            done.result()
    return out


def _fill(out: NDArray[np.int64], levels: list[tuple[int, _Table]], stream: Keystream) -> None:
    for at in range(0, len(out), _CHUNK):
        chunk = out[at : at + _CHUNK]
        chunk[:] = 0
        for factor, table in levels:
            drawn = table.draw(len(chunk), stream)
            chunk += drawn * factor if factor != 1 else drawn
