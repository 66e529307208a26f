"""DSSE v1 envelopes: signatures over the stored bytes of a statement and its type, never over a re-serialisation.

Specification: https://github.com/secure-systems-lab/dsse (protocol.md, envelope.md). What is stricter here:

- base64 is the standard alphabet in its canonical form (the specification also lets readers take the URL-safe one);
- unknown fields are refused (the specification ignores them): nothing unsigned may travel beside evidence;
- ``keyid`` is required, is our key id, and appears once; it finds a key and proves nothing;
- verification names *every* key that must have signed, so an empty list of keys is refused rather than satisfied.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from federation.crypto import (
    KEY_ID_CHARACTERS,
    SIGNATURE_BYTES,
    MalformedError,
    PublicKey,
    SignatureError,
    SigningKey,
    canonical_json,
    digest,
    parse_json,
)
from federation.errors import UsageError, VerificationError

ENVELOPE_LIMIT = 1 << 20
MAX_SIGNATURES = 64
_KEY_ID = re.compile(rf"[0-9a-f]{{{KEY_ID_CHARACTERS}}}", re.ASCII)
_PLAIN_BEGIN = b'{"payload":"'
_PLAIN_REST = re.compile(
    rb'","payloadType":"([!#-\[\]-~]{1,256})","signatures":\[\{"keyid":"([0-9a-f]{16})","sig":"([A-Za-z0-9+/]{86}==)"\}\]\}'
)
_PAYLOAD_TYPE = re.compile(r"[!-~]{1,256}", re.ASCII)


class StatementTypeError(VerificationError):
    """The envelope holds another type of statement than the one asked for, whoever signed it."""

    code = "statement-type"


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope: the hint that finds its key, and the 64 bytes.

    Raises:
        MalformedError: a key id that is not ours, or not 64 bytes.
    """

    key_id: str
    value: bytes

    def __post_init__(self) -> None:
        if _KEY_ID.fullmatch(self.key_id) is None:
            raise MalformedError("a signature's key id is not 16 lower-case hex digits")
        if len(self.value) != SIGNATURE_BYTES:
            raise MalformedError("a signature does not have 64 bytes")


@dataclass(frozen=True)
class Envelope:
    """A statement's bytes, their type and the signatures over both; well formed, not yet verified.

    Raises:
        MalformedError: no type, no signature or too many, or two signatures with one key id.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        if _PAYLOAD_TYPE.fullmatch(self.payload_type) is None:
            raise MalformedError("the envelope's payload type is not 1 to 256 printable ASCII characters")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise MalformedError("an envelope bears 1 to {limit} signatures", limit=MAX_SIGNATURES)
        if len(self.signatures) > 1 and len({one.key_id for one in self.signatures}) != len(self.signatures):
            raise MalformedError("two signatures of the envelope name one key")

    @cached_property
    def digest(self) -> str:
        """The statement's digest, ``sha256:<hex>`` over its payload: how later statements name this one.

        Signatures are outside it: a second signature makes it no other statement.
        """
        return digest(self.payload)

    @cached_property
    def statements(self) -> dict[type, object]:
        """What readers have made of the payload, by type: neither it nor a statement ever changes."""
        return {}

    def to_bytes(self) -> bytes:
        """The envelope as canonical JSON with DSSE's field names."""
        return self._written

    @cached_property
    def _written(self) -> bytes:
        # Spelled out: base64 and hex digits need no escape. The tests hold it against `canonical_json`.
        kind = canonical_json(self.payload_type).decode("ascii")
        signatures = ",".join(f'{{"keyid":"{one.key_id}","sig":"{_encode(one.value)}"}}' for one in self.signatures)
        return f'{{"payload":"{_encode(self.payload)}","payloadType":{kind},"signatures":[{signatures}]}}'.encode(
            "ascii"
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, limit: int = ENVELOPE_LIMIT) -> Self:
        """Read an envelope from an untrusted source; says nothing about its signatures.

        Args:
            data: JSON with DSSE's fields and no others.
            limit: the most bytes to look at.

        Raises:
            MalformedError: anything but a well-formed envelope.
        """
        if len(data) <= limit and data.startswith(_PLAIN_BEGIN):
            end = data.find(b'"', len(_PLAIN_BEGIN))
            plain = _PLAIN_REST.fullmatch(data, end)
            if plain is not None:  # as `to_bytes` writes it, with one signature
                kind, key_id, signature = plain.groups()
                value = Signature(key_id.decode("ascii"), _unbase64(signature))
                return cls(kind.decode("ascii"), _unbase64(data[len(_PLAIN_BEGIN) : end]), (value,))
        fields = _fields(parse_json(data, limit=limit), {"payload", "payloadType", "signatures"})
        signatures = fields["signatures"]
        if not isinstance(signatures, list) or len(signatures) > MAX_SIGNATURES:
            raise MalformedError("the envelope's signatures are not a list of at most {limit}", limit=MAX_SIGNATURES)
        return cls(
            payload_type=_text(fields["payloadType"]),
            payload=_decode(fields["payload"]),
            signatures=tuple(_signature(item) for item in signatures),
        )


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed.

    ``DSSEv1 SP len(type) SP type SP len(body) SP body`` with byte lengths in decimal, so that no type and body can be
    read as another pair.
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(key: SigningKey, payload_type: str, payload: bytes) -> Envelope:
    """An envelope around ``payload`` with one signature, by ``key``."""
    return Envelope(payload_type, payload, (_sign(key, payload_type, payload),))


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """The same statement with one more signature; earlier ones are kept as they are, unverified.

    Raises:
        UsageError: the envelope already bears a signature by this key.
    """
    if any(one.key_id == key.public.key_id for one in envelope.signatures):
        raise UsageError("the statement already bears a signature by key {key_id}", key_id=key.public.key_id)
    added = _sign(key, envelope.payload_type, envelope.payload)
    return replace(envelope, signatures=(*envelope.signatures, added))


