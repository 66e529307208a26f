"""Statements that are read once are those that reading twice accepts, with the same result."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from federation.crypto import MalformedError, SigningKey, canonical_json
from federation.statements import (
    Agreement,
    Invocation,
    KeyAnnouncement,
    Receipt,
    RoundKeys,
    Statement,
    StatementError,
    instant_text,
    sign,
)
from federation.statements import _base as base
from federation.statements.dsse import _unbase64
from keyong.bench.history import statement_bytes

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
INVOCATION, RECEIPT = statement_bytes("mill-a", 7, 14)
DIGEST = "sha256:" + "a" * 64
KEYS = KeyAnnouncement(
    issued=NOW,
    expires=NOW + timedelta(hours=1),
    plan=DIGEST,
    roster=DIGEST,
    node="mill-a",
    participants=("mill-a", "mill-b"),
    first=1,
    attempt=1,
    box="A" * 43 + "=",
    rounds=(RoundKeys(key="B" * 42 + "A=", commitment="C" * 42 + "A="),),
).payload()
HONEST: list[tuple[type[Statement], bytes]] = [(Invocation, INVOCATION), (Receipt, RECEIPT), (KeyAnnouncement, KEYS)]


def closed() -> list[type[Statement]]:
    return [kind for kind in Statement.__subclasses__() if kind.CLOSED]


def is_closed(schema: Any) -> bool:
    """Whether nothing that this JSON schema admits is a float, or of a type that it does not name."""
    for part in [schema, *schema.get("$defs", {}).values()]:
        for field in part.get("properties", {"": part}).values():
            if not _is_closed(field):
                return False
    return True


def _is_closed(field: Any) -> bool:
    if "$ref" in field or "enum" in field or "const" in field:
        return True
    if "anyOf" in field:
        return all(map(_is_closed, field["anyOf"]))
    if field.get("type") == "array":
        return _is_closed(field["items"])
    if field.get("type") == "object":  # names and values of one type
        kinds = [*field.get("patternProperties", {}).values()]
        return bool(kinds) and "additionalProperties" not in field and all(map(_is_closed, kinds))
    return field.get("type") in ("string", "integer", "boolean", "null")


@pytest.mark.parametrize("kind", closed(), ids=lambda kind: kind.__name__)
def test_what_is_read_once_has_no_place_for_a_float(kind: type[Statement]) -> None:
    assert is_closed(kind.model_json_schema())


def test_a_statement_with_free_content_would_not_be_found_closed() -> None:
    assert {Invocation, Receipt, KeyAnnouncement} <= set(closed())
    assert not is_closed(Agreement.model_json_schema()) and not Agreement.CLOSED


@pytest.mark.parametrize(("kind", "payload"), HONEST, ids=lambda one: getattr(one, "__name__", ""))
def test_honest_statements_are_read_once(
    kind: type[Statement], payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = kind._read_strictly(payload)
    monkeypatch.setattr(base, "parse_json", None)
    assert kind.from_payload(payload) == twice


_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(max_size=3),
    st.sampled_from(["1", "true", 1.0, "2026-05-01T12:00:00Z", "2026-05-01T12:00:00+00:00", "2026-05-01 12:00:00Z",
                     "2026-05-01T12:00:00.500000Z", "2026-02-30T12:00:00Z",
                     "2026-05-01T12:00:00Z\n", DIGEST,
                     "é", "\u2028", [], {}, [1], 2**53, -1, 0, 1]),
)  # fmt: skip


@given(
    which=st.sampled_from(HONEST),
    field=st.integers(0, 40),
    value=_values,
    how=st.sampled_from(["kept", "set", "gone", "more", "byte", "spaced", "twice", "escaped"]),
    at=st.integers(0, 4000),
)
@example(which=HONEST[0], field=0, value=0, how="kept", at=0)
@example(which=HONEST[1], field=0, value=0, how="kept", at=0)
@example(which=HONEST[0], field=7, value=True, how="set", at=0)
@example(which=HONEST[0], field=7, value=1.0, how="set", at=0)
def test_what_is_read_once_is_what_is_read_twice(
    which: tuple[type[Statement], bytes], field: int, value: Any, how: str, at: int
) -> None:
    kind, honest = which
    said = json.loads(honest)
    name = sorted(said)[field % len(said)]
    if how == "set":
        said[name] = value
    elif how == "gone":
        del said[name]
    elif how == "more":
        said["more"] = value
    payload = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=at % 2 == 0).encode(
        "utf-8", "surrogatepass"
    )
    if how == "byte":
        payload = payload[: at % len(payload)] + bytes([field + 32]) + payload[at % len(payload) + 1 :]
    elif how == "spaced":
        payload = payload.replace(b":", b": ", 1)
    elif how == "twice":
        payload = payload.replace(b"{", b'{"attempt":1,', 1)
    elif how == "escaped":
        payload = payload.replace(b"a", b"\\u0061", 1)
    once, plain = kind._read_plainly(payload), kind._said_plainly(payload)
    try:
        twice = kind._read_strictly(payload)
    except (StatementError, MalformedError):
        assert once is None and plain is None
    else:
        assert once == twice or not payload.isascii()
        assert plain is None or spelled(plain) == twice.model_dump(exclude=set(kind.LATER) - plain.keys())
        assert canonical_json(twice._said()) == payload


@pytest.mark.parametrize("kind", Statement.__subclasses__(), ids=lambda kind: kind.__name__)
def test_which_statements_are_judged_without_a_model(kind: type[Statement]) -> None:
    """Those without rules of their own beside their fields', and with no place for a float; others are read as ever."""
    plain = {"Acknowledgement", "BlindAnswer", "DataspaceAnswer", "DataspaceCall", "EnrolmentRequest", "Fulfilment",
             "Invocation", "KeyChange", "LedgerSuccession", "MaskedInput", "Receipt", "ReleasedShares",
             "ResultAcknowledgement", "Revocation", "SealedShares", "Suspension", "Withdrawal"}  # fmt: skip
    assert (base._plain_validator(kind) is not None) is (kind.__name__ in plain)
    if kind.__name__ in plain:
        assert is_closed(kind.model_json_schema())


