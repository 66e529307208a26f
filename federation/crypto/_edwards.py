"""Points of edwards25519 in plain integers (RFC 8032 section 5.1): only what it takes to judge an encoding.

Nothing secret passes through here: only public keys and the public half of signatures. So no constant time is needed.
"""

from __future__ import annotations

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
_SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
_SIGN = 1 << 255

Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z."""


def decompress(encoding: bytes) -> Point | None:
    """The point that these 32 bytes encode, or None where they encode none, or not in the canonical way.

    RFC 8032 section 5.1.3: y must be below p, x must exist, and x = 0 must not carry the sign bit.
    """
    number = int.from_bytes(encoding, "little")
    sign = number >> 255
    y = number & (_SIGN - 1)
    if y >= P:
        return None
    y2 = y * y % P
    u, v = (y2 - 1) % P, (D * y2 + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * _SQRT_MINUS_1 % P
        if v * x * x % P != u:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def double(point: Point) -> Point:
    """2P (RFC 8032 section 5.1.4)."""
    x, y, z, _ = point
    a, b, c = x * x % P, y * y % P, 2 * z * z % P
    h = a + b
    e = h - (x + y) ** 2
    g = a - b
    f = c + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def is_low_order(point: Point) -> bool:
    """Whether 8P is the identity: the point lies in the small subgroup, and no one need know its discrete logarithm."""
    x, y, z, _ = double(double(double(point)))
    return x % P == 0 and (y - z) % P == 0


LOW_ORDER_ENCODINGS = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)
"""Every encoding with y < p of the eight points of low order (two of them with a superfluous sign bit).

A table for the hot path: a signature's R is judged on each verification, a key once.
"""


def is_canonical_y(encoding: bytes) -> bool:
    """Whether the y of these 32 bytes is below p."""
    return int.from_bytes(encoding, "little") & (_SIGN - 1) < P