def verify(envelope: Envelope, payload_type: str, keys: Sequence[PublicKey]) -> None:
    """Return if the statement is of this type and every one of ``keys`` signed it; raise otherwise.

    Signatures by other keys are ignored: they neither help nor harm.

    Args:
        envelope: what was received.
        payload_type: the one type that the caller is about to read it as.
        keys: all who must have signed, each once: a key named twice is refused, lest one signer pass for two.

    Raises:
        StatementTypeError: another type.
        SignatureError: a signature is missing or does not hold, or ``keys`` is empty or repeats a key.
    """
    _check_request(envelope, payload_type, keys)
    signed = pae(envelope.payload_type, envelope.payload)
    for key in keys:
        signature = _by(envelope, key)
        if signature is None:
            raise SignatureError("the signature by key {key_id} is missing", key_id=key.key_id)
        key.verify(signature.value, signed)


def verify_quorum(
    envelope: Envelope, payload_type: str, keys: Sequence[PublicKey], threshold: int
) -> tuple[PublicKey, ...]:
    """The keys among ``keys`` that signed the statement, if they are at least ``threshold``; raise otherwise.

    A signature under one of ``keys`` that does not hold refuses the whole statement: it is damage or an attack, and
    neither should be outvoted in silence.

    Raises:
        StatementTypeError: another type.
        SignatureError: too few signed, one does not hold, ``keys`` is empty or repeats a key, or ``threshold`` is not
            within 1 and their number.
    """
    _check_request(envelope, payload_type, keys)
    if not 1 <= threshold <= len(keys):
        raise SignatureError("a quorum of {threshold} among {count} keys", threshold=threshold, count=len(keys))
    signed = pae(envelope.payload_type, envelope.payload)
    signers = []
    for key in keys:
        signature = _by(envelope, key)
        if signature is not None:
            key.verify(signature.value, signed)
            signers.append(key)
    if len(signers) < threshold:
        raise SignatureError(
            "{count} of the {threshold} signatures needed are there", count=len(signers), threshold=threshold
        )
    return tuple(signers)


def _check_request(envelope: Envelope, payload_type: str, keys: Sequence[PublicKey]) -> None:
    if envelope.payload_type != payload_type:
        raise StatementTypeError(
            "the statement is of type {actual}, not {expected}", actual=envelope.payload_type, expected=payload_type
        )
    if not keys:
        raise SignatureError("no key is named whose signature the statement needs")
    if len(keys) > 1 and len({key.key_id for key in keys}) != len(keys):
        raise SignatureError("one key is named twice among those that must sign")


def _by(envelope: Envelope, key: PublicKey) -> Signature | None:
    for one in envelope.signatures:
        if one.key_id == key.key_id:
            return one
    return None


def _sign(key: SigningKey, payload_type: str, payload: bytes) -> Signature:
    return Signature(key.public.key_id, key.sign(pae(payload_type, payload)))


def _signature(item: object) -> Signature:
    fields = _fields(item, {"keyid", "sig"})
    return Signature(_text(fields["keyid"]), _decode(fields["sig"]))


def _fields(item: object, names: set[str]) -> dict[str, object]:
    if not isinstance(item, dict) or item.keys() != names:
        raise MalformedError("the envelope's fields are not exactly {names}", names=", ".join(sorted(names)))
    return item


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise MalformedError("a field of the envelope is not a string")
    return item


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(item: object) -> bytes:
    try:
        return _unbase64(_text(item).encode("ascii"))
    except UnicodeEncodeError:
        raise MalformedError("a field of the envelope is not base64") from None


def _unbase64(text: bytes) -> bytes:
    """The bytes that ``text`` is the one canonical base64 of."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise MalformedError("a field of the envelope is not base64") from None
    # Four characters say three bytes in one way; only the last ones can hold spare bits that are set, or padding in excess.
    tail = len(data) % 3
    if len(text) != (len(data) + 2) // 3 * 4 or (
        tail and text[-4:] != binascii.b2a_base64(data[-tail:], newline=False)
    ):
        raise MalformedError("a field of the envelope is not base64 in its canonical form")
    return data