def test_a_field_that_was_added_later_is_not_said_with_its_default() -> None:
    said = json.loads(RECEIPT)
    assert Receipt._said_plainly(RECEIPT) is not None
    for rules, accepted in (("", False), (DIGEST, True)):
        payload = canonical_json(said | {"rules": rules})
        assert (Receipt._said_plainly(payload) is not None) is accepted
        envelope = sign(SigningKey.generate(), Receipt.TYPE, payload)
        if accepted:
            assert Receipt.texts(envelope, "node", "rules") == ("mill-a", DIGEST)
        else:
            with pytest.raises(StatementError):
                Receipt.texts(envelope, "node")


def test_texts_are_those_of_the_statement_whatever_way_it_is_read() -> None:
    key = SigningKey.generate()
    for kind, payload in HONEST:
        assert kind.texts(sign(key, kind.TYPE, payload), "node", "plan") == (
            "mill-a",
            kind.from_payload(payload).model_dump()["plan"],
        )
    with pytest.raises(StatementError):
        Invocation.texts(sign(key, Receipt.TYPE, INVOCATION), "node")


TIMES = {
    "2026-05-01T12:00:00Z": True, "2026-05-01T12:00:00.500000Z": False, "2026-05-01T12:00:00.000000Z": False,
    "2026-05-01T12:00:00.5Z": False, "2026-05-01T12:00:00+00:00": False, "2026-05-01T12:00:00-00:00": False,
    "2026-05-01T14:00:00+02:00": False, "2026-05-01T12:00:00z": False, "2026-05-01T12:00Z": False,
    "2026-05-01T24:00:00Z": False, "2026-05-01T23:59:60Z": False, "2026-02-30T12:00:00Z": False,
    "0000-01-01T00:00:00Z": False, "0001-01-01T00:00:00Z": True, "9999-12-31T23:59:59Z": True,
    "2026-05-01T12:00:00": False, "1777636800": False, "2026-05-01": False, "\u0662026-05-01T12:00:00Z": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "accepted"), TIMES.items())
def test_a_time_has_one_spelling_whatever_way_it_is_read(text: str, accepted: bool) -> None:
    payload = canonical_json(json.loads(RECEIPT) | {"ended": text})
    assert (Receipt._said_plainly(payload) is not None) is accepted
    assert (Receipt._read_plainly(payload) is not None) is accepted
    if accepted:
        assert instant_text(Receipt._read_strictly(payload).ended) == text
    else:
        with pytest.raises(StatementError):
            Receipt._read_strictly(payload)


def spelled(said: dict[str, Any]) -> dict[str, Any]:
    return {name: instant_text(one) if isinstance(one, datetime) else one for name, one in said.items()}


def test_without_the_comparison_one_would_be_true(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = INVOCATION.replace(b'"attempt":1', b'"attempt":true')
    assert Invocation._said_plainly(payload) is None
    with pytest.raises(StatementError):
        Invocation.from_payload(payload)
    monkeypatch.setattr(base, "restates_plainly", lambda value, data: True)
    assert Invocation.from_payload(payload).attempt == 1
    assert Invocation._said_plainly(payload) is not None


# -- base64 of envelopes ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=9) | st.text("AQgw+/=-_ \n", max_size=12).map(str.encode))
@example(b"QQ==")
@example(b"QR==")
@example(b"QQ=")
@example(b"QQ")
@example(b"QUJD====")
@example(b"QQ==QUJD")
@example(b"=QQ=")
@example(b"")
def test_one_spelling_of_base64(text: bytes) -> None:
    """As the standard library's validating reader has it, with only what it would write itself accepted."""
    for one in (text, base64.b64encode(text)):
        try:
            data = base64.b64decode(one, validate=True)
            canonical = base64.b64encode(data) == one
        except binascii.Error:
            canonical = False
        if canonical:
            assert _unbase64(one) == data
        else:
            with pytest.raises(MalformedError):
                _unbase64(one)
