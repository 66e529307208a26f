"""Statements: each way to be wrong has its own error, and what is signed reads back as it was."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.crypto import KeyRefusedError, MalformedError, SignatureError, SigningKey, canonical_json
from federation.errors import KeyongError
from federation.statements import (
    MAX_STATEMENT_BYTES,
    Agreement,
    EnrolmentRequest,
    Envelope,
    ExpiredError,
    Invitation,
    InvitationError,
    Invocation,
    NotYetValidError,
    Revocation,
    StatementError,
    instant_text,
    open_agreement,
    open_offer,
    parse_instant,
    sign,
)
from federation.statements import _base as base
from federation.statements.code import AppFolderError, BundleError, CodeBundle, bundle_folder
from federation.statements.dsse import ENVELOPE_LIMIT, StatementTypeError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY, OTHER = SigningKey.from_bytes(bytes(range(32))), SigningKey.from_bytes(bytes(range(1, 33)))
DIGEST = "sha256:" + "a" * 64


def invocation(**changes: Any) -> Invocation:
    values: dict[str, Any] = {
        "issued": NOW,
        "expires": NOW + timedelta(hours=1),
        "plan": DIGEST,
        "node": "mill-a",
        "round": 1,
        "stage": "train",
        "content": DIGEST,
    }
    return Invocation(**values | changes)


def raw(change: Any) -> Envelope:
    """An envelope, rightly signed, around a payload that no model wrote."""
    value = json.loads(invocation().payload())
    change(value)
    return sign(KEY, Invocation.TYPE, canonical_json(value))


def test_what_was_signed_opens() -> None:
    envelope = Envelope.from_bytes(invocation().seal(KEY).to_bytes())
    assert Invocation.open(envelope, [KEY.public], NOW) == invocation()


def test_a_payload_is_read_once_and_another_one_anew() -> None:
    envelope = invocation().seal(KEY)
    assert Invocation.read(envelope) is Invocation.read(envelope) is Invocation.open(envelope, [KEY.public], NOW)
    changed = replace(envelope, payload=invocation(round=2).payload())
    assert Invocation.read(changed).round == 2
    with pytest.raises(SignatureError):
        Invocation.open(changed, [KEY.public], NOW)
    with pytest.raises(KeyongError):
        Revocation.read(envelope)


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(SignatureError):
        Invocation.open(invocation().seal(OTHER), [KEY.public], NOW)


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(SignatureError):
        Invocation.open(invocation().seal(KEY), [], NOW)


def test_without_the_signature_check_a_wrong_key_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "verify", lambda *_: None)
    assert Invocation.open(invocation().seal(OTHER), [KEY.public], NOW).round == 1


def test_an_expired_statement_is_refused_from_the_second_it_names() -> None:
    envelope = invocation().seal(KEY)
    Invocation.open(envelope, [KEY.public], NOW + timedelta(minutes=59, seconds=59))
    with pytest.raises(ExpiredError):
        Invocation.open(envelope, [KEY.public], NOW + timedelta(hours=1))


def test_a_statement_from_the_future_is_refused_beyond_the_skew_of_two_honest_clocks() -> None:
    envelope = invocation().seal(KEY)
    Invocation.open(envelope, [KEY.public], NOW - timedelta(seconds=120))
    with pytest.raises(NotYetValidError) as refused:
        Invocation.open(envelope, [KEY.public], NOW - timedelta(seconds=121))
    assert "clock" in refused.value.hint


def test_without_the_check_of_time_both_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.Statement, "check_time", lambda self, now: None)
    envelope = invocation().seal(KEY)
    for moment in (NOW + timedelta(days=9), NOW - timedelta(days=9)):
        Invocation.open(envelope, [KEY.public], moment)


def test_another_type_is_refused_whoever_signed_it() -> None:
    revocation = Revocation(issued=NOW, expires=NOW + timedelta(days=1), agreement=DIGEST, by="mill-a").seal(KEY)
    with pytest.raises(StatementError):
        Invocation.open(revocation, [KEY.public], NOW)
    disguised = sign(KEY, Revocation.TYPE, invocation().payload())
    with pytest.raises((StatementError, StatementTypeError)):
        Invocation.open(disguised, [KEY.public], NOW)


MALFORMED = {
    "unknown field": lambda v: v.update(extra=1),
    "missing field": lambda v: v.pop("content"),
    "other version": lambda v: v.update(format=2),
    "number as text": lambda v: v.update(round="1"),
    "truth as number": lambda v: v.update(round=True),
    "time as number": lambda v: v.update(issued=1777636800),
    "time in another zone": lambda v: v.update(issued="2026-05-01T14:00:00+02:00"),
    "time with a fraction": lambda v: v.update(issued="2026-05-01T12:00:00.5Z"),
    "time without zone": lambda v: v.update(issued="2026-05-01T12:00:00"),
    "time outside the calendar": lambda v: v.update(issued="0001-01-01T00:00:00+10:00"),
    "digest in capitals": lambda v: v.update(plan="sha256:" + "A" * 64),
    "digest with a line after it": lambda v: v.update(plan=DIGEST + "\n"),
    "member id that is no host label": lambda v: v.update(node="mill-"),
    "member id of 58 characters": lambda v: v.update(node="m" * 58),
    "round zero": lambda v: v.update(round=0),
    "unknown stage": lambda v: v.update(stage="peek"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_statement_is_refused_though_rightly_signed(what: str) -> None:
    with pytest.raises(StatementError):
        Invocation.open(raw(MALFORMED[what]), [KEY.public], NOW)


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(json.loads(invocation().payload()), indent=1).encode(),
        invocation().payload() + b"\n",
        b"\xef\xbb\xbf" + invocation().payload(),
        invocation().payload().replace(b'"round":1', b'"round":1,"round":1'),
        invocation().payload().replace(b'"round":1', b'"round":1.0'),
        b"",
        b"[]",
        b"null",
    ],
    ids=["indented", "line feed", "byte order mark", "key twice", "float", "empty", "list", "null"],
)
def test_bytes_that_are_not_canonical_are_refused(payload: bytes) -> None:
    with pytest.raises((StatementError, MalformedError)):
        Invocation.open(sign(KEY, Invocation.TYPE, payload), [KEY.public], NOW)


def test_without_the_canonical_check_two_spellings_would_be_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = json.dumps(json.loads(invocation().payload()), indent=1).encode()
    monkeypatch.setattr(base, "restates", lambda value, data: True)
    assert Invocation.open(sign(KEY, Invocation.TYPE, payload), [KEY.public], NOW).round == 1


def test_one_limit_for_what_is_signed_and_what_is_read() -> None:
    """The largest statement fits an envelope as everybody reads it; a larger one is not signed in the first place."""
    plain = Agreement(
        issued=NOW,
        expires=NOW + timedelta(days=1),
        id=f"urn:uuid:{uuid.uuid4()}",
        provider="a",
        consumer="b",
        dataset="d",
        title="t",
        roster=DIGEST,
        policy={"x": ""},
    )
    room = MAX_STATEMENT_BYTES - len(plain.payload())
    largest = plain.model_copy(update={"policy": {"x": "y" * room}})
    envelope = largest.seal(KEY, OTHER)
    assert len(envelope.to_bytes()) < ENVELOPE_LIMIT
    assert Agreement.read(Envelope.from_bytes(envelope.to_bytes())) == largest
    with pytest.raises(StatementError):
        plain.model_copy(update={"policy": {"x": "y" * (room + 1)}}).seal(KEY)


moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC, microsecond=0)
)


@given(
    issued=moments,
    last=st.integers(0, 10**7),
    number=st.integers(1, 200_000),
    attempt=st.integers(1, 1000),
    node=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?", fullmatch=True),
    content=st.binary(min_size=32, max_size=32),
)
def test_round_trip(issued: datetime, last: int, number: int, attempt: int, node: str, content: bytes) -> None:
    statement = invocation(
        issued=issued,
        expires=issued + timedelta(seconds=last),
        round=number,
        attempt=attempt,
        node=node,
        content="sha256:" + content.hex(),
    )
    envelope = Envelope.from_bytes(statement.seal(KEY).to_bytes())
    assert Invocation.read(envelope) == statement and envelope.digest == statement.seal(OTHER).digest
    assert parse_instant(instant_text(issued)) == issued


@given(st.data())
def test_any_changed_byte_of_an_envelope_is_refused(data: st.DataObject) -> None:
    whole = bytearray(invocation().seal(KEY).to_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(KeyongError):
        Invocation.open(Envelope.from_bytes(bytes(whole)), [KEY.public], NOW)


# -- agreements -------------------------------------------------------------------------------------------------------


def agreement() -> Agreement:
    return Agreement(
        issued=NOW,
        expires=NOW + timedelta(days=1),
        id=f"urn:uuid:{uuid.uuid4()}",
        provider="mill",
        consumer="lab",
        dataset="passes",
        title="Passes",
        roster=DIGEST,
        policy={},
    )


def keys_of(member: str) -> Any:
    return {"mill": KEY, "lab": OTHER}[member].public


def test_an_agreement_needs_both_signatures_and_an_offer_one() -> None:
    one = agreement()
    open_offer(one.seal(KEY), keys_of, NOW)
    open_agreement(one.seal(KEY, OTHER), keys_of, NOW)
    for envelope in (one.seal(KEY), one.seal(OTHER)):
        with pytest.raises(SignatureError):
            open_agreement(envelope, keys_of, NOW)
    with pytest.raises(SignatureError):
        open_offer(one.seal(OTHER), keys_of, NOW)


def test_nobody_agrees_with_himself() -> None:
    with pytest.raises(ValidationError):
        Agreement(**agreement().model_dump() | {"consumer": "mill"})


# -- invitations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "keyong-invitation:",
        "keyong-invitation:AAAA",
        "keyong-invitation:ü",
        "keyong-invitation:" + "A" * 200_000,
    ],
)
def test_a_bad_invitation_is_an_invitation_error(text: str) -> None:
    with pytest.raises(InvitationError):
        Invitation.from_text(text)


def test_an_enrolment_must_be_signed_by_every_key_it_names() -> None:
    third = SigningKey.generate()
    request = EnrolmentRequest(
        issued=NOW,
        expires=NOW + timedelta(hours=1),
        consortium=f"urn:uuid:{uuid.uuid4()}",
        member="mill",
        entity="Mill",
        statement_key=KEY.public.text,
        ledger_key=OTHER.public.text,
        witness_key=third.public.text,
        tls_certificate="",
    )
    keys = [KEY.public, OTHER.public, third.public]
    EnrolmentRequest.open(request.seal(KEY, OTHER, third), keys, NOW)
    with pytest.raises(SignatureError):
        EnrolmentRequest.open(request.seal(KEY, OTHER), keys, NOW)


# -- code -------------------------------------------------------------------------------------------------------------


def test_a_bundle_reads_back_and_one_byte_makes_it_another() -> None:
    bundle = CodeBundle({"a.py": b"1", "b/c.py": b""})
    data = bundle.to_bytes()
    assert CodeBundle.from_bytes(data) == bundle
    assert CodeBundle({"a.py": b"2", "b/c.py": b""}).digest != bundle.digest
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        try:
            found = CodeBundle.from_bytes(bytes(changed)).digest
        except KeyongError:
            continue
        assert found != bundle.digest, f"byte {at} may change"


@pytest.mark.parametrize(
    "files",
    [
        {"../x": b""},
        {"/x": b""},
        {"a//b": b""},
        {"a/./b": b""},
        {"": b""},
        {"a\nb": b""},
        {"a": b"", "a/b": b""},
        {"n" * 256: b""},
    ],
    ids=["up", "absolute", "empty part", "dot", "no name", "line feed", "file and folder", "too long"],
)
def test_a_bundle_that_would_not_lie_below_its_folder_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(BundleError):
        CodeBundle.from_bytes(CodeBundle(files).to_bytes())


def test_links_are_not_bundled(tmp_path: Any) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    bundle_folder(tmp_path)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(AppFolderError):
        bundle_folder(tmp_path)


def test_inv1_what_python_would_run_in_place_of_the_source_is_not_bundled(tmp_path: Any) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"\0")
    assert list(bundle_folder(tmp_path).files) == ["pyproject.toml"]  # left there by an honest run
    (tmp_path / "app.so").write_bytes(b"\0")
    with pytest.raises(AppFolderError, match="compiled"):
        bundle_folder(tmp_path)
    with pytest.raises(BundleError, match="compiled"):
        CodeBundle.from_bytes(CodeBundle({"__pycache__/app.cpython-311.pyc": b""}).to_bytes())


def test_low_order_keys_are_refused_where_they_are_enrolled() -> None:
    from federation.statements import Root

    low = "ed25519:" + "A" * 42 + "A="
    with pytest.raises((KeyRefusedError, ValidationError)) as refused:
        Root(threshold=1, keys=(low,))
    assert isinstance(refused.value, KeyRefusedError)
