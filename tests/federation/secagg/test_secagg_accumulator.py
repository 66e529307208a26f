"""The running sum: replies streamed in any cut, and sums that cannot be what they claim are void."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.secagg import (
    Accumulator,
    AggregateVoidError,
    EncodedReply,
    Layout,
    ReplyFormatError,
    choose_encoding,
    encode,
    reply_bytes,
    reply_digest,
)
from federation.statements import MetricSpec, StageOutput

SENT = {"arrays": {"w": np.linspace(-1, 1, 37, dtype=np.float32), "k": np.array([3, 4], dtype=np.int64)}}
OUTPUT = StageOutput(sent=True, metrics=(MetricSpec(name="loss"),))
LAYOUT = Layout.derive(SENT, OUTPUT)
ENCODING = choose_encoding([(10, 100)] * 3)


def reply(seed: int, weight: int = 50) -> EncodedReply:
    random = np.random.default_rng(seed)
    arrays = {"arrays": {"w": SENT["arrays"]["w"] + random.normal(size=37).astype("f4"), "k": np.array([5, 9])}}
    content = SimpleNamespace(arrays=arrays, metrics={"metrics": {"loss": random.normal()}})
    return encode(content, SENT, LAYOUT, ENCODING, weight, 3)


def accumulator() -> Accumulator:
    return Accumulator(LAYOUT, ENCODING, 3)


def test_bytes_come_back_as_they_went() -> None:
    one = reply(1)
    for form in (one.to_buffers(), b"".join(one.to_buffers()), [b"".join(one.to_buffers())]):
        again = EncodedReply.from_buffers(form, LAYOUT, ENCODING)
        for name in ("narrow", "wide", "totals"):
            assert np.array_equal(getattr(one, name), getattr(again, name))
        assert again.digest() == one.digest() == reply_digest(one.to_buffers())
    assert sum(len(part) for part in one.to_buffers()) == reply_bytes(LAYOUT, ENCODING)
    assert len(one.header) % 64 == 0


def test_every_other_byte_string_is_refused() -> None:
    good = b"".join(reply(1).to_buffers())
    head = len(reply(1).header)
    for bad in (good[:-1], good + b"\0", b"", good[head:]):
        with pytest.raises(ReplyFormatError):
            EncodedReply.from_buffers(bad, LAYOUT, ENCODING)
    for position in range(head):
        with pytest.raises(ReplyFormatError):
            EncodedReply.from_buffers(
                good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :], LAYOUT, ENCODING
            )
    other = ENCODING.model_copy(update={"scale": "4"})
    with pytest.raises(ReplyFormatError):
        EncodedReply.from_buffers(good, LAYOUT, other)
    with pytest.raises(ReplyFormatError):
        Accumulator(LAYOUT, other, 3).add(reply(1))


@given(st.lists(st.integers(0, 200), min_size=1, max_size=30), st.integers(0, 2**16))
def test_any_cut_of_interleaved_streams_gives_the_same_sum(cuts: list[int], seed: int) -> None:
    whole = accumulator()
    whole.add(reply(1))
    whole.add(reply(2))
    total = accumulator()
    streams = [(total.stream(), b"".join(reply(n).to_buffers())) for n in (1, 2)]
    random = np.random.default_rng(seed)
    while any(stream.position < len(data) for stream, data in streams):
        stream, data = streams[int(random.integers(2))]
        size = cuts[int(random.integers(len(cuts)))] + 1
        stream.feed(data[stream.position : stream.position + size])
    for (stream, _), number in zip(streams, (1, 2), strict=True):
        assert stream.close(reply(number).digest()) == reply(number).digest()
    left, right = whole.finish(2, SENT), total.finish(2, SENT)
    assert np.array_equal(left.arrays["arrays"]["w"], right.arrays["arrays"]["w"])
    assert left.metrics == right.metrics
    assert right.total_weight == 100


@pytest.mark.parametrize("way", ["add", "stream", "masks"])
def test_what_lay_in_the_memory_before_is_in_no_sum(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are made in memory that held another round's, perhaps another job's."""

    def used(size: int, dtype: np.dtype[Any]) -> Any:
        return np.full(size, 77, dtype=dtype)

    monkeypatch.setattr("federation.secagg.accumulator.empty", used)
    total = accumulator()
    for seed in (1, 2, 3):
        if way == "stream":
            stream = total.stream()
            for buffer in reply(seed).to_buffers():
                stream.feed(buffer)
            stream.close(reply(seed).digest())
            continue
        if way == "masks" and seed == 1:
            total.add_masks([])
        total.add(reply(seed))
    monkeypatch.undo()
    other = accumulator()
    for seed in (3, 2, 1):
        other.add(reply(seed))
    found, expected = (one.finish(3, SENT) for one in (total, other))
    for name in ("w", "k"):
        assert np.array_equal(found.arrays["arrays"][name], expected.arrays["arrays"][name])
    assert found.metrics == expected.metrics


def test_nothing_opens_where_nothing_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    def used(size: int, dtype: np.dtype[Any]) -> Any:
        return np.ones(size, dtype=dtype)  # one reply of weight 1, if it were read

    monkeypatch.setattr("federation.secagg.accumulator.empty", used)
    with pytest.raises(AggregateVoidError):
        accumulator().finish(1, SENT)


