"""Frames: lengths capped, headers strict, ends told apart."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.jobs import (
    HEAD_BYTES,
    MAX_HEADER_BYTES,
    Channel,
    FrameError,
    decode_head,
    encode_frame,
    encode_head,
    parse_header,
    result_path,
)
from federation.jobs.frames import ECHO, IN_FILE, ROOM


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    raw, other = socket.socketpair()
    other.settimeout(20)
    channel = Channel(other)
    yield raw, channel
    raw.close()
    channel.close()


@given(st.integers(0, MAX_HEADER_BYTES), st.integers(0, ECHO - 1), st.sampled_from([0, IN_FILE, ROOM, ECHO]))
def test_heads(header_len: int, body_len: int, marks: int):
    head = encode_head(header_len, body_len, marks)
    assert len(head) == HEAD_BYTES
    assert decode_head(head, body_len) == (header_len, body_len, marks)
    if body_len:
        with pytest.raises(FrameError, match="frame-body-too-large"):
            decode_head(head, body_len - 1)


def test_a_length_that_would_read_as_marks_is_not_written():
    with pytest.raises(FrameError, match="frame-body-too-large"):
        encode_head(0, ECHO)


def test_a_header_above_its_cap_is_refused_before_it_is_read():
    with pytest.raises(FrameError, match="frame-header-too-large"):
        decode_head((MAX_HEADER_BYTES + 1).to_bytes(4, "big") + bytes(8), 0)
    with pytest.raises(FrameError, match="frame-header-too-large"):
        encode_frame({"op": "x" * MAX_HEADER_BYTES})
    with pytest.raises(FrameError, match="frame-truncated"):
        decode_head(bytes(11), 0)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"{}", b'{"op":1}', b'{"op":"a","op":"b"}', b'{"op":"a","x":NaN}', b'{"op":"a","x":1e999}',
     b'{"op":"\xff"}', '{"op":"a"}'.encode("utf-16"), b'{"op":"a"} x', b'{"op":' + b"[" * 100_000,
     b'{"op":"a","x":' + b"1" * 5000 + b"}"],
)  # fmt: skip
def test_a_header_that_is_not_one_is_refused(raw: bytes):
    with pytest.raises(FrameError, match="frame-header"):
        parse_header(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_refused(raw: bytes):
    try:
        assert isinstance(parse_header(raw)["op"], str)
    except FrameError as error:
        assert error.code == "frame-header"


@given(st.binary(max_size=80))
def test_any_stream_is_frames_or_refused(stream: bytes):
    raw, other = socket.socketpair()
    channel = Channel(other)
    raw.sendall(stream)
    raw.close()
    try:
        while True:
            channel.receive(64)
    except FrameError as error:
        assert error.code.startswith("frame-")
    finally:
        channel.close()


def test_large_and_small_buffers_arrive_in_order(ends: tuple[socket.socket, Channel]):
    raw, channel = ends
    parts = [bytes([number % 251]) * size for number, size in enumerate([1, 0, 70_000, 3, 200_000, 65_535, 65_536, 5])]
    sender = threading.Thread(target=Channel(raw.dup()).send, args=({"op": "x", "名": [1, 2.5, None]}, parts))
    sender.start()
    header, body = channel.receive(2**20)
    sender.join()
    assert header == {"op": "x", "名": [1, 2.5, None]}
    assert body == b"".join(parts)
    assert not body.readonly


def test_an_end_between_frames_is_told_from_one_within(ends: tuple[socket.socket, Channel]):
    raw, channel = ends
    frame = b"".join(encode_frame({"op": "x"}, [b"body"]))
    raw.sendall(frame + frame[:-1])
    raw.shutdown(socket.SHUT_WR)
    assert channel.receive(4) == ({"op": "x"}, b"body")
    with pytest.raises(FrameError, match="frame-truncated"):
        channel.receive(4)
    with pytest.raises(FrameError, match="frame-closed"):
        channel.receive(4)


def test_a_claimed_length_alone_is_refused(ends: tuple[socket.socket, Channel]):
    raw, channel = ends
    raw.sendall(encode_head(2, 101))
    with pytest.raises(FrameError, match="frame-body-too-large"):
        channel.receive(100)


@pytest.mark.parametrize("path", ["model.pt", "a/b/c.bin", "轧制.json", ".hidden", "a..b"])
def test_result_paths(path: str):
    assert str(result_path(path)) == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\nb", "a\0b", "\ud800", "x" * 1025,
     5, None, "a\u202eb"],
)  # fmt: skip
def test_inv3_a_result_path_stays_below_its_folder(path: Any):
    with pytest.raises(FrameError, match="frame-path"):
        result_path(path)
