"""DSSE envelopes: the specification's vector, strict form, and every key must have signed."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import MalformedError, SignatureError, SigningKey, canonical_json, digest
from federation.errors import UsageError
from federation.statements.dsse import (
    MAX_SIGNATURES,
    Envelope,
    Signature,
    StatementTypeError,
    add_signature,
    pae,
    sign,
    verify,
    verify_quorum,
)

TYPE = "application/vnd.keyong.test.v1+json"
ALICE, BOB, CAROL = (SigningKey.from_bytes(bytes([number]) * 32) for number in (1, 2, 3))
types = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@pytest.fixture
def both() -> Envelope:
    return add_signature(sign(ALICE, TYPE, b"{}"), BOB)


def test_vector_of_the_specification() -> None:
    """protocol.md of DSSE: the encoding, and its ECDSA P-256 signature, which holds over our encoding."""
    encoded = pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    public = ec.EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        ec.SECP256R1(),
    ).public_key()
    raw = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    signature = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(signature, encoded, ec.ECDSA(hashes.SHA256()))


def test_lengths_count_bytes() -> None:
    assert pae("\u00e9", "\u53ef\u7528".encode()) == b"DSSEv1 2 \xc3\xa9 6 " + "\u53ef\u7528".encode()


@settings(deadline=None)
@given(st.tuples(st.text(max_size=8), st.binary(max_size=8)), st.tuples(st.text(max_size=8), st.binary(max_size=8)))
def test_no_two_statements_share_an_encoding(one: tuple[str, bytes], two: tuple[str, bytes]) -> None:
    assert (pae(*one) == pae(*two)) == (one == two)


@settings(deadline=None)
@given(types, st.binary(max_size=200))
def test_an_envelope_survives_its_bytes(payload_type: str, payload: bytes) -> None:
    envelope = add_signature(sign(ALICE, payload_type, payload), BOB)
    again = Envelope.from_bytes(envelope.to_bytes())
    assert again == envelope
    assert again.to_bytes() == envelope.to_bytes()
    assert again.digest == digest(payload)
    verify(again, payload_type, [ALICE.public, BOB.public])


@given(types, st.binary(max_size=200), st.booleans())
def test_an_envelope_is_written_and_read_as_canonical_json_is(payload_type: str, payload: bytes, twice: bool) -> None:
    """Spelled out where it is written, matched where it is read: the same bytes and the same envelope as the long way's."""
    envelope = sign(ALICE, payload_type, payload)
    envelope = add_signature(envelope, BOB) if twice else envelope
    value = json.loads(envelope.to_bytes())
    assert canonical_json(value) == envelope.to_bytes()
    assert (
        Envelope.from_bytes(json.dumps(value, indent=1).encode())
        == Envelope.from_bytes(envelope.to_bytes())
        == envelope
    )


def test_the_fields_are_those_of_dsse(both: Envelope) -> None:
    fields = json.loads(both.to_bytes())
    assert fields == {
        "payload": "e30=",
        "payloadType": TYPE,
        "signatures": [
            {"keyid": key.public.key_id, "sig": base64.b64encode(key.sign(pae(TYPE, b"{}"))).decode()}
            for key in (ALICE, BOB)
        ],
    }


def test_signatures_are_outside_the_digest(both: Envelope) -> None:
    assert both.digest == sign(CAROL, TYPE, b"{}").digest == digest(b"{}")


@settings(deadline=None)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_changed_payload_is_refused(payload: bytes, other: bytes) -> None:
    envelope = replace(sign(ALICE, TYPE, payload), payload=other)
    if other == payload:
        verify(envelope, TYPE, [ALICE.public])
    else:
        with pytest.raises(SignatureError):
            verify(envelope, TYPE, [ALICE.public])


def test_another_type_is_refused_even_if_signed(both: Envelope) -> None:
    with pytest.raises(StatementTypeError) as caught:
        verify(both, "application/other", [ALICE.public])
    assert caught.value.code == "statement-type"
    relabelled = replace(both, payload_type="application/other")
    with pytest.raises(SignatureError):
        verify(relabelled, "application/other", [ALICE.public])


def test_every_key_must_have_signed(both: Envelope) -> None:
    verify(both, TYPE, [ALICE.public])
    verify(both, TYPE, [BOB.public, ALICE.public])
    with pytest.raises(SignatureError, match=rf"key {CAROL.public.key_id} is missing"):
        verify(both, TYPE, [ALICE.public, CAROL.public])


