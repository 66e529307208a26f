"""Integers as they are added: signed numbers cut into limbs, each an element of Z_t.

t is the prime plaintext modulus of the encryption (1 mod 2 * 8192, so that 8,192 values fit into one ciphertext); masks and
sums are in this very ring, for a mask drawn modulo another number would not cancel in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from federation.query.errors import QueryVoidError
from federation.secagg import PrimeRing

MODULUS: Final = 1125899904679937
RING: Final = PrimeRing(MODULUS)
SLOTS: Final = 8192
"""Elements of one ciphertext."""
LIMB_BITS: Final = 40
"""A limb lies in [-2^39, 2^39): 512 of them add up to less than t / 2."""
ADDENDS: Final = 512


def to_limbs(value: int, count: int) -> list[int]:
    """Cut a signed integer into limbs, the lowest first, each reduced into Z_t.

    One that does not fit becomes the largest that does: a node that failed would tell, of its own sum alone, that it lies
    beyond a bound which the asker chose.
    """
    half, base = 1 << (LIMB_BITS - 1), 1 << LIMB_BITS
    most = (half - 1) * ((base**count - 1) // (base - 1))
    value = min(max(value, -most), most)
    limbs = []
    for _ in range(count):
        digit = (value + half) % base - half
        limbs.append(digit % MODULUS)
        value = (value - digit) >> LIMB_BITS
    return limbs


def from_limbs(limbs: Sequence[int], addends: int) -> int:
    """The integer whose limbs, of so many addends, these are.

    Raises:
        QueryVoidError: a limb is not one that so many addends can have.
    """
    value = 0
    bound = addends << (LIMB_BITS - 1)
    for at, limb in enumerate(limbs):
        digit = signed(limb)
        if abs(digit) > bound:
            raise QueryVoidError("an answer is not one that so many nodes can add up to; it is void")
        value += digit << (LIMB_BITS * at)
    return value


def signed(element: int) -> int:
    """An element of Z_t as the number nearest to zero."""
    element %= MODULUS
    return element - MODULUS if element > MODULUS // 2 else element
