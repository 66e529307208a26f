"""Frames as bytes: exactly protobuf's, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from federation.wire._generated.link_pb2 import Cancel, Fault, Frame, Head
from federation.wire.frame import Chunk, read_frame, write_frame


@given(some.integers(1, 2**63 - 1), some.binary(max_size=300))
def test_a_chunk_is_written_as_protobuf_writes_it(number: int, data: bytes) -> None:
    assert write_frame(Chunk(number, memoryview(data))) == _protobuf(number, data)


@given(some.integers(0, 2**64 - 1), some.binary(max_size=300))
def test_a_chunk_of_protobuf_is_read(number: int, data: bytes) -> None:
    read = read_frame(_protobuf(number, data))
    assert (read.exchange, bytes(read.chunk)) == (number, data)


def test_a_chunk_shares_the_memory_of_its_frame() -> None:
    read = read_frame(_protobuf(3, b"piece" * 1000))
    assert isinstance(read, Chunk)
    assert isinstance(read.chunk.obj, bytes) and len(read.chunk.obj) > len(read.chunk)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(exchange=1, open=Head(method="m", header=b"{}", body_bytes=7)),
        Frame(exchange=200, reply=Head(header=b"x")),
        Frame(exchange=3, fault=Fault(code="busy", params={"exit": "5"})),
        Frame(exchange=5, cancel=Cancel()),
        Frame(exchange=9),
        Frame(),
    ],
)
def test_other_frames_are_protobufs_own(frame: Frame) -> None:
    assert read_frame(write_frame(frame)) == frame


@given(some.binary(max_size=40))
def test_what_is_no_plain_chunk_is_left_to_protobuf(data: bytes) -> None:
    try:
        expected = Frame.FromString(data)
    except Exception as error:
        with pytest.raises(type(error)):
            read_frame(data)
        return
    read = read_frame(data)
    if isinstance(read, Chunk):
        assert (read.exchange, bytes(read.chunk)) == (expected.exchange, expected.chunk)
        assert expected.WhichOneof("part") == "chunk"
    else:
        assert read == expected


@pytest.mark.parametrize("tail", [b"\x22\x05abc", b"\x22\x02abc", b"\x22\x80", b"\x22", b"\x80" * 12])
def test_a_chunk_whose_length_lies_is_no_chunk(tail: bytes) -> None:
    data = b"\x08\x03" + tail
    try:
        read: Frame | Chunk | None = read_frame(data)
    except Exception as error:
        assert "Decode" in type(error).__name__
        read = None
    assert not isinstance(read, Chunk)


def _protobuf(number: int, data: bytes) -> bytes:
    raw: bytes = Frame(exchange=number, chunk=data).SerializeToString()
    return raw