def test_a_wrong_signature_is_named(both: Envelope) -> None:
    wrong = Signature(BOB.public.key_id, BOB.sign(b"something else"))
    damaged = replace(both, signatures=(both.signatures[0], wrong))
    with pytest.raises(SignatureError, match=rf"key {BOB.public.key_id} does not hold"):
        verify(damaged, TYPE, [ALICE.public, BOB.public])
    verify(damaged, TYPE, [ALICE.public])


def test_a_signature_does_not_pass_under_another_key_id(both: Envelope) -> None:
    stolen = Signature(CAROL.public.key_id, both.signatures[0].value)
    with pytest.raises(SignatureError, match=rf"key {CAROL.public.key_id} does not hold"):
        verify(replace(both, signatures=(stolen,)), TYPE, [CAROL.public])


def test_naming_no_key_or_one_twice_is_refused(both: Envelope) -> None:
    """A loop over no keys would accept everything, and one signer must not pass for two."""
    for keys in ([], [ALICE.public, ALICE.public]):
        with pytest.raises(SignatureError):
            verify(both, TYPE, keys)
        with pytest.raises(SignatureError):
            verify_quorum(both, TYPE, keys, 1)


def test_nobody_signs_twice(both: Envelope) -> None:
    with pytest.raises(UsageError, match=ALICE.public.key_id):
        add_signature(both, ALICE)
    with pytest.raises(MalformedError, match="name one key"):
        replace(both, signatures=(*both.signatures, both.signatures[0]))


def test_a_quorum_counts_those_who_signed(both: Envelope) -> None:
    keys = [ALICE.public, BOB.public, CAROL.public]
    assert verify_quorum(both, TYPE, keys, 2) == (ALICE.public, BOB.public)
    with pytest.raises(SignatureError, match="2 of the 3"):
        verify_quorum(both, TYPE, keys, 3)
    for threshold in (0, -1, 4):
        with pytest.raises(SignatureError, match="quorum"):
            verify_quorum(both, TYPE, keys, threshold)
    with pytest.raises(StatementTypeError):
        verify_quorum(both, "other", keys, 1)


def test_a_quorum_does_not_outvote_a_signature_that_does_not_hold(both: Envelope) -> None:
    wrong = Signature(CAROL.public.key_id, CAROL.sign(b"something else"))
    damaged = replace(both, signatures=(*both.signatures, wrong))
    with pytest.raises(SignatureError, match=CAROL.public.key_id):
        verify_quorum(damaged, TYPE, [ALICE.public, BOB.public, CAROL.public], 2)
    assert len(verify_quorum(damaged, TYPE, [ALICE.public, BOB.public], 2)) == 2


def mutated(**changes: Any) -> bytes:
    fields = json.loads(sign(ALICE, TYPE, b"{}").to_bytes())
    fields.update(changes)
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


SIGNATURE = json.loads(sign(ALICE, TYPE, b"{}").to_bytes())["signatures"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        mutated(payload=...),
        mutated(payloadType=...),
        mutated(signatures=...),
        mutated(extra="unsigned"),
        mutated(payload="e30"),
        mutated(payload="e31="),
        mutated(payload="e30=\n"),
        mutated(payload="e30=e30="),
        mutated(payload="-_8="),
        mutated(payload="\u00e9\u00e9\u00e9\u00e9"),
        mutated(payload=1),
        mutated(payloadType=""),
        mutated(payloadType="a b"),
        mutated(payloadType="\u00e9"),
        mutated(payloadType="x" * 257),
        mutated(payloadType=None),
        mutated(signatures=[]),
        mutated(signatures={}),
        mutated(signatures=["x"]),
        mutated(signatures=[SIGNATURE, SIGNATURE]),
        mutated(signatures=[{**SIGNATURE, "cert": "x"}]),
        mutated(signatures=[{"sig": SIGNATURE["sig"]}]),
        mutated(signatures=[{**SIGNATURE, "keyid": ""}]),
        mutated(signatures=[{**SIGNATURE, "keyid": SIGNATURE["keyid"].upper() + "F"}]),
        mutated(signatures=[{**SIGNATURE, "sig": "AAAA"}]),
        mutated(signatures=[{**SIGNATURE, "keyid": f"{n:016x}"} for n in range(MAX_SIGNATURES + 1)]),
        b'{"payload":"e30=",' + mutated()[1:],
    ],
)
def test_malformed_envelopes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Envelope.from_bytes(data)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Envelope.from_bytes(data)


def test_size_is_bounded() -> None:
    data = sign(ALICE, TYPE, bytes(1000)).to_bytes()
    assert Envelope.from_bytes(data, limit=len(data)).payload == bytes(1000)
    with pytest.raises(MalformedError):
        Envelope.from_bytes(data, limit=len(data) - 1)
