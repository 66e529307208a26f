"""How frames become bytes and back: what protobuf writes, without its copies of a chunk.

A model is chunks and little else, and protobuf would copy each three times at either end. The bytes are those of
``link.proto``; whatever is not the plain form of a chunk is left to protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.wire._generated.link_pb2 import Frame

SERVICE, METHOD = "keyong.link.v1.Link", "Attach"

_EXCHANGE, _CHUNK = 0x08, 0x22  # field 1 as a varint, field 4 as bytes
_VARINT_BYTES = 9  # 63 bits; a longer number is protobuf's to judge


@dataclass(frozen=True, slots=True)
class Chunk:
    """A frame that carries a piece of a body: ``Frame(exchange=…, chunk=…)`` that shares memory with the body."""

    exchange: int
    chunk: memoryview


def write_frame(frame: Frame | Chunk) -> bytes:
    """The bytes of a frame."""
    if isinstance(frame, Frame):
        return frame.SerializeToString()
    head = bytes((_EXCHANGE, *_varint(frame.exchange), _CHUNK, *_varint(len(frame.chunk))))
    return b"".join((head, frame.chunk))


def read_frame(data: bytes) -> Frame | Chunk:
    """The frame of these bytes; a chunk is a view of them.

    Raises:
        DecodeError: they are no frame (protobuf's own).
    """
    if len(data) > 2 and data[0] == _EXCHANGE:
        exchange, at = _number(data, 1)
        if at and at < len(data) and data[at] == _CHUNK:
            size, start = _number(data, at + 1)
            if start and start + size == len(data):
                return Chunk(exchange, memoryview(data)[start:])
    return Frame.FromString(data)


def _varint(number: int) -> list[int]:
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return [*digits, number]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends; 0 as the end where there is none of at most :data:`_VARINT_BYTES`."""
    value = 0
    for shift, digit in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (digit & 0x7F) << (7 * shift)
        if digit < 0x80:
            return value, at + shift + 1
    return 0, 0
