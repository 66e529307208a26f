"""Memory that is kept for the next vector of its size: never while anything refers to it, and never for good."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from federation import pages as module
from federation.pages import LEAST_BYTES, KeptPages, empty


def test_what_nobody_refers_to_serves_the_next_of_its_size() -> None:
    kept = KeptPages()
    first = kept.take(LEAST_BYTES)
    where = first.ctypes.data
    second = kept.take(LEAST_BYTES)
    assert second.ctypes.data != where
    del first
    other = kept.take(LEAST_BYTES + 1)
    assert other.ctypes.data != where
    assert kept.take(LEAST_BYTES).ctypes.data == where


Bytes = NDArray[np.uint8]


@pytest.mark.parametrize(
    "hold",
    [
        lambda taken: taken.view(np.uint32),
        lambda taken: taken.view(np.uint32)[3:9].reshape(2, 3),
        lambda taken: memoryview(taken).toreadonly()[5:],
        lambda taken: np.frombuffer(memoryview(taken), dtype=np.uint8, count=4),
    ],
    ids=["view", "slice", "memoryview", "frombuffer"],
)
def test_nothing_is_given_out_again_while_a_view_of_it_lives(hold: Callable[[Bytes], Any]) -> None:
    kept = KeptPages()
    taken = kept.take(LEAST_BYTES)
    taken[:] = 7
    held = hold(taken)
    del taken
    gc.collect()
    assert kept.kept == 0
    kept.take(LEAST_BYTES)[:] = 1
    assert set(memoryview(held).tobytes()) == {7}
    before = kept.kept
    del held
    assert kept.kept == before + LEAST_BYTES


def test_no_more_is_kept_than_it_may_and_all_of_it_is_let_go() -> None:
    kept = KeptPages(2 * LEAST_BYTES)
    taken = [kept.take(LEAST_BYTES) for _ in range(3)]
    taken.clear()
    assert kept.kept == 2 * LEAST_BYTES
    kept.let_go()
    assert kept.kept == 0


def test_who_can_do_without_gets_so_much_and_some_again_once_others_are_gone() -> None:
    kept = KeptPages()
    needed = kept.take(LEAST_BYTES)  # is not counted with those
    taken = [kept.spare(LEAST_BYTES, 2 * LEAST_BYTES) for _ in range(2)]
    assert all(one is not None for one in taken)
    assert kept.spare(LEAST_BYTES, 2 * LEAST_BYTES) is None
    taken.pop()
    assert kept.spare(LEAST_BYTES, 2 * LEAST_BYTES) is not None
    assert needed.nbytes == LEAST_BYTES


def test_a_machine_that_gives_none_is_told_to_who_needs_it_and_spared_who_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(_: int) -> object:
        raise MemoryError

    monkeypatch.setattr(module, "_mapped", none)
    kept = KeptPages()
    assert kept.spare(LEAST_BYTES, LEAST_BYTES) is None
    with pytest.raises(MemoryError):
        kept.take(LEAST_BYTES)


def test_small_vectors_and_none_at_all_are_plain_ones() -> None:
    assert empty(3, np.uint32).shape == (3,)
    assert empty(0, np.uint64).shape == (0,)
    assert empty(LEAST_BYTES // 8, np.uint64).nbytes == LEAST_BYTES