def test_a_stream_that_breaks_off_spoils_the_sum_only_if_some_of_it_was_added() -> None:
    data = b"".join(reply(1).to_buffers())
    head = len(reply(1).header)
    total = accumulator()
    early = total.stream()
    early.feed(data[: head + 3])  # less than an element
    early.abandon()
    total.add(reply(2))
    assert total.finish(1, SENT).count == 1
    late = total.stream()
    late.feed(data[: head + 8])
    late.abandon()
    with pytest.raises(AggregateVoidError):
        total.finish(1, SENT)
    with pytest.raises(AggregateVoidError):
        total.add(reply(3))


def test_streams_refuse_what_is_too_short_too_long_of_another_layout_or_not_what_was_signed() -> None:
    data = b"".join(reply(1).to_buffers())
    total = accumulator()
    with pytest.raises(ReplyFormatError):
        total.stream().feed(b"\0" + data[1:])
    total.add(reply(2))
    assert total.finish(1, SENT).count == 1  # a wrong header added nothing
    for fed, digest in ((data[:-4], None), (data, "sha256:" + "0" * 64)):
        total = accumulator()
        stream = total.stream()
        stream.feed(fed)
        with pytest.raises(ReplyFormatError):
            stream.close(digest)
        with pytest.raises(AggregateVoidError):
            total.finish(1, SENT)
    total = accumulator()
    stream = total.stream()
    stream.feed(data)
    with pytest.raises(ReplyFormatError):
        stream.feed(b"\0")


def test_chunks_must_lie_on_elements() -> None:
    total = accumulator()
    for offset, data in ((1, b"\0" * 4), (0, b"\0" * 3), (-4, b"\0" * 4), (37 * 4, b"\0" * 4)):
        with pytest.raises(ReplyFormatError):
            total.add_chunk("narrow", offset, data)


def test_the_constant_one_must_open_to_the_number_of_survivors() -> None:
    total = accumulator()
    total.add(reply(1))
    total.add(reply(2))
    for count in (0, 1, 3, -1):
        with pytest.raises(AggregateVoidError):
            total.finish(count, SENT)
    assert total.finish(2, SENT).count == 2


def changed(one: EncodedReply, part: str, place: int, value: int) -> EncodedReply:
    vectors = {name: getattr(one, name).copy() for name in ("narrow", "wide", "totals")}
    vectors[part][place] = value
    return EncodedReply(one.header, **vectors)


@pytest.mark.parametrize(
    ("part", "place", "value"),
    [
        ("totals", 0, 2),  # counts itself twice
        ("totals", 0, 0),
        ("totals", 1, 101),  # claims more weight than any node may have
        ("totals", 1, 9),
        ("totals", 1, 2**64 - 5),
        ("totals", 2, 40),  # more saturated values than there are
        ("totals", 3, 2**62),
        ("wide", 1, 2**61),
        ("wide", 0, 2**63),
        ("narrow", 36, 2**30),  # as much as three nodes of the largest weight
        ("narrow", 0, 2**31),
    ],
)
def test_what_no_honest_replies_add_up_to_is_void(part: str, place: int, value: int) -> None:
    total = accumulator()
    total.add(changed(reply(1), part, place, value))
    with pytest.raises(AggregateVoidError):
        total.finish(1, SENT)


@pytest.mark.parametrize(
    ("dtype", "end", "step"),
    [("int64", 2**63 - 1, 1), ("int64", -(2**63), -1), ("uint64", 2**64 - 1, 1), ("uint64", 0, -1)],
)
def test_a_sum_made_to_run_over_the_end_of_a_type_stops_there(dtype: str, end: int, step: int) -> None:
    sent = {"a": {"k": np.array([end], dtype=dtype)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    honest = encode(SimpleNamespace(arrays=sent, metrics={}), sent, layout, ENCODING, 100, 3)
    total = Accumulator(layout, ENCODING, 3)
    total.add(changed(honest, "wide", 0, step * 2**50 % 2**64))
    assert int(total.finish(1, sent).arrays["a"]["k"][0]) == end


def test_a_mask_that_was_not_removed_is_void() -> None:
    random: Any = np.random.default_rng(7)
    one = reply(1)
    one.narrow[:] += random.integers(0, 2**32, size=37, dtype=np.uint32)
    total = accumulator()
    total.add(one)
    with pytest.raises(AggregateVoidError):
        total.finish(1, SENT)


def test_a_total_weight_of_zero_is_void() -> None:
    encoding = choose_encoding([(0, 10)])
    layout = Layout.derive({}, StageOutput(sent=False))
    total = Accumulator(layout, encoding, 1)
    total.add(encode(SimpleNamespace(arrays={}, metrics={}), {}, layout, encoding, 0, 1))
    with pytest.raises(AggregateVoidError):
        total.finish(1, {})


def test_memory_does_not_grow_with_the_number_of_replies() -> None:
    import tracemalloc

    sent = {"a": {"w": np.zeros(500_000, dtype=np.float32)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    one = encode(SimpleNamespace(arrays=sent, metrics={}), sent, layout, ENCODING, 50, 3)
    data = b"".join(one.to_buffers())
    tracemalloc.start()
    try:
        total = Accumulator(layout, ENCODING, 3)
        for _ in range(3):
            stream = total.stream()
            for start in range(0, len(data), 65_536):
                stream.feed(data[start : start + 65_536])
            stream.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < one.narrow.nbytes + 2**20
    assert total.finish(3, sent).count == 3
