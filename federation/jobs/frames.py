"""Frames on the channel between a trusted process and its sandbox session.

A frame is ``u32be header length | u64be body length | header (UTF-8 JSON object with "op") | body``. The trusted side
reads what user code may have written: lengths are capped before a byte is awaited, and a header is parsed strictly.
Standard library and numpy only, and no import of flwr: trusted processes use this module.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import numpy as np

from . import _json

HEAD_BYTES = 12
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_PATH_BYTES = 1024
_HEAD = struct.Struct(">IQ")
_JOIN_BELOW = 64 * 1024  # a model has many small arrays: one system call for each would dominate

Buffer = bytes | bytearray | memoryview


class FrameError(ValueError):
    """What came over the channel is not a frame; ``code`` says which rule it broke.

    Codes: ``frame-closed`` (the other side is gone, between two frames), ``frame-truncated``,
    ``frame-header-too-large``, ``frame-body-too-large``, ``frame-header``, ``frame-path``.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def encode_head(header_len: int, body_len: int) -> bytes:
    """Return the 12 bytes that go before a header and a body of these lengths."""
    if header_len > MAX_HEADER_BYTES:
        raise FrameError("frame-header-too-large")
    return _HEAD.pack(header_len, body_len)


def decode_head(head: Buffer, max_body: int) -> tuple[int, int]:
    """Return (header length, body length), both within their caps.

    Raises:
        FrameError: not 12 bytes, or a length is above its cap.
    """
    if len(head) != HEAD_BYTES:
        raise FrameError("frame-truncated")
    header_len, body_len = _HEAD.unpack(head)
    if header_len > MAX_HEADER_BYTES:
        raise FrameError("frame-header-too-large")
    if body_len > max_body:
        raise FrameError("frame-body-too-large")
    return header_len, body_len


def parse_header(raw: Buffer) -> dict[str, object]:
    """Return a frame's header: a JSON object whose ``op`` is a string.

    Raises:
        FrameError: it is anything else.
    """
    try:
        header = _json.read(raw)
    except ValueError:
        raise FrameError("frame-header") from None
    if not isinstance(header, dict) or not isinstance(header.get("op"), str):
        raise FrameError("frame-header")
    return header


def encode_frame(header: Mapping[str, object], buffers: Iterable[Buffer] = ()) -> list[Buffer]:
    """Return a frame as buffers to be written in this order; bodies are not copied."""
    body = [memoryview(buffer).cast("B") for buffer in buffers]
    raw = _json.write(header)
    return [encode_head(len(raw), sum(len(buffer) for buffer in body)), raw, *body]


def result_path(path: object) -> PurePosixPath:
    """Return the relative path of a result file, fit to be joined below a folder.

    Raises:
        FrameError: it is absolute, climbs, is not in normal form, holds a control character or is too long.
    """
    if not isinstance(path, str) or not path.isprintable() or "\\" in path:
        raise FrameError("frame-path")
    pure = PurePosixPath(path)
    if not 0 < len(path.encode()) <= MAX_PATH_BYTES or str(pure) != path or pure.is_absolute():
        raise FrameError("frame-path")
    if ".." in pure.parts or not pure.parts:
        raise FrameError("frame-path")
    return pure


class Channel:
    """A blocking reader and writer of frames on a connected stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, header: Mapping[str, object], buffers: Iterable[Buffer] = ()) -> None:
        """Write one frame."""
        small = bytearray()
        for buffer in encode_frame(header, buffers):
            if len(buffer) < _JOIN_BELOW:
                small += buffer
            if len(buffer) >= _JOIN_BELOW or len(small) >= _JOIN_BELOW:
                self._socket.sendall(small)
                small.clear()
            if len(buffer) >= _JOIN_BELOW:
                self._socket.sendall(buffer)
        self._socket.sendall(small)

    def receive(self, max_body: int) -> tuple[dict[str, object], memoryview]:
        """Read one frame; the body is a writable view that nothing else holds.

        Raises:
            FrameError: ``frame-closed`` where the other side closed between two frames; else what is wrong.
        """
        head = bytearray(HEAD_BYTES)
        self._fill(memoryview(head), "frame-closed")
        header_len, body_len = decode_head(head, max_body)
        raw = bytearray(header_len)
        self._fill(memoryview(raw), "frame-truncated")
        header = parse_header(raw)
        # np.empty takes no memory until bytes arrive: a claimed length alone costs nothing
        body = np.empty(body_len, dtype=np.uint8).data if body_len else memoryview(bytearray())
        self._fill(body, "frame-truncated")
        return header, body

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _fill(self, view: memoryview, at_end: str) -> None:
        done = 0
        while done < len(view):
            count = self._socket.recv_into(view[done:])
            if not count:
                raise FrameError(at_end if not done else "frame-truncated")
            done += count
