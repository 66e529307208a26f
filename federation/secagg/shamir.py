"""Shamir's secret sharing over GF(2^255 - 19): any ``threshold`` shares give the secret, fewer say nothing of it.

After Shamir 1979. Secrets and shares are integers below the prime, 32 bytes little endian on the wire; share ``x`` is the value
at ``x`` of a polynomial whose constant is the secret, ``x`` counting the holders from 1. A secret is *drawn* below the
prime: half of all 32-byte strings are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from federation.errors import VerificationError

PRIME: Final = 2**255 - 19
SECRET_BYTES: Final = 32

Below = Callable[[int], int]
"""A random source: a uniform integer from 0 up to, not including, its argument (``secrets.randbelow``)."""


class ShareError(VerificationError):
    """Shares do not fit each other or what was announced of the secret."""

    code = "share"


def split(secret: int, threshold: int, holders: int, below: Below) -> list[int]:
    """The shares of ``holders`` holders, in their order; ``threshold`` of them give the secret.

    Raises:
        ShareError: the secret is not below the prime, or the threshold not between 1 and the number of holders.
    """
    if not 0 <= secret < PRIME or not 1 <= threshold <= holders:
        raise ShareError("a secret cannot be split like this")
    coefficients = [below(PRIME) for _ in range(threshold - 1)]
    shares = []
    for x in range(1, holders + 1):
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * x % PRIME
        shares.append((value + secret) % PRIME)
    return shares


def combine(shares: Mapping[int, int], threshold: int) -> int:
    """The secret, from exactly as many shares as it takes (the first ``threshold`` in the mapping's order).

    Wrong shares give a wrong secret without a sign of it: the caller compares with what was announced.

    Args:
        shares: by holder, counted from 1.

    Raises:
        ShareError: too few shares, or one that no holder can have.
    """
    if len(shares) < threshold:
        raise ShareError("{have} shares are fewer than the {need} it takes", have=len(shares), need=threshold)
    points = list(shares.items())[:threshold]
    if any(not 1 <= x < 2**16 or not 0 <= y < PRIME for x, y in points):
        raise ShareError("a share lies outside the field")
    secret = 0
    for x, y in points:
        above = below = 1
        for other, _ in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    return secret


def to_bytes(value: int) -> bytes:
    """A secret or share as it travels."""
    return value.to_bytes(SECRET_BYTES, "little")


def from_bytes(data: bytes) -> int:
    """Read a secret or share.

    Raises:
        ShareError: not 32 bytes, or not below the prime.
    """
    value = int.from_bytes(data, "little")
    if len(data) != SECRET_BYTES or value >= PRIME:
        raise ShareError("a share lies outside the field")
    return value
