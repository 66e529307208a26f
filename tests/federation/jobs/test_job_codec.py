"""The closed content format: what is written is read, one content has one encoding, all else is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.jobs import (
    Content,
    ContentError,
    body_size,
    content_digest,
    decode,
    decode_many,
    describe,
    encode,
    header_bytes,
)
from federation.jobs.codec import DTYPES

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)
INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
METRICS = st.one_of(INTS, FLOATS, st.lists(INTS, max_size=4), st.lists(FLOATS, max_size=4))
TEXTS = st.text(st.characters(codec="utf-8"))
CONFIGS = st.one_of(
    *(st.one_of(kind, st.lists(kind, max_size=4)) for kind in (INTS, FLOATS, st.booleans(), TEXTS, st.binary()))
)
ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    names = draw(st.lists(NAMES, min_size=3, max_size=6, unique=True))
    kinds = [st.dictionaries(NAMES, values, max_size=4) for values in (ARRAYS, METRICS, CONFIGS)]
    found: list[dict[str, Any]] = [{}, {}, {}]
    for number, name in enumerate(names):
        found[number % 3][name] = draw(kinds[number % 3])
    return Content(*found)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other and str(one) == str(other)  # -0.0 is not 0.0


@given(contents())
def test_what_is_written_is_read(content: Content):
    header, buffers = encode(content)
    body = b"".join(buffers)
    assert body_size(json.loads(header)) == len(body)
    back = decode(header, body)
    assert [list(records) for records in (back.arrays, back.metrics, back.configs)] == [
        list(records) for records in (content.arrays, content.metrics, content.configs)
    ]
    for record, arrays in content.arrays.items():
        assert list(back.arrays[record]) == list(arrays)
        for name, array in arrays.items():
            got = back.arrays[record][name]
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            assert got.tobytes() == array.tobytes()
    for mine, theirs in ((content.metrics, back.metrics), (content.configs, back.configs)):
        for record, values in mine.items():
            assert list(theirs[record]) == list(values)
            assert all(_same(value, theirs[record][name]) for name, value in values.items())
    again, buffers_again = encode(back)
    assert (again, b"".join(buffers_again)) == (header, body)
    described, _ = describe(content)
    assert header_bytes(described) == header
    assert content_digest(again, buffers_again) == content_digest(header, [body])


def _plain() -> tuple[dict[str, Any], bytes]:
    header, buffers = describe(
        Content(
            {"arrays": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "ok": np.array([True, False])}},
            {"metrics": {"loss": 0.5, "hits": [1, 2]}},
            {"config": {"lr": 0.1, "name": "x", "raw": b"y", "on": True}},
        )
    )
    return json.loads(header_bytes(header)), b"".join(buffers)


HEADERS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(sorted(DTYPES))
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["v", "arrays", "metrics", "configs", "f", "b", "x"]), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(HEADERS, st.binary(max_size=64))
def test_any_object_is_read_or_refused_with_a_code(header: Any, body: bytes):
    for given_header in (header, {"v": 1, "arrays": header, "metrics": [], "configs": header}):
        try:
            content = decode(given_header, body)
        except ContentError as error:
            assert error.code.startswith("content-")
        else:
            assert header_bytes(describe(content)[0]) == header_bytes(given_header)


@given(st.data())
def test_a_changed_header_is_refused_or_is_another_content(data: st.DataObject):
    header, body = _plain()
    raw = bytearray(header_bytes(header))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        content = decode(bytes(raw), body)
    except ContentError:
        return
    again, buffers = encode(content)
    assert (again, b"".join(buffers)) == (bytes(raw), body)


def _with(path: list[Any], value: Any) -> tuple[dict[str, Any], bytes]:
    header, body = _plain()
    place: Any = header
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return header, body


SLOT = ["arrays", 0, 1, 0]
METRIC = ["metrics", 0, 1, 0, 1]
CONFIG = ["configs", 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (["v"], 2, "content-header"),
        (["v"], True, "content-header"),
        (["v"], 1.0, "content-header"),
        (["more"], [], "content-header"),
        (["arrays"], {}, "content-header"),
        (["arrays", 0], ["arrays"], "content-header"),
        ([*SLOT], ["w", "float32"], "content-header"),
        ([*SLOT, 1], "object", "content-dtype"),
        ([*SLOT, 1], "bfloat16", "content-dtype"),
        ([*SLOT, 1], "complex64", "content-dtype"),
        ([*SLOT, 1], ">f4", "content-dtype"),
        ([*SLOT, 1], "float64", "content-size"),
        ([*SLOT, 2], [2, 4], "content-size"),
        ([*SLOT, 2], [2, 2], "content-size"),
        ([*SLOT, 2], [-2, -3], "content-shape"),
        ([*SLOT, 2], [2, 3.0], "content-shape"),
        ([*SLOT, 2], [True, 6], "content-shape"),
        ([*SLOT, 2], [1] * 33, "content-shape"),
        ([*SLOT, 2], [2**60, 2**60], "content-shape"),
        ([*SLOT, 2], [2**60, 0, 2**60], "content-shape"),
        ([*SLOT, 2], 6, "content-header"),
        ([*SLOT, 0], "", "content-name"),
        ([*SLOT, 0], "n" * 257, "content-name"),
        ([*SLOT, 0], "a\nb", "content-name"),
        ([*SLOT, 0], "a\u202eb", "content-name"),
        ([*SLOT, 0], "\ud800", "content-name"),
        ([*SLOT, 0], 5, "content-name"),
        ([*SLOT, 0], "ok", "content-duplicate"),
        (["metrics", 0, 0], "arrays", "content-duplicate"),
        (["arrays"], [[f"r{number}", []] for number in range(65)], "content-count"),
        (METRIC, "text", "content-value"),
        (METRIC, True, "content-value"),
        (METRIC, [1, 2.0], "content-value"),
        (METRIC, [[1]], "content-value"),
        (METRIC, None, "content-value"),
        (METRIC, 2**64, "content-value"),
        (METRIC, {"f": "1.0"}, "content-value"),
        (METRIC, {"f": "nan", "x": 1}, "content-value"),
        (METRIC, {"b": "eA=="}, "content-value"),
        (METRIC, math.nan, "content-value"),
        (METRIC, [0] * 65_537, "content-value"),
        (CONFIG, [1, True], "content-value"),
        (CONFIG, {"b": "eA"}, "content-value"),
        (CONFIG, {"b": "eB=="}, "content-value"),  # a second spelling of the same bytes
        (CONFIG, "\ud800", "content-value"),
        (CONFIG, "x" * (2**20 + 1), "content-value"),
        (CONFIG, {"pickle": "x"}, "content-value"),
    ],
)
def test_what_the_format_does_not_have_is_refused(path: list[Any], value: Any, code: str):
    decode(*_plain())
    with pytest.raises(ContentError) as refused:
        decode(*_with(path, value))
    assert refused.value.code == code


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"\0", lambda body: b""])
def test_a_body_of_another_length_is_refused(change: Any):
    header, body = _plain()
    with pytest.raises(ContentError, match="content-size"):
        decode(header, change(body))


def test_seven_hidden_bits_of_a_bool_are_refused():
    header, body = _plain()
    with pytest.raises(ContentError, match="content-bool"):
        decode(header, body[:-1] + b"\x02")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b":", b": ", 1),
        lambda raw: raw.replace(b"0.5", b"5e-1"),
        lambda raw: raw.replace(b"0.5", b"NaN"),
        lambda raw: raw.replace(b"0.5", b"1e999"),
        lambda raw: raw.replace(b"loss", b"\\u006coss"),
        lambda raw: raw.replace(b'{"v":1', b'{"v":1,"v":1'),
        lambda raw: raw.decode().encode("utf-16"),
        lambda raw: raw + b" ",
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: b"[" * 100_000,
        lambda raw: b"9" * 10_000,
        lambda raw: b"",
    ],
)
def test_a_second_spelling_of_a_header_is_refused(change: Any):
    header, body = _plain()
    raw = header_bytes(header)
    decode(raw, body)
    with pytest.raises(ContentError, match="content-header"):
        decode(change(raw), body)


@pytest.mark.parametrize(
    "content",
    [
        Content({"a": {"x": np.array([object()])}}),
        Content({"a": {"x": np.zeros(1, dtype="datetime64[s]")}}),
        Content({"a": {"x": np.zeros(1, dtype=[("f", "i4")])}}),
        Content({"a": {"x": np.zeros(1, dtype="U3")}}),
        Content({"a": {"x": [1.0]}}),  # type: ignore[dict-item]
        Content({"a": {}}, {"a": {}}),
        Content(metrics={"m": {"x": "text"}}),  # type: ignore[dict-item]
        Content(metrics={"m": {"x": True}}),
        Content(configs={"c": {"x": {"y": 1}}}),  # type: ignore[dict-item]
        Content(configs={"c": {"x": None}}),  # type: ignore[dict-item]
    ],
)
def test_nothing_outside_the_format_is_written(content: Content):
    with pytest.raises(ContentError):
        encode(content)


def test_arrays_are_written_as_they_lie_and_read_where_they_are():
    array = np.arange(1_000_000, dtype=np.float32)
    header, buffers = encode(Content({"a": {"x": array}}))
    assert np.shares_memory(np.frombuffer(buffers[0], dtype=np.uint8), array)
    body = bytearray(b"".join(buffers))
    assert np.shares_memory(decode(header, body).arrays["a"]["x"], np.frombuffer(body, dtype=np.uint8))
    _, swapped = encode(Content({"a": {"x": array[:4].astype(">f4"), "y": array[:8:2]}}))
    assert b"".join(swapped) == array[:4].tobytes() + array[:8:2].tobytes()


def test_many_contents_in_one_body():
    described = [describe(Content({"a": {"x": np.full(size, size, dtype=np.int16)}})) for size in (1, 0, 3)]
    headers = [header for header, _ in described]
    body = b"".join(part for _, parts in described for part in parts)
    assert [content.arrays["a"]["x"].tolist() for content in decode_many(headers, body)] == [[1], [], [3, 3, 3]]
    for wrong in (body[:-1], body + b"\0"):
        with pytest.raises(ContentError, match="content-size"):
            decode_many(headers, wrong)


def test_the_digest_holds_header_and_body_apart():
    header, buffers = encode(Content(metrics={"m": {"x": 1}}))
    body = b"".join(buffers)
    digest = content_digest(header, [body])
    assert digest.startswith("sha256:")
    assert content_digest(header[:-1], [header[-1:] + body]) != digest
    assert content_digest(header, [body + b"\0"]) != digest


def test_trusted_processes_load_neither_flwr_nor_torch():
    code = "import sys, federation.jobs; print([name for name in ('flwr', 'torch', 'grpc') if name in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
