"""The bytes of an encoded reply: a header that is known in advance, then three little-endian vectors.

::

    "KYREPLY1"  8 bytes
    length      of the header, 4 bytes, little endian
    header      canonical JSON, padded with spaces so that the vectors start at a multiple of 64 bytes:
                {"encoding":DIGEST,"format":1,"layout":DIGEST,"narrow":N,"ring":"z32","totals":K,"wide":M}
    totals      K x uint64
    wide        M x uint64
    narrow      N x uint32 or uint64

A receiver derives the header from plan and broadcast content and compares: there is nothing to parse, and no length
that a sender could choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from federation.crypto import canonical_json, digest
from federation.secagg.errors import ReplyFormatError
from federation.secagg.keystream import MaskKey, add_masks
from federation.secagg.layout import Layout
from federation.secagg.rings import Z32, Z64, Ring
from federation.statements import Encoding

MAGIC = b"KYREPLY1"
ALIGNMENT = 64

Buffer = bytes | bytearray | memoryview
Part = Literal["totals", "wide", "narrow"]


def reply_header(layout: Layout, encoding: Encoding) -> bytes:
    """Everything before the vectors, the same bytes for every node of a round."""
    header = canonical_json(
        {
            "format": 1,
            "layout": layout.digest(),
            "encoding": digest(canonical_json(encoding.model_dump(mode="json"))),
            "ring": encoding.ring,
            "narrow": layout.narrow_size,
            "wide": layout.wide_size,
            "totals": layout.totals_size,
        }
    )
    before = len(MAGIC) + 4
    header += b" " * (-(before + len(header)) % ALIGNMENT)
    return MAGIC + len(header).to_bytes(4, "little") + header


def reply_parts(layout: Layout, encoding: Encoding) -> tuple[tuple[Part, np.dtype[Any], int], ...]:
    """The vectors in the order of their bytes: name, element type, length."""
    narrow = np.dtype("<u4" if encoding.ring == "z32" else "<u8")
    wide = np.dtype("<u8")
    return (
        ("totals", wide, layout.totals_size),
        ("wide", wide, layout.wide_size),
        ("narrow", narrow, layout.narrow_size),
    )


def ringed(*vectors: NDArray[Any]) -> list[tuple[NDArray[Any], Ring]]:
    """Vectors of integers modulo 2^32 or 2^64, each with its ring, in the order of a mask's keystream: totals, wide, narrow."""
    return [(vector, Z32 if vector.itemsize == 4 else Z64) for vector in vectors]


def reply_bytes(layout: Layout, encoding: Encoding) -> int:
    """How many bytes every reply of this layout has."""
    vectors = sum(dtype.itemsize * size for _, dtype, size in reply_parts(layout, encoding))
    return len(reply_header(layout, encoding)) + vectors


def reply_digest(buffers: Iterable[Buffer]) -> str:
    """The digest of an encoded reply, however its bytes are cut; what a receipt names as the output."""
    state = hashlib.sha256()
    for buffer in buffers:
        state.update(buffer)
    return "sha256:" + state.hexdigest()


@dataclass(frozen=True, eq=False)
class EncodedReply:
    """A reply as it is added: three vectors of integers modulo 2^32 or 2^64.

    Attributes:
        header: see `reply_header`.
        narrow: floating point arrays; uint32 or uint64.
        wide: integer and boolean arrays; uint64.
        totals: the constant 1, the weight, the saturation count, the metrics; uint64.
        saturated: how many elements met a bound, for this node's own record; 0 in a reply that was read from bytes.
    """

    header: bytes
    narrow: NDArray[Any]
    wide: NDArray[np.uint64]
    totals: NDArray[np.uint64]
    saturated: int = 0

    def to_buffers(self) -> list[memoryview]:
        """The bytes, in pieces that share memory with the vectors."""
        vectors = (self.totals, self.wide, self.narrow)
        little = [vector.astype(vector.dtype.newbyteorder("<"), copy=False) for vector in vectors]
        return [memoryview(self.header), *(vector.view(np.uint8).data for vector in little)]

    def mask(self, keys: Sequence[MaskKey]) -> None:
        """Add the masks of all keys to the vectors, in place: from then on the reply says nothing but its header."""
        add_masks(ringed(self.totals, self.wide, self.narrow), keys)

    def digest(self) -> str:
        """The digest of the bytes."""
        return reply_digest(self.to_buffers())

    @classmethod
    def from_buffers(cls, buffers: Buffer | Sequence[Buffer], layout: Layout, encoding: Encoding) -> Self:
        """Read a reply; its vectors are views of the buffer where there is one.

        Raises:
            ReplyFormatError: a byte or a length differs from what layout and encoding fix.
        """
        if not isinstance(buffers, (bytes, bytearray, memoryview)):
            buffers = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        view = memoryview(buffers).cast("B")
        header = reply_header(layout, encoding)
        if len(view) != reply_bytes(layout, encoding) or view[: len(header)] != header:
            raise ReplyFormatError("an encoded reply does not have the header or length that the plan fixes")
        vectors: dict[Part, NDArray[Any]] = {}
        offset = len(header)
        for name, dtype, size in reply_parts(layout, encoding):
            vectors[name] = np.frombuffer(view, dtype=dtype, count=size, offset=offset)
            offset += size * dtype.itemsize
        return cls(header, vectors["narrow"], vectors["wide"], vectors["totals"])
