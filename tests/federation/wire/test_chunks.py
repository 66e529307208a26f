"""What a body's buffers become on the line: the same bytes, in pieces that a frame takes, the small ones together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import body
from federation.wire.body import CHUNK_BYTES, JOINED_BYTES, Buffer, chunks


@given(st.lists(st.integers(0, 300), max_size=12) | st.lists(st.integers(0, 50), max_size=12))
def test_no_byte_is_lost_or_moved(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(body, "CHUNK_BYTES", 100)
        patched.setattr(body, "JOINED_BYTES", 50)
        buffers = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        pieces = list(chunks(buffers))
    assert b"".join(pieces) == b"".join(buffers)
    assert all(0 < len(piece) <= 100 for piece in pieces)
    if max(sizes, default=0) <= 50:
        assert all(len(one) + len(two) > 50 for one, two in pairwise(pieces)), "two that fit go as one"


def test_small_buffers_go_together_and_large_ones_are_not_copied() -> None:
    large = bytearray(CHUNK_BYTES + 7)
    pieces = list(chunks([b"head", b"", memoryview(b"more"), large, bytes(JOINED_BYTES), b"end"]))
    assert [len(piece) for piece in pieces] == [8, CHUNK_BYTES, 7, JOINED_BYTES, 3]
    large[0] = 9
    assert pieces[1][0] == 9


def test_buffers_are_asked_for_one_by_one() -> None:
    """A file's is mapped only while it is being sent."""
    asked = []

    class Files(Sequence[Buffer]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Buffer:  # type: ignore[override]
            asked.append(index)
            return bytes(JOINED_BYTES + 1)

        def __iter__(self) -> Iterator[Buffer]:
            return (self[index] for index in range(3))

    pieces = chunks(Files())
    next(pieces)
    assert asked == [0]
