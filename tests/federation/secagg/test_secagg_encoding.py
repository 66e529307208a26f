"""Encoding and adding replies: the sum is exact, its mean is within the stated precision, nothing wraps or hides."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import UsageError
from federation.secagg import (
    Accumulator,
    EncodedReply,
    EncodingError,
    Layout,
    WeightError,
    check_encoding,
    choose_encoding,
    clip_difference,
    encode,
)
from federation.statements import ArraySpec, Encoding, MetricSpec, StageOutput

LOSS = MetricSpec(name="loss", minimum="0", maximum="100")
OUTPUT = StageOutput(sent=True, metrics=(LOSS,))


@dataclass
class Reply:
    arrays: dict[str, dict[str, np.ndarray[Any, Any]]]
    metrics: dict[str, dict[str, float]] = field(default_factory=lambda: {"metrics": {"loss": 1.0}})


def single(values: Any, dtype: str = "float32") -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    return {"arrays": {"w": np.asarray(values, dtype=dtype)}}


def encoding_of(ring: str = "z32", n: int = 4, **changes: Any) -> Encoding:
    base = choose_encoding([(1 if ring == "z32" else 0, 1000)] * n)
    assert base.ring == ring
    return base.model_copy(update=changes)


def signed(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return vector.view(np.int32 if vector.itemsize == 4 else np.int64)


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "uint64", "bool"])


@settings(max_examples=settings.default.max_examples // 2)
@given(st.data())
def test_the_sum_is_exact_and_the_mean_within_its_bound(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 64))
    ring = data.draw(st.sampled_from(["z32", "z64"]))
    kinds = data.draw(st.lists(st.tuples(dtypes, shapes), min_size=1, max_size=4))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = [int(w) for w in random.integers(1, 1001, size=n)]
    encoding = encoding_of(ring, n)

    def draw(dtype: str, shape: tuple[int, ...], spread: float) -> np.ndarray[Any, Any]:
        values = random.uniform(-spread, spread, size=shape)
        return np.asarray(np.abs(values) if dtype in ("uint8", "uint64", "bool") else values).astype(dtype)

    sent = {"arrays": {str(i): draw(dtype, shape, 100) for i, (dtype, shape) in enumerate(kinds)}}
    layout = Layout.derive(sent, OUTPUT)
    total = Accumulator(layout, encoding, n)
    narrow = np.zeros(layout.narrow_size, dtype=object)
    replies = []
    for weight in weights:
        arrays = {
            name: (
                (array + draw(array.dtype.name, array.shape, 3)).astype(array.dtype)
                if array.dtype.kind == "f"
                else draw(array.dtype.name, array.shape, 100)
            )
            for name, array in sent["arrays"].items()
        }
        reply = Reply({"arrays": arrays}, {"metrics": {"loss": float(random.uniform(0, 100))}})
        encoded = encode(reply, sent, layout, encoding, weight, n)
        assert encoded.saturated == 0
        narrow = narrow + signed(encoded.narrow).astype(object)
        total.add(encoded)
        replies.append(reply)
    aggregate = total.finish(n, sent)

    assert signed(total._sums["narrow"]).astype(object).tolist() == narrow.tolist()  # no wrap: equal as integers
    weight_sum = sum(weights)
    unit = float(encoding.scale) * encoding.weight_maximum / weight_sum / 2.0**encoding.fraction_bits
    for name, base in sent["arrays"].items():
        exact = sum(
            w * r.arrays["arrays"][name].astype(np.longdouble) for w, r in zip(weights, replies, strict=True)
        ) / np.longdouble(weight_sum)
        got = aggregate.arrays["arrays"][name]
        assert (got.dtype, got.shape) == (base.dtype, base.shape)
        error = np.abs(got.astype(np.longdouble) - exact)
        if base.dtype.kind == "f":
            allowed = n * unit / 2 + np.spacing(np.abs(got)).astype(np.longdouble) / 2 + 1e-12
        else:
            allowed = np.longdouble(0.5 + 1e-6)
        assert np.all(error <= allowed)
    mean_loss = sum(w * r.metrics["metrics"]["loss"] for w, r in zip(weights, replies, strict=True)) / weight_sum
    assert aggregate.metrics["loss"] == pytest.approx(mean_loss, rel=1e-12)
    assert (aggregate.total_weight, aggregate.count, aggregate.saturated) == (weight_sum, n, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_the_extremes_of_every_node_do_not_wrap(n: int) -> None:
    for ring in ("z32", "z64"):
        encoding = encoding_of(ring, n)
        sent = single(np.zeros(3))
        layout = Layout.derive(sent, OUTPUT)
        total = Accumulator(layout, encoding, n)
        for _ in range(n):
            total.add(encode(Reply(single([9.0, -9.0, 8.0])), sent, layout, encoding, 1000, n))
        aggregate = total.finish(n, sent)
        assert aggregate.arrays["arrays"]["w"].tolist() == [8.0, -8.0, 8.0]
        assert aggregate.saturated == 2 * n  # 8 is the bound itself


def test_one_bit_more_than_fits_is_refused() -> None:
    for ring in ("z32", "z64"):
        limit = 30 if ring == "z32" else 48
        n = 1 if ring == "z32" else 2**14
        check_encoding(encoding_of(ring, 1, fraction_bits=limit), n)
        with pytest.raises(EncodingError):
            check_encoding(encoding_of(ring, 1, fraction_bits=limit), n * 2)
    for bad in ({"scale": "0"}, {"scale": "-1"}, {"clip": "0"}, {"weight_minimum": 2000}):
        with pytest.raises(EncodingError):
            check_encoding(encoding_of(**bad), 4)
    sent = single([1.0])
    layout = Layout.derive(sent, OUTPUT)
    with pytest.raises(EncodingError):
        encode(Reply(sent), sent, layout, encoding_of(n=4), 10, 8)
    with pytest.raises(EncodingError):
        Accumulator(layout, encoding_of(n=4), 8)


def test_a_weight_outside_the_plan_is_refused() -> None:
    encoding = encoding_of(weight_minimum=10, weight_maximum=20)
    sent = single([1.0])
    layout = Layout.derive(sent, OUTPUT)
    for weight in (10, 20):
        encode(Reply(single([1.0])), sent, layout, encoding, weight, 4)
    for weight in (9, 21, 0, -10):
        with pytest.raises(WeightError) as refused:
            encode(Reply(single([1.0])), sent, layout, encoding, weight, 4)
        assert refused.value.code == "encoding-weight"
        assert str(weight) not in refused.value.message.split()


@pytest.mark.parametrize(
    ("rows", "ring", "bits"),
    [
        ([(1000, 1100)] * 4, "z32", 28),
        ([(1, 1024)], "z32", 30),
        ([(1, 1025)], "z64", 40),
        ([(0, 10), (10, 11)], "z64", 40),
        ([(1, 1), (10**9, 10**9)], "z64", 40),
        ([(10, 11)] * 3, "z32", 28),
        ([(10, 11)] * 64, "z32", 24),
        ([(10, 11)] * 65, "z32", 23),
    ],
)
def test_the_ring_follows_from_the_spread_of_weights(rows: list[tuple[int, int]], ring: str, bits: int) -> None:
    chosen = choose_encoding(rows, clip="1.5")
    assert (chosen.ring, chosen.fraction_bits, chosen.clip) == (ring, bits, "1.5")
    assert (chosen.weight_minimum, chosen.weight_maximum) == (min(a for a, _ in rows), max(b for _, b in rows))
    check_encoding(chosen, len(rows))


def test_ranges_that_are_none_are_refused() -> None:
    for rows in ([], [(5, 4)], [(-1, 4)], [(0, 0)]):
        with pytest.raises(UsageError):
            choose_encoding(rows)


def test_light_nodes_beside_a_heavy_one_are_not_rounded_away() -> None:
    """Weights 1, 1, 1 with w_max = 1e9: in Z_2^32 the three would encode to zeros."""
    encoding = choose_encoding([(1, 1)] * 3 + [(10**9, 10**9)])
    sent = single([0.0], "float64")
    layout = Layout.derive(sent, StageOutput(sent=True))
    total = Accumulator(layout, encoding, 4)
    for value in (1.0, 2.0, 6.0):
        encoded = encode(Reply(single([value], "float64")), sent, layout, encoding, 1, 4)
        assert encoded.narrow[0] != 0
        total.add(encoded)
    assert total.finish(3, sent).arrays["arrays"]["w"][0] == pytest.approx(3.0, abs=0.02)


def test_the_clip_bounds_the_whole_difference_and_leaves_counters_alone() -> None:
    sent = {"a": {"x": np.ones(3, "f4"), "k": np.array(5)}, "b": {"y": np.ones((2, 2))}}
    reply = {"a": {"x": np.full(3, 4.0, "f4"), "k": np.array(9)}, "b": {"y": np.full((2, 2), -2.0)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    clipped = clip_difference(reply, sent, layout, "1")
    moved = np.concatenate([(clipped["a"]["x"] - 1).ravel(), (clipped["b"]["y"] - 1).ravel()])
    assert np.linalg.norm(moved) == pytest.approx(1.0, abs=1e-6)
    assert clipped["a"]["k"] == 9
    assert clipped["a"]["x"].dtype == np.float32
    encoding = encoding_of(clip="1")
    total = Accumulator(layout, encoding, 4)
    total.add(encode(Reply(reply), sent, layout, encoding, 1000, 4))
    opened = total.finish(1, sent).arrays
    assert np.allclose(opened["a"]["x"], clipped["a"]["x"], atol=1e-6)
    assert opened["a"]["k"] == 9
    within = clip_difference(reply, sent, layout, "100")
    assert np.array_equal(within["a"]["x"], reply["a"]["x"])


def test_counters_are_averaged_and_rounded_and_64_bit_ends_do_not_wrap() -> None:
    encoding = encoding_of(n=2)
    for dtype, start, change, expected in (
        ("int64", 10, (1, 4), 12),  # 10 + 2.5, rounded half to even
        ("int64", 2**63 - 1, (0, 0), 2**63 - 1),
        ("int64", -(2**63), (0, 0), -(2**63)),
        ("uint64", 2**64 - 1, (0, 0), 2**64 - 1),
        ("uint64", 2**60 + 1, (2, 2), 2**60 + 3),  # beyond float64's exact integers
        ("uint8", 250, (5, 5), 255),
        ("int8", -120, (-8, -8), -128),
    ):
        sent = single(start, dtype)
        layout = Layout.derive(sent, StageOutput(sent=True))
        total = Accumulator(layout, encoding, 2)
        for step in change:
            total.add(encode(Reply(single(start + step, dtype)), sent, layout, encoding, 500, 2))
        got = total.finish(2, sent).arrays["arrays"]["w"]
        assert (int(got), got.dtype, got.shape) == (expected, np.dtype(dtype), ())


def test_differences_of_integers_beyond_the_bound_saturate_in_their_direction() -> None:
    encoding = encoding_of(n=2)
    for dtype, base, value, moved in (
        ("int64", -(2**63), 2**63 - 1, 2**31),
        ("int64", 2**63 - 1, -(2**63), -(2**31)),
        ("uint64", 2**64 - 1, 0, -(2**31)),
        ("uint64", 0, 2**64 - 1, 2**31),
    ):
        sent = single(base, dtype)
        layout = Layout.derive(sent, StageOutput(sent=True))
        encoded = encode(Reply(single(value, dtype)), sent, layout, encoding, 1000, 2)
        assert encoded.saturated == 1
        total = Accumulator(layout, encoding, 2)
        total.add(encoded)
        assert int(total.finish(1, sent).arrays["arrays"]["w"]) == base + moved


def test_truth_values_go_by_weighted_majority() -> None:
    sent = single([False, True, False], "bool")
    layout = Layout.derive(sent, StageOutput(sent=True))
    encoding = encoding_of(n=2)
    total = Accumulator(layout, encoding, 2)
    total.add(encode(Reply(single([True, True, False], "bool")), sent, layout, encoding, 900, 2))
    total.add(encode(Reply(single([False, False, True], "bool")), sent, layout, encoding, 100, 2))
    assert total.finish(2, sent).arrays["arrays"]["w"].tolist() == [True, True, False]


def test_declared_arrays_are_taken_as_they_are() -> None:
    output = StageOutput(
        sent=False,
        arrays=(
            ArraySpec(record="stats", name="mean", dtype="float64", shape=(2,)),
            ArraySpec(record="stats", name="hits", dtype="int32", shape=()),
            ArraySpec(record="stats", name="none", dtype="float32", shape=(0, 3)),
        ),
    )
    sent = single([5.0])
    layout = Layout.derive(sent, output)
    assert (layout.narrow_size, layout.wide_size) == (2, 1)
    encoding = encoding_of(n=1)
    reply = {"stats": {"mean": np.array([1.5, -2.0]), "hits": np.array(7, "i4"), "none": np.zeros((0, 3), "f4")}}
    total = Accumulator(layout, encoding, 1)
    total.add(encode(Reply(reply), sent, layout, encoding, 1000, 1))
    opened = total.finish(1, sent).arrays
    assert list(opened) == ["stats"]
    assert opened["stats"]["mean"] == pytest.approx([1.5, -2.0])
    assert opened["stats"]["hits"] == 7
    assert opened["stats"]["none"].shape == (0, 3)


def test_replies_that_do_not_fit_are_refused() -> None:
    sent = single([1.0, 2.0])
    layout = Layout.derive(sent, OUTPUT)
    encoding = encoding_of()
    for arrays in ({}, single([1.0]), single([1.0, 2.0], "float64"), single([np.nan, 1.0])):
        with pytest.raises(EncodingError):
            encode(Reply(arrays), sent, layout, encoding, 10, 4)
    for metrics in ({}, {"m": {"loss": 101.0}}, {"m": {"loss": float("nan")}}, {"m": {"loss": True}}):
        with pytest.raises(EncodingError):
            encode(Reply(sent, metrics), sent, layout, encoding, 10, 4)  # type: ignore[arg-type]
    with pytest.raises(EncodingError):
        Layout.derive({"a": {"x": np.zeros(1, complex)}}, OUTPUT)
    declared = ArraySpec(record="arrays", name="w", dtype="float32", shape=(2,))
    with pytest.raises(EncodingError):
        Layout.derive(sent, StageOutput(sent=True, arrays=(declared,)))


def test_infinite_differences_saturate_but_cannot_be_clipped() -> None:
    sent = single([-1.7e308], "float64")
    layout = Layout.derive(sent, StageOutput(sent=True))
    reply = Reply(single([1.7e308], "float64"))
    assert encode(reply, sent, layout, encoding_of(), 10, 4).saturated == 1
    with pytest.raises(EncodingError):
        encode(reply, sent, layout, encoding_of(clip="1"), 10, 4)


def test_metrics_are_exact_beyond_double_precision() -> None:
    metric = MetricSpec(name="loss", minimum="-1000000", maximum="1000000")
    layout = Layout.derive({}, StageOutput(sent=False, metrics=(metric,)))
    encoding = choose_encoding([(1, 2**40)])
    encoded = encode(Reply({}, {"m": {"loss": 1e-9}}), {}, layout, encoding, 2**40, 1)
    assert int(encoded.totals[3]) == round(Fraction(1e-9) / 10**6 * 2**60)


def test_a_large_reply_takes_little_memory_beside_its_vector() -> None:
    import tracemalloc

    sent = single(np.zeros(2_000_000))
    layout = Layout.derive(sent, StageOutput(sent=True))
    reply = Reply(single(np.ones(2_000_000)), {})
    tracemalloc.start()
    try:
        encoded = encode(reply, sent, layout, encoding_of(), 10, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(encoded, EncodedReply)
    assert peak < encoded.narrow.nbytes + 2**21
