"""How much crossed a party's links."""

from __future__ import annotations

from dataclasses import dataclass

from federation.wire._generated.link_pb2 import Frame
from federation.wire.frame import Chunk, read_frame, write_frame


@dataclass
class Meter:
    """Bytes of frames that one process sent and received, all its links together; TLS comes on top."""

    sent: int = 0
    received: int = 0

    def write(self, frame: Frame | Chunk) -> bytes:
        """The bytes of a frame, counted."""
        data = write_frame(frame)
        self.sent += len(data)
        return data

    def read(self, data: bytes) -> Frame | Chunk:
        """The frame of these bytes, counted."""
        self.received += len(data)
        return read_frame(data)
