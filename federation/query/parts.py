"""Ciphertexts one after another, as they travel: a count, their lengths, then their bytes; little endian, 4 bytes each."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from federation.query.errors import QueryVoidError

MOST_PARTS = 64
MOST_PART_BYTES = 2**20


def pack_parts(parts: Sequence[memoryview | bytes]) -> list[memoryview]:
    """The buffers of some ciphertexts."""
    head = struct.pack(f"<{1 + len(parts)}I", len(parts), *(len(part) for part in parts))
    return [memoryview(head), *(memoryview(part) for part in parts)]


def unpack_parts(data: memoryview | bytes) -> list[memoryview]:
    """Ciphertexts from their bytes, unread.

    Raises:
        QueryVoidError: the lengths are not theirs.
    """
    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise QueryVoidError("an encrypted vector is malformed")
    (count,) = struct.unpack_from("<I", view)
    if not 1 <= count <= MOST_PARTS or len(view) < 4 * (1 + count):
        raise QueryVoidError("an encrypted vector is malformed")
    sizes = struct.unpack_from(f"<{count}I", view, 4)
    if not all(0 < size <= MOST_PART_BYTES for size in sizes) or sum(sizes) + 4 * (1 + count) != len(view):
        raise QueryVoidError("an encrypted vector is malformed")
    parts, at = [], 4 * (1 + count)
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    return parts
