"""An aggregate decoded into a file is the one decoded into memory, and its bytes are those of its content."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coordinator.aggregate_file import AggregateFile, arrays_bytes
from federation.jobs.codec import Content, describe
from federation.secagg import Accumulator, AggregateVoidError, Layout, choose_encoding, decoding, encode
from federation.statements import ArraySpec, StageOutput
from federation.wire.memory_file import file_of

RANDOM = np.random.default_rng(1)
SENT: dict[str, dict[str, Any]] = {
    "model": {"w": RANDOM.normal(size=(300, 400)).astype("f4"), "n": np.array(3), "none": np.zeros((0, 2), "f4")},
    "more": {"h": np.ones(5, dtype="f2"), "mask": np.array([True, False])},
}
# Declared after what was sent, and for a record that was sent: in the content it stands with that record.
OUTPUT = StageOutput(sent=True, arrays=(ArraySpec(record="model", name="extra", dtype="float64", shape=(7,)),))
LAYOUT = Layout.derive(SENT, OUTPUT)


def summed() -> Accumulator:
    encoding = choose_encoding([(10, 10)] * 2)
    total = Accumulator(LAYOUT, encoding, 2)
    for step in (1, 2):
        arrays = {
            record: {name: (array + step).astype(array.dtype) for name, array in entries.items()}
            for record, entries in SENT.items()
        }
        arrays["model"]["extra"] = np.linspace(0, step, 7)
        total.add(encode(SimpleNamespace(arrays=arrays, metrics={}), SENT, LAYOUT, encoding, 10, 2))
    return total


def test_the_file_holds_what_memory_would_and_in_the_order_of_its_content() -> None:
    total = summed()
    plain, file = total.finish(2, SENT), AggregateFile(LAYOUT)
    filed = total.finish(2, SENT, file)
    assert {record: list(entries) for record, entries in filed.arrays.items()} == {
        "model": ["w", "n", "none", "extra"],
        "more": ["h", "mask"],
    }
    for record, entries in plain.arrays.items():
        for name, array in entries.items():
            found = filed.arrays[record][name]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
    _, buffers = describe(Content(filed.arrays))
    assert file.body is not None and file.body == b"".join(bytes(part) for part in buffers)
    assert len(file.body) == arrays_bytes(LAYOUT)
    assert file_of([file.body]) is not None


def test_nobody_can_change_it_afterwards() -> None:
    file = AggregateFile(LAYOUT)
    arrays = summed().finish(2, SENT, file).arrays
    with pytest.raises(ValueError, match="read-only"):
        arrays["model"]["w"][0] = 1


def test_several_threads_decode_what_one_does_and_fail_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    total, file = summed(), AggregateFile(LAYOUT)
    plain = total.finish(2, SENT)
    monkeypatch.setattr(decoding, "_RUN", 1000)
    filed = total.finish(2, SENT, file)
    np.testing.assert_array_equal(filed.arrays["model"]["w"], plain.arrays["model"]["w"])
    np.testing.assert_array_equal(filed.arrays["more"]["mask"], plain.arrays["more"]["mask"])
    total._sums["narrow"][-1] = 2**31 - 1  # no sum of two honest replies
    with pytest.raises(AggregateVoidError):
        total.finish(2, SENT, AggregateFile(LAYOUT))
