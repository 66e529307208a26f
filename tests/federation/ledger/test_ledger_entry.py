"""The envelope: canonical, small, silent."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.crypto import CanonicalError, canonical_json
from federation.ledger.entry import Entry, Field, check_field, check_kind, decode, encode, format_time, seal, seal_all
from federation.ledger.errors import EntryRefusedError, FieldModifiedError, LedgerUnreadableError

HEX = "0123456789abcdef"
names = st.text(string.ascii_letters + string.digits + "_.-", max_size=20).map(lambda tail: "f" + tail)
commitments = st.text(HEX, min_size=64, max_size=64)
entries = st.builds(
    Entry,
    index=st.integers(10, 10**12),
    kind=st.sampled_from(["genesis", "intent", "a.b-c9"]),
    prev=commitments,
    time=st.just("2026-03-01T12:00:00.000Z"),
    nonce=st.text(HEX, min_size=32, max_size=32),
    ref=st.none() | st.integers(0, 9),
    fields=st.dictionaries(names, commitments, max_size=6),
)


@given(entries)
def test_bytes_are_canonical_json_and_read_back(entry: Entry) -> None:
    data = encode(entry)
    assert data == canonical_json(json.loads(data))
    assert decode(data, 0) == entry


SAMPLE = encode(
    Entry(3, "intent", "a" * 64, "2026-03-01T12:00:00.000Z", "b" * 32, 1, {"plan": "c" * 64, "x": "d" * 64})
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 10_000,
        b" " + SAMPLE,
        SAMPLE + b"\n",
        SAMPLE.replace(b'"v":1', b'"v":2'),
        SAMPLE.replace(b'"v":1', b'"v":1.0'),
        SAMPLE.replace(b'"v":1', b'"v":true'),
        SAMPLE.replace(b'"index":3', b'"index":03'),
        SAMPLE.replace(b'"index":3', b'"index":-3'),
        SAMPLE.replace(b'"ref":1', b'"ref":3'),
        SAMPLE.replace(b'"ref":1', b'"ref":4'),
        SAMPLE.replace(b'"plan"', b'"x"'),
        SAMPLE.replace(b'"plan"', b'"y"'),
        SAMPLE.replace(b'"plan"', b'"pl n"'),
        SAMPLE.replace(b"aaaa", b"AAAA"),
        SAMPLE.replace(b"intent", b"Intent"),
        SAMPLE.replace(b".000Z", b".000+"),
        SAMPLE.replace(b'"v":1', b'"v":1,"w":2'),
        SAMPLE[:-1] + b',"v":1}',
        SAMPLE.replace(b'"x"', b'"' + b"x" * 17_000 + b'"'),
        SAMPLE.decode().encode("utf-16"),
    ],
)
def test_no_second_spelling_is_read(data: bytes) -> None:
    assert data != SAMPLE
    with pytest.raises(LedgerUnreadableError) as caught:
        decode(data, 5)
    assert caught.value.index == 5


def test_a_field_opens_only_its_own_commitment_in_its_own_form() -> None:
    field = seal({"a": 1})
    entry = Entry(0, "x", "0" * 64, "2026-03-01T12:00:00.000Z", "0" * 32, None, {"value": field.commitment()})
    check_field(entry, "value", field)
    for wrong in (
        Field("json", field.salt, b'{"a":2}'),
        Field("json", bytes(32), field.payload),
        Field("raw", field.salt, field.payload),
        Field("json", field.salt + field.payload[:1], field.payload[1:]),
    ):
        with pytest.raises(FieldModifiedError):
            check_field(entry, "value", wrong)
    with pytest.raises(FieldModifiedError):
        check_field(entry, "other", field)
    assert str(field.payload) not in repr(field)


def test_equal_values_have_unequal_commitments() -> None:
    assert seal("ok").commitment() != seal("ok").commitment()


@pytest.mark.parametrize("kind", ["", "Intent", "1x", "a b", "é", "a" * 65, 'a"'])
def test_bad_kinds_are_refused(kind: str) -> None:
    with pytest.raises(EntryRefusedError):
        check_kind(kind)


def test_bad_fields_are_refused() -> None:
    for name in ("", "1", "a b", 'a"', "ä"):
        with pytest.raises(EntryRefusedError):
            seal_all({name: 1})
    with pytest.raises(EntryRefusedError):
        seal_all({f"f{number}": 1 for number in range(129)})
    with pytest.raises(EntryRefusedError):
        seal_all({"big": bytes(1024 * 1024 + 1)})
    with pytest.raises(CanonicalError):
        seal_all({"epsilon": 0.1})


def test_time_is_utc_with_milliseconds() -> None:
    moment = datetime(2026, 3, 1, 20, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=8)))
    assert format_time(moment) == "2026-03-01T12:00:00.999Z"
    assert format_time(datetime(2026, 3, 1, tzinfo=UTC)) == "2026-03-01T00:00:00.000Z"
