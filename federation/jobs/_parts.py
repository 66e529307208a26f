"""What the sessions of bilateral actions share: bodies made of several parts, errors that are codes, one loop."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping

from .frames import Buffer, Channel, FrameError
from .session import MAX_BODY

Operation = Callable[[Mapping[str, object], list[bytes]], tuple[dict[str, object], list[bytes]]]


class PartsError(ValueError):
    """What came is not what the operation takes; ``code`` says which rule it broke."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def parts_of(header: Mapping[str, object], body: Buffer) -> list[bytes]:
    """A body cut as its header says."""
    sizes = header.get("sizes", [])
    if not isinstance(sizes, list) or not all(isinstance(one, int) and one > 0 for one in sizes):
        raise PartsError("parts-size")
    if sum(sizes) != len(body):
        raise PartsError("parts-size")
    at, parts = 0, []
    for size in sizes:
        parts.append(bytes(body[at : at + size]))
        at += size
    return parts


def serve(channel: Channel, operations: Mapping[str, Operation], unread: str) -> None:
    """Answer frames until the channel closes.

    Args:
        unread: code of what a library could not make sense of.
    """
    while True:
        try:
            header, body = channel.receive(MAX_BODY)
        except FrameError as error:
            if error.code == "frame-closed":
                return
            raise
        try:
            told, parts = operations[str(header["op"])](header, parts_of(header, body))
        except PartsError as error:
            channel.send({"op": "error", "code": error.code})
        except Exception as error:
            traceback.print_exception(error)
            sys.stderr.flush()
            channel.send({"op": "error", "code": unread})
        else:
            channel.send({"op": "done", **told, "sizes": [len(part) for part in parts]}, parts)
