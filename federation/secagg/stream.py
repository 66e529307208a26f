"""Adds a reply to a sum while its bytes arrive."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from federation.secagg.errors import ReplyFormatError
from federation.secagg.reply import Buffer, reply_header, reply_parts

if TYPE_CHECKING:
    from federation.secagg.accumulator import Accumulator


class ReplyStream:
    """One reply on its way into an `Accumulator`: holds less than one element and a hash, never the vector.

    A broken connection may go on where it stopped (`position`). A stream that never ends must be given up with
    `abandon`, and the round with it, if any of it was added.
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        self._header = reply_header(accumulator.layout, accumulator.encoding)
        self._parts = reply_parts(accumulator.layout, accumulator.encoding)
        self._size = len(self._header) + sum(dtype.itemsize * size for _, dtype, size in self._parts)
        self._hash = hashlib.sha256()
        self._carry = b""
        self._closed = False
        self.position = 0
        """Bytes taken so far."""

    def feed(self, data: Buffer) -> None:
        """Take the next bytes.

        Raises:
            ReplyFormatError: they are not those of a reply of this layout.
            AggregateVoidError: the sum is spoilt.
        """
        view = memoryview(data).cast("B")
        if self._closed or self.position + len(view) > self._size:
            self._refuse("an encoded reply is longer than the plan fixes")
        self._hash.update(view)
        if self.position < len(self._header):
            head = view[: len(self._header) - self.position]
            if head != self._header[self.position : self.position + len(head)]:
                self._refuse("an encoded reply does not have the header that the plan fixes")
            self.position += len(head)
            view = view[len(head) :]
        start = self.position - len(self._carry)
        self.position += len(view)
        self._add(memoryview(self._carry + bytes(view)) if self._carry else view, start)

    def close(self, expected_digest: str | None = None) -> str:
        """End the reply and return the digest of its bytes.

        Args:
            expected_digest: what the node's receipt names as its output, where that is known already.

        Raises:
            ReplyFormatError: bytes are missing, or the digest is another; the sum is void.
        """
        digest = "sha256:" + self._hash.hexdigest()
        if self.position != self._size:
            self._refuse("an encoded reply ends before the length that the plan fixes")
        if expected_digest is not None and digest != expected_digest:
            self._refuse("an encoded reply is not the one that its node signed for")
        self._closed = True
        return digest

    def abandon(self) -> None:
        """Give the reply up. Where nothing of it was added yet, the sum is as it was; otherwise it is void."""
        if not self._closed and self.position - len(self._carry) > len(self._header):
            self._accumulator.void()
        self._closed = True

    def _add(self, view: memoryview, start: int) -> None:
        """Add ``view``, which holds the bytes from ``start`` on; keep what is less than an element."""
        begin = len(self._header)
        for part, dtype, size in self._parts:
            end = begin + size * dtype.itemsize
            if view and start < end:
                length = min(len(view), end - start)
                length -= length % dtype.itemsize
                self._accumulator.add_chunk(part, start - begin, view[:length])
                view, start = view[length:], start + length
                if start < end:
                    break
            begin = end
        self._carry = bytes(view)

    def _refuse(self, template: str) -> None:
        self.abandon()
        raise ReplyFormatError(template)
