"""The quick way of reader and writer only ever accepts what the long way accepts, with the same result."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import CanonicalError, MalformedError, canonical, canonical_json, parse_json, restates

_UNKNOWN = canonical._UNKNOWN
_texts = st.text(st.characters(exclude_categories=[]), max_size=8) | st.sampled_from(
    ["é", "\u2028", "\ue000", "\U0001f600"]
)
_scalars = st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | _texts
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts | st.integers(0, 3), inner, max_size=4),
    max_leaves=12,
)
_spellings = st.sampled_from([
    lambda text: text,
    lambda text: text + " ",
    lambda text: text.replace(",", ", "),
    lambda text: text.replace("1", "1.0"),
    lambda text: text.replace("0", "-0"),
    lambda text: text.replace("a", "\\u0061"),
    lambda text: text.replace('"', '"\\ud800', 1),
    lambda text: text[1:],
])  # fmt: skip


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return repr(work())
    except (MalformedError, CanonicalError) as error:
        return type(error), error.template


@settings(deadline=None)
@given(_values, _spellings)
def test_reading_quickly_is_reading(value: Any, spell: Callable[[str], str]) -> None:
    text = json.dumps(value, ensure_ascii=False, sort_keys=False, separators=(",", ":"), skipkeys=True)
    data = spell(text).encode("utf-8", "surrogatepass")
    quick = _outcome(lambda: parse_json(data, limit=1 << 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_canonical_value", lambda data, limit: _UNKNOWN)
        assert quick == _outcome(lambda: parse_json(data, limit=1 << 20))


@settings(deadline=None)
@given(_values)
def test_writing_quickly_is_writing(value: Any) -> None:
    quick = _outcome(lambda: canonical_json(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_written_plainly", lambda value: None)
        assert quick == _outcome(lambda: canonical_json(value))


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [{1: "a"}, {None: 1}, {True: 1}, {1: 1, "1": 1}, 1.0, -0.0, [1.5], 2**53, -(2**53), "\ud800", {"\ue000": 1, "\U0001f600": 2},
     (1, 2), {"a": (1,)}, [Number.ONE], b"x", {"a": object}, float("nan"), "\x7f\x1f", [[[]]] * 40],
    ids=repr,
)  # fmt: skip
def test_what_the_quick_writer_must_leave_to_the_long_way(value: Any) -> None:
    test_writing_quickly_is_writing.hypothesis.inner_test(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "data",
    [b'{"a":1,"a":1}', b'{"b":1,"a":1}', b"9007199254740992", b"-0", b"[1.0]", b"[1e1]", b"[NaN]", b"[Infinity]", b'"\\u0041"',
     b'"\\/"', b'"\x7f"', b'"\\u007f"', b'"\\u000A"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b"", b" 1", b"1 ", b"[1]]", b"nul",
     b"9" * 5000, b"[" * 70 + b"]" * 70, b"[" * 5000, b'"\t"', b'"' + b"x" * 50 + b'"'],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_the_quick_reader_must_leave_to_the_long_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = _outcome(lambda: parse_json(data, limit=1 << 20))
    monkeypatch.setattr(canonical, "_canonical_value", lambda data, limit: _UNKNOWN)
    assert quick == _outcome(lambda: parse_json(data, limit=1 << 20))


def test_the_quick_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would compare the long way with itself."""

    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(canonical, "_check", unreachable)
    value = {"a": [1, True, None, "é"], "b": {"c": "x"}}
    assert parse_json(canonical_json(value), limit=1000) == value


def test_the_quick_reader_without_its_guards_would_take_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows that reading back byte for byte is the protection: a plain scanner takes a key twice."""
    monkeypatch.setattr(canonical, "_write", lambda value: b'{"a":1,"a":2}')
    assert parse_json(b'{"a":1,"a":2}', limit=100) == {"a": 2}
    monkeypatch.undo()
    with pytest.raises(MalformedError):
        parse_json(b'{"a":1,"a":2}', limit=100)


@pytest.mark.parametrize(
    "value", [{"a": [1, True, None], "b": {"c": 'x\n"\\'}}, ["é", "😀"], "", -5, {"": {}}], ids=repr
)
def test_a_value_restates_its_canonical_bytes_and_no_others(value: object) -> None:
    data = canonical_json(value)
    assert restates(value, data)
    for other in ({"a": 1}, [value], True, 1):
        assert not restates(other, data)
    for spelled in (json.dumps(value, indent=1).encode(), b" " + data, data + b" ", data + b"0"):
        assert spelled == data or not restates(value, spelled)


def test_true_is_not_one() -> None:
    """Python calls them equal; a model that makes one of the other says something else than was signed."""
    assert not restates({"round": 1}, b'{"round":true}')
    assert not restates({"flag": True}, b'{"flag":1}')
