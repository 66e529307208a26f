"""Canonical JSON: RFC 8785's vectors, one domain for reader and writer, and refusals that name the place."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import MAX_DEPTH, MAX_SAFE_INTEGER, CanonicalError, MalformedError, canonical_json, parse_json
from tests.shared import SHARED

VECTORS = SHARED / "vectors" / "jcs" / "testdata"
NAMES = ("arrays", "french", "structures", "unicode", "values", "weird")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the shared RFC 8785 vectors are absent (KEYONG_SHARED)")
@pytest.mark.parametrize("name", NAMES)
def test_rfc8785_vectors(name: str) -> None:
    value = parse_json((VECTORS / "input" / f"{name}.json").read_bytes(), limit=1 << 16, allow_floats=True)
    expected = bytes.fromhex((VECTORS / "outhex" / f"{name}.txt").read_text())
    assert canonical_json(value, allow_floats=True) == expected


@settings(deadline=None)
@given(values)
def test_reader_takes_what_writer_makes_and_nothing_changes(value: Any) -> None:
    data = canonical_json(value)
    assert parse_json(data, limit=len(data)) == value
    assert canonical_json(parse_json(data, limit=len(data))) == data


@settings(deadline=None)
@given(values)
def test_writer_takes_what_reader_gives_however_it_was_spelled(value: Any) -> None:
    for text in (json.dumps(value, indent=1), json.dumps(value, ensure_ascii=False)):
        data = text.encode()
        assert canonical_json(parse_json(data, limit=len(data))) == canonical_json(value)


@settings(deadline=None)
@given(st.dictionaries(texts, scalars, max_size=6), st.randoms())
def test_the_order_of_keys_makes_no_other_statement(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_reader_refuses_noise_with_its_own_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        canonical_json(parse_json(data, limit=100))


def test_keys_are_sorted_by_utf16_units() -> None:
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (0.5, "$"),
        ({"rounds": [{}, {"rho": 0.5}]}, "$.rounds[1].rho"),
        ({"a b": float("nan")}, '$["a b"]'),
        ([float("inf")], "$[0]"),
        ({"n": MAX_SAFE_INTEGER + 1}, "$.n"),
        ({"n": -MAX_SAFE_INTEGER - 1}, "$.n"),
        ({"m": {1: "x"}}, "$.m"),
        ({"b": b"x"}, "$.b"),
        ({"s": {"x"}}, "$.s"),
        ({"t": "\ud800"}, "$.t"),
        ({"o": {"\ud800": 1}}, "$.o"),
    ],
)
def test_refusal_names_the_path(value: Any, path: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        canonical_json(value)
    assert caught.value.params["path"] == path
    assert path in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), MAX_SAFE_INTEGER + 1])
def test_allowing_floats_allows_no_other_number(value: Any) -> None:
    with pytest.raises(CanonicalError):
        canonical_json([value], allow_floats=True)


def test_depth_is_bounded_and_cycles_end() -> None:
    assert canonical_json(nested(MAX_DEPTH))
    with pytest.raises(CanonicalError, match="nested deeper"):
        canonical_json(nested(MAX_DEPTH + 1))
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(CanonicalError, match="nested deeper"):
        canonical_json(cycle)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1,]",
        b"[1] x",
        b"{'a':1}",
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"b":2,"a":3}}',
        b"[0.5]",
        b"[1e3]",
        b"[1.0]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[9007199254740992]",
        b"[-9007199254740992]",
        b"[" + b"9" * 100_000 + b"]",
        b'["\\ud800"]',
        b'{"\\udc00":1}',
        b'["a\nb"]',
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        b"\xef\xbb\xbf[]",
        "[]".encode("utf-16"),
        b"[" * 100_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 100_000,
    ],
)
def test_reader_refuses(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_json(data, limit=1 << 20)
    assert len(str(caught.value)) < 200
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("data", [b"[1e999]", b"[-1e999]", b"[NaN]", b"[9007199254740992]"])
def test_reader_refuses_even_when_floats_are_allowed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_json(data, limit=100, allow_floats=True)


def test_size_is_judged_before_anything_else() -> None:
    assert parse_json(b"[1]", limit=3) == [1]
    with pytest.raises(MalformedError, match="4 bytes"):
        parse_json(b"[12]", limit=3)
    with pytest.raises(MalformedError, match="4 bytes"):
        parse_json(b"\xff\xff\xff\xff", limit=3)


def test_depth_limit_can_be_lowered_and_not_raised() -> None:
    assert parse_json(b"[[]]", limit=10, depth_limit=2) == [[]]
    with pytest.raises(MalformedError, match="2 levels"):
        parse_json(b"[[[]]]", limit=10, depth_limit=2)
    deep = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    with pytest.raises(MalformedError, match="levels"):
        parse_json(deep, limit=1000, depth_limit=1000)


def test_a_hostile_key_cannot_reach_a_terminal_or_fill_a_log() -> None:
    key = "\x1b[2J" + "x" * 10_000
    data = json.dumps(key).encode()
    with pytest.raises(MalformedError) as caught:
        parse_json(b"{" + data + b":1," + data + b":2}", limit=1 << 16)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_standard_reader_would_take_what_ours_refuses() -> None:
    """Shows that the strictness is ours: take `parse_json` away and both of these are read without complaint."""
    assert json.loads('{"a":1,"a":2}') == {"a": 2}
    assert json.loads("[0.1]") == [0.1]
