"""Arrays made in the file that is lent for the answer: they stay what they were, and the answer is what it would be without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from federation.jobs import flower
from federation.jobs.answer_file import AnswerFile
from federation.jobs.codec import describe

LEAST = 4096
ROOM = 1 << 20


def made(seed: int, size: int = LEAST) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).view(np.float32)


def bytes_of(*arrays: Any) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def views(*arrays: Any) -> list[memoryview]:
    return [array.reshape(-1).view(np.uint8).data for array in arrays]


class Lent:
    """A lent file, and what is read of it by who lent it."""

    def __init__(self) -> None:
        self.own = os.memfd_create("lent")
        os.truncate(self.own, ROOM)
        self.file = AnswerFile(os.dup(self.own), LEAST)

    def begins_with(self, data: bytes) -> bool:
        return os.pread(self.own, len(data), 0) == data


@pytest.fixture
def lent() -> Iterator[Lent]:
    one = Lent()
    yield one
    one.file.close()
    os.close(one.own)


def test_arrays_that_are_answered_in_the_order_they_were_made_in_are_there_already(lent: Lent) -> None:
    source = [made(1), made(2, 12), made(3, 3 * LEAST).reshape(3, -1)]
    copies = [lent.file.store(array) for array in source]
    assert copies[1] is None  # short: only its place is kept
    assert copies[0] is not None and copies[2] is not None
    expected = bytes_of(*source)
    for array in source:
        array[...] = 0  # the app goes on with its own
    assert copies[2].shape == (3, 3 * LEAST // 12) and not copies[2].flags.writeable
    short = made(2, 12)
    assert lent.file.take(views(copies[0], short, copies[2]))
    assert lent.begins_with(expected)


def test_numbers_in_another_order_of_memory_are_copied_in_the_order_of_an_answer(lent: Lent) -> None:
    source = made(4, 4 * LEAST).reshape(64, -1)
    copy = lent.file.store(source.T)
    assert copy is not None
    assert bytes_of(copy) == bytes_of(source.T) and copy.flags.c_contiguous


@pytest.mark.parametrize("which", ["second alone", "other order", "over one that is kept"])
def test_nothing_that_was_stored_moves_or_is_written_over(lent: Lent, which: str) -> None:
    """The app may keep any of its records, for instance in its context until the next round."""
    source = [made(5), made(6)]
    one, two = (lent.file.store(array) for array in source)
    answers = {
        "second alone": views(two),
        "other order": views(two, one),
        "over one that is kept": views(one, made(7, LEAST)),
    }
    assert not lent.file.take(answers[which])
    assert one is not None and two is not None
    assert bytes_of(one, two) == bytes_of(*source)


def test_what_finds_no_room_is_left_to_its_maker(lent: Lent) -> None:
    assert lent.file.store(made(8, ROOM)) is not None
    assert lent.file.store(made(9)) is None
    assert lent.file.take(views(made(8, ROOM)[:10])) is False


def test_an_answer_that_holds_nothing_of_it_is_written(lent: Lent) -> None:
    data = made(10, 5 * LEAST)
    assert lent.file.take(views(data))
    assert lent.begins_with(bytes_of(data))


def _store(file: AnswerFile, answer: Any) -> None:
    answer.send(file.store(made(12)) is None)


def test_a_forked_process_does_not_write_into_its_parents_file(lent: Lent) -> None:
    copy = lent.file.store(made(11))
    context = get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_store, args=(lent.file, theirs))
    child.start()
    assert ours.recv()
    child.join()
    assert copy is not None and bytes_of(copy) == bytes_of(made(11))


def test_records_of_an_app_are_made_there(lent: Lent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "_stores", [lent.file.store])
    source = [made(13, 2 * LEAST), made(14, 8), np.zeros(LEAST, dtype=np.float64)]
    expected = bytes_of(*source)
    record = flower.ArrayRecord(source)
    source[0][:] = 0
    content, buffers = describe(flower.to_content(flower.RecordDict({"arrays": record})))
    assert lent.file.take(buffers)
    assert lent.begins_with(expected)
    again = next(iter(record.values())).numpy()
    again[:] = 1  # its reader's own
    assert lent.begins_with(expected)
    assert content["v"] == 1
