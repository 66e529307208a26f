"""What a job was answered, on disk: whole or not there, and under ``sum`` never of one company alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from coordinator.recording import FOLDER, INLINE_BYTES, JOURNAL, Answered, NotRecordedError, Recording, room_for
from coordinator.results import ResultFolder
from coordinator.tensors import safetensors_head
from federation.jobs import Content
from federation.secagg import Aggregate

DIGEST = "sha256:" + "1" * 64


def aggregate(size: int = 3, value: float = 0.1) -> Aggregate:
    array = np.full(size, value, dtype=np.float32)
    return Aggregate({"metrics": {"w": array}}, {"loss": float("nan"), "x": 1 / 3}, 600, 3, 2)


def answered(number: int, size: int = 3, **changes: Any) -> Answered:
    values: dict[str, Any] = {
        "stage": "train",
        "content": DIGEST,
        "contributed": ("a", "b"),
        "fallen": {"c": "link-lost"},
        "weights": {"a": 100, "b": 200},
        "entry": {"exchange": number, "round": number, "elapsed": 0.5, "total_weight": 600},
        "aggregate": aggregate(size),
    }
    return Answered(**{**values, **changes})


def recorded(folder: Path, count: int = 2, size: int = 3) -> Recording:
    recording = Recording(folder)
    recording.begin({"a": 11, "b": 7})
    for number in range(1, count + 1):
        recording.ask(number, "train", DIGEST, {"a": b"sealed-a", "b": b"sealed-b"})
        recording.answer(number, answered(number, size))
    recording.close()
    return recording


@pytest.mark.parametrize("size", [3, INLINE_BYTES])
def test_what_is_recorded_is_read_again_bit_by_bit(tmp_path: Path, size: int) -> None:
    recorded(tmp_path, 2, size)
    again = Recording(tmp_path)
    assert again.numbers == {"a": 11, "b": 7} and list(again.numbers) == ["a", "b"]
    assert again.answered == 2 and again.began and again.find(3) is None
    found = again.find(2)
    assert found is not None and found.aggregate is not None
    before = aggregate(size)
    assert found.aggregate.arrays["metrics"]["w"].tobytes() == before.arrays["metrics"]["w"].tobytes()
    assert np.isnan(found.aggregate.metrics["loss"]) and found.aggregate.metrics["x"] == 1 / 3
    assert (found.contributed, found.fallen, found.weights) == (("a", "b"), {"c": "link-lost"}, {"a": 100, "b": 200})
    assert [entry["exchange"] for entry in again.history()] == [1, 2]


def test_what_was_asked_and_not_answered_is_asked_again_as_it_was(tmp_path: Path) -> None:
    recording = recorded(tmp_path)
    recording.ask(3, "evaluate", DIGEST, {"a": b"first", "b": b"first"})
    recording.ask(3, "evaluate", DIGEST, {"b": b"second"})
    asked = Recording(tmp_path).pending(3)
    assert asked is not None and asked.invocations == {"a": b"first", "b": b"second"}
    assert Recording(tmp_path).pending(2) is None


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_end_is_cut_off_and_written_over(tmp_path: Path, cut: int) -> None:
    recorded(tmp_path)
    path = tmp_path / FOLDER / JOURNAL
    path.write_bytes(path.read_bytes()[:-cut])
    again = Recording(tmp_path)
    assert again.answered == 1 and again.pending(2) is not None
    again.answer(2, answered(2))
    assert Recording(tmp_path).answered == 2


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_what_a_failed_write_left_is_not_written_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    one = recorded(tmp_path, 1)
    real, calls = os.write, iter((True, False))

    def half(descriptor: int, data: memoryview) -> int:
        if next(calls):
            return real(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full")

    def unsynced(descriptor: int) -> None:
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as broken:
        broken.setattr(os, failing, half if failing == "write" else unsynced)
        with pytest.raises(OSError):
            one.answer(2, answered(2))
    assert one.answered == 1
    one.answer(2, answered(2))  # the same writer goes on once there is room
    assert one.find(2) is not None
    again = Recording(tmp_path)
    assert again.answered == 2 and again.find(2) is not None


def test_reading_takes_nothing_from_under_a_writer(tmp_path: Path) -> None:
    writer = Recording(tmp_path)
    writer.begin({"a": 11})
    path = tmp_path / FOLDER / JOURNAL
    with path.open("ab") as half:
        half.write(b"half a line, as a writer is seen in the middle of one")
        half.flush()
        size = path.stat().st_size
        assert Recording(tmp_path).numbers == {"a": 11}
        assert path.stat().st_size == size


def test_a_changed_line_ends_the_recording_there(tmp_path: Path) -> None:
    recorded(tmp_path, 3)
    path = tmp_path / FOLDER / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"a"', b'"z"', 1)
    path.write_bytes(b"".join(lines))
    assert Recording(tmp_path).answered == 1


def test_a_line_changed_while_it_is_read_is_no_answer(tmp_path: Path) -> None:
    recorded(tmp_path)
    again = Recording(tmp_path)
    path = tmp_path / FOLDER / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"train"', b'"tRain"'))
    with pytest.raises(NotRecordedError):
        again.find(1)


def test_a_recorded_aggregate_is_the_results_model(tmp_path: Path) -> None:
    recording = recorded(tmp_path, 1, INLINE_BYTES)
    result = ResultFolder(tmp_path)
    path = recording.model(1)
    assert path is not None and Recording(tmp_path / "other").model(1) is None
    for _ in range(2):  # told again after a resume: both are names of one file by then
        result.put_model(aggregate(INLINE_BYTES).arrays, path)
    model = tmp_path / "model.safetensors"
    assert model.stat().st_ino == path.stat().st_ino and not list((tmp_path / "partial").iterdir())
    recording.remove()
    assert load_file(model)["w"].tobytes() == aggregate(INLINE_BYTES).arrays["metrics"]["w"].tobytes()


@pytest.mark.parametrize("names", [("w",), ("metrics/a", "metrics%")])
def test_a_model_reads_alike_recorded_and_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    """What the safetensors package reads of our file, and of its own, is the same."""
    assert safetensors_head({"r": {"__metadata__": np.zeros(1)}}) is None
    arrays = {
        name: {
            "w": np.arange(20_000, dtype=np.float32).reshape(100, 200),
            "n": np.array(7, dtype=np.int64),
            "h": np.arange(5, dtype=np.float16),
            "t": np.array([True, False, True]),
            "e": np.zeros((0, 3), dtype=np.uint8),
        }
        for name in names
    }
    recording = Recording(tmp_path)
    recording.ask(1, "train", DIGEST, {})
    recording.answer(1, answered(1, aggregate=Aggregate(arrays, {}, 600, 3, 2)))
    path = recording.model(1)
    assert path is not None
    ResultFolder(tmp_path).put_model(arrays)
    ours, theirs = load_file(path), load_file(tmp_path / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (array.dtype, array.shape, array.tobytes()) == (ours[name].dtype, ours[name].shape, ours[name].tobytes())
    found = Recording(tmp_path).find(1)
    assert found is not None and found.aggregate is not None
    assert found.aggregate.arrays[names[0]]["w"].tobytes() == arrays[names[0]]["w"].tobytes()


def test_single_replies_are_kept_under_each(tmp_path: Path) -> None:
    replies = {
        "a": Content({"w": {"w": np.arange(3.0)}}, {"metrics": {"loss": 0.5}}),
        "b": Content({}, {"metrics": {"loss": 1.0}}),
    }
    recording = Recording(tmp_path)
    recording.ask(1, "train", DIGEST, {})
    recording.answer(1, answered(1, aggregate=None, replies=replies))
    found = Recording(tmp_path).find(1)
    assert found is not None and list(found.replies) == ["a", "b"]
    assert found.replies["a"].arrays["w"]["w"].tolist() == [0.0, 1.0, 2.0]
    assert found.replies["b"].metrics == {"metrics": {"loss": 1.0}}


def test_beyond_its_limit_a_recording_gives_back_its_room_and_the_job_goes_on(tmp_path: Path) -> None:
    recording = Recording(tmp_path, limit=2000)
    recording.begin({"a": 1})
    for number in range(1, 9):
        recording.ask(number, "train", DIGEST, {"a": bytes(400)})
        recording.answer(number, answered(number))
    assert recording.dropped and recording.size() == 0
    assert Recording(tmp_path).dropped and Recording(tmp_path).began


def test_the_oldest_recordings_make_room(tmp_path: Path) -> None:
    import os

    kept = []
    for number in range(3):
        (folder := tmp_path / str(number)).mkdir()
        kept.append(recorded(folder))
        os.utime(folder / FOLDER / JOURNAL, (number, number))
    room_for(kept, 2 * kept[0].size())
    assert [Recording(tmp_path / str(number)).dropped for number in range(3)] == [True, False, False]


def test_what_is_removed_leaves_nothing(tmp_path: Path) -> None:
    recorded(tmp_path, 1, INLINE_BYTES).remove()
    assert list(tmp_path.iterdir()) == []
