"""The rings in which masks are added: integers modulo 2^32, 2^64, or a prime.

A mask is drawn uniformly from the ring of the vector it covers; one drawn modulo another number would neither hide a
value nor cancel. So the ring turns keystream into elements, and adds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import UsageError

Vector = NDArray[Any]

MODULUS_BITS: Final = 51
"""Largest prime modulus, in bits: twelve more fit into 64 while a keystream word is reduced."""
_LIMB_BITS: Final = 12
_WORD_BYTES: Final = 16


@dataclass(frozen=True)
class BinaryRing:
    """Integers modulo 2^32 or 2^64, whose elements are the machine's own unsigned integers.

    Attributes:
        bits: 32 or 64.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (32, 64):
            raise UsageError("a binary ring has 32 or 64 bits, not {bits}", bits=self.bits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element: little endian, as it travels."""
        return np.dtype("<u4" if self.bits == 32 else "<u8")

    @property
    def stream_bytes(self) -> int:
        """Bytes of keystream that one element takes."""
        return self.bits // 8

    def combine(self, vector: Vector, stream: memoryview, sign: int) -> None:
        """Add ``sign`` times the mask that a keystream says, in place."""
        mask = np.frombuffer(stream, dtype=self.dtype)
        (np.add if sign > 0 else np.subtract)(vector, mask, out=vector)

    def add(self, vector: Vector, other: Vector) -> None:
        """Add another vector of this ring, in place."""
        np.add(vector, other, out=vector)


@dataclass(frozen=True)
class PrimeRing:
    """Integers modulo a prime below 2^51; elements are uint64 below it.

    Each element takes a keystream word of 128 bits, reduced: its distance from uniform is below 2^-77, where 64 bits would
    leave it at 2^-13.

    Attributes:
        modulus: the prime. That it is one is the caller's affair; masks cancel modulo any number.
    """

    modulus: int

    def __post_init__(self) -> None:
        if not 2 <= self.modulus < 1 << MODULUS_BITS:
            raise UsageError("a ring's modulus lies between 2 and 2^{bits}", bits=MODULUS_BITS)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""
        return np.dtype("<u8")

    @property
    def stream_bytes(self) -> int:
        """Bytes of keystream that one element takes."""
        return _WORD_BYTES

    def combine(self, vector: Vector, stream: memoryview, sign: int) -> None:
        """Add ``sign`` times the mask that a keystream says, in place; the vector's elements are below the modulus."""
        mask = self._reduce(np.frombuffer(stream, dtype="<u8").reshape(-1, 2))
        modulus = np.uint64(self.modulus)
        vector += mask if sign > 0 else modulus - mask
        np.mod(vector, modulus, out=vector)

    def add(self, vector: Vector, other: Vector) -> None:
        """Add another vector of this ring, in place; the elements of both are below the modulus."""
        vector += other
        np.mod(vector, np.uint64(self.modulus), out=vector)

    def _reduce(self, words: Vector) -> Vector:
        # Horner's rule over limbs of 12 bits: what is below 2^51 stays below 2^63 with one more limb
        modulus = np.uint64(self.modulus)
        result = np.zeros(len(words), dtype=np.uint64)
        for half in (words[:, 1], words[:, 0]):
            for bits, shift in ((4, 60), *((_LIMB_BITS, at) for at in (48, 36, 24, 12, 0))):
                limb = (half >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
                result = ((result << np.uint64(bits)) + limb) % modulus
        return result


Ring = BinaryRing | PrimeRing
Z32, Z64 = BinaryRing(32), BinaryRing(64)
