"""Frames on the channel between a trusted process and its sandbox session.

A frame is ``u32be header length | u64be body length | header (UTF-8 JSON object with "op") | body``. The trusted side
reads what user code may have written: lengths are capped before a byte is awaited, and a header is parsed strictly.

A large body need not cross the socket: it lies in a memory file (memfd) that comes with the head, or in one that was lent
for it. Two bits of the body length say so: `IN_FILE`, and `ROOM` where a file is lent for the answer. The trusted side
alone makes such files: what it sends in one is sealed against every change, what it lends has a fixed size, and is sealed
once the answer is in it, before a byte of that is read. A body that is the one in the file received last, byte by byte,
need not be written again: `ECHO` says so, and the trusted side takes what it sent, where it takes such bodies at all.

Standard library and numpy only, and no import of flwr: trusted processes use this module.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _json
from .answer_file import AnswerFile

HEAD_BYTES = 12
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_PATH_BYTES = 1024
_HEAD = struct.Struct(">IQ")
IN_FILE, ROOM, ECHO = 1 << 63, 1 << 62, 1 << 61
FILE_FROM = 1024 * 1024
"""Bodies from this size on travel in a file where they can."""
_COMPARED = 256 * 1024  # bytes at once: what comparing takes stays in a core's cache
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


def encode_head(header_len: int, body_len: int, marks: int = 0) -> bytes:
    """Return the 12 bytes that go before a header and a body of these lengths; ``marks`` are of `IN_FILE`, `ROOM` and `ECHO`."""
    if header_len > MAX_HEADER_BYTES:
        raise FrameError("frame-header-too-large")
    if body_len >= ECHO:  # its bits would be read as marks
        raise FrameError("frame-body-too-large")
    return _HEAD.pack(header_len, body_len | marks)


def decode_head(head: Buffer, max_body: int) -> tuple[int, int, int]:
    """Return (header length, body length, marks), both lengths within their caps.

    Raises:
        FrameError: not 12 bytes, or a length is above its cap.
    """
    if len(head) != HEAD_BYTES:
        raise FrameError("frame-truncated")
    header_len, body_len = _HEAD.unpack(head)
    if header_len > MAX_HEADER_BYTES:
        raise FrameError("frame-header-too-large")
    marks = body_len & (IN_FILE | ROOM | ECHO)
    body_len ^= marks
    if body_len > max_body:
        raise FrameError("frame-body-too-large")
    return header_len, body_len, marks


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


def encode_frame(
    header: Mapping[str, object],
    buffers: Iterable[Buffer] = (),
    *,
    in_file: int = 0,
    room: bool = False,
    echo: bool = False,
) -> list[Buffer]:
    """Return a frame as buffers to be written in this order; bodies are not copied.

    Args:
        in_file: length of a body that lies in a file, in place of ``buffers``.
        room: whether a file is lent for the answer.
        echo: whether that file is the one that was received last.
    """
    body = [memoryview(buffer).cast("B") for buffer in buffers]
    raw = _json.write(header)
    marks = (ECHO if echo else IN_FILE if in_file else 0) | (ROOM if room else 0)
    return [encode_head(len(raw), in_file or sum(len(buffer) for buffer in body), marks), raw, *body]


def write_file(descriptor: int, buffers: Iterable[Buffer]) -> int:
    """Write buffers one after another from the file's beginning; returns how many bytes they were."""
    at = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while view:
            done = os.pwrite(descriptor, view, at)
            view, at = view[done:], at + done
    return at


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


class Received(mmap.mmap):
    """A body that came in a file, read-only, and a second time for whoever wants to change it.

    What is changed is the session's own copy of those pages; a page that is only read costs nothing.
    """

    spare: mmap.mmap
    _taken: set[int]

    @classmethod
    def of(cls, descriptor: int, size: int) -> Received:
        """The first ``size`` bytes of a sealed file."""
        # Private: before Linux 6.7 a sealed file cannot be mapped shared, not even for reading.
        received = cls(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        received.spare = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE)
        received._taken = set()
        return received

    def take(self, start: int, size: int) -> memoryview | None:
        """Bytes of the body that the taker may change and nobody else is given; None where they were given before."""
        if start in self._taken:
            return None
        self._taken.add(start)
        return memoryview(self.spare)[start : start + size]


class Channel:
    """A blocking reader and writer of frames on a connected stream socket: the session's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._room: AnswerFile | None = None
        self._answered: AnswerFile | None = None
        self._received: Received | None = None
        self._echoes = False

    def echo(self) -> None:
        """From now on keep the file received last, and do not write a body again that is the same."""
        self._echoes = True

    def send(self, header: Mapping[str, object], buffers: Iterable[Buffer] = ()) -> None:
        """Write one frame; its body goes into the file that was lent last, where it is large and fits."""
        small = bytearray()
        for buffer in self._encode(header, [memoryview(buffer).cast("B") for buffer in buffers]):
            if len(buffer) < _JOIN_BELOW:
                small += buffer
            if len(buffer) >= _JOIN_BELOW or len(small) >= _JOIN_BELOW:
                self._socket.sendall(small)
                small.clear()
            if len(buffer) >= _JOIN_BELOW:
                self._socket.sendall(buffer)
        self._socket.sendall(small)

    def _encode(self, header: Mapping[str, object], buffers: list[memoryview]) -> list[Buffer]:
        size = sum(len(buffer) for buffer in buffers)
        if self._received is not None and _same(self._received, buffers, size):
            return encode_frame(header, in_file=size, echo=True)
        if self._room is None or not FILE_FROM <= size <= self._room.size:
            return encode_frame(header, buffers)
        frame = encode_frame(header, in_file=size)  # raises before anything is written
        if not self._room.take(buffers):
            return encode_frame(header, buffers)
        # Kept open until the next is lent: who looks at this session from outside sees by it what the file really holds.
        self._answered, self._room = self._room, None
        return frame

    def receive(self, max_body: int) -> tuple[dict[str, object], memoryview]:
        """Read one frame; nothing else writes into its body, which is a view of `Received` where it came in a file.

        Raises:
            FrameError: ``frame-closed`` where the other side closed between two frames; else what is wrong.
        """
        head, files = self._head()
        header_len, body_len, marks = decode_head(head, max_body)
        if len(files) != bool(marks & IN_FILE) + bool(marks & ROOM):
            raise FrameError("frame-truncated")
        if marks & ROOM:
            self._let_go()
            self._room = AnswerFile(files.pop(), FILE_FROM)
        raw = bytearray(header_len)
        self._fill(memoryview(raw), "frame-truncated")
        header = parse_header(raw)
        if marks & IN_FILE:
            try:
                self._received = None  # the file before is given back first
                received = Received.of(files[0], body_len)
                if self._echoes:
                    self._received = received
                return header, memoryview(received)
            finally:
                os.close(files[0])
        # np.empty takes no memory until bytes arrive: a claimed length alone costs nothing
        body = np.empty(body_len, dtype=np.uint8).data if body_len else memoryview(bytearray())
        self._fill(body, "frame-truncated")
        return header, body

    def store(self, numbers: NDArray[Any]) -> NDArray[Any] | None:
        """A read-only copy of an array in the file that was lent for the answer; None where there is no place for it."""
        return self._room.store(numbers) if self._room is not None else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _let_go(self) -> None:
        for room in (self._answered, self._room):
            if room is not None:
                room.close()
        self._answered = self._room = None

    def _head(self) -> tuple[bytes, list[int]]:
        head, files = b"", list[int]()
        while len(head) < HEAD_BYTES:
            piece, more, _, _ = socket.recv_fds(self._socket, HEAD_BYTES - len(head), 2, socket.MSG_CMSG_CLOEXEC)
            if not piece:
                raise FrameError("frame-truncated" if head else "frame-closed")
            head, files = head + piece, files + more
        return head, files

    def _fill(self, view: memoryview, at_end: str) -> None:
        done = 0
        while done < len(view):
            count = self._socket.recv_into(view[done:])
            if not count:
                raise FrameError(at_end if not done else "frame-truncated")
            done += count


def _same(received: mmap.mmap, buffers: list[memoryview], size: int) -> bool:
    """Tell whether buffers hold byte by byte what was received."""
    if len(received) != size:
        return False
    known, at = np.frombuffer(received, dtype=np.uint8), 0
    for buffer in buffers:
        own = np.frombuffer(buffer, dtype=np.uint8)
        if own.ctypes.data == known.ctypes.data + at:  # it lies there itself, and nobody can write to it
            at += len(own)
            continue
        for start in range(0, len(own), _COMPARED):
            piece = own[start : start + _COMPARED]
            if not np.array_equal(piece, known[at : at + len(piece)]):
                return False
            at += len(piece)
    return True
