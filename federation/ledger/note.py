"""C2SP signed notes: a text, and under it signatures by named keys (https://c2sp.org/signed-note).

Two signature types exist here: 01 (plain Ed25519 over the text; the ledger's own) and 04 (timestamped Ed25519
cosignature; a witness's, see `federation.ledger.checkpoint`). The type is part of the key's id, so that a signature
made in one role cannot be read in the other. Signatures by unknown keys are ignored, one by a known key that fails
rejects the whole note, and a note without any good known signature is an error that says why.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from federation.crypto import KeyRefusedError, PublicKey, SignatureError
from federation.ledger.errors import (
    KeySubstitutionError,
    NoteFormatError,
    NoteSignatureError,
    SignatureMissingError,
    SignatureTypeError,
)

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
_SIGNATURE_LENGTHS = {ED25519: 64, COSIGNATURE: 72}

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 128
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DASH = "— "  # em dash and a space, as the specification has it


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line as it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note: its signed text (ending in a newline) and its signature lines, none of them verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Return the note's bytes."""
        return (self.text + "\n" + "".join(signature.line() for signature in self.signatures)).encode()


@dataclass(frozen=True)
class FormerKey:
    """A key that signed a ledger before the one it has now.

    Attributes:
        size, root: the state at which the next key took over: the last that this one may sign.
        note: the checkpoint of that state, signed by both keys.
    """

    public: PublicKey
    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True)
class VerifierKey:
    """A name, a signature type and an Ed25519 key: what a signature in a note is verified with.

    Attributes:
        former: the keys that a ledger had before this one, oldest first; each speaks for its own part of the history alone.
        until: seconds since 1970 when a witness's key ended; what it cosigned later does not count.
    """

    name: str
    public: PublicKey
    type: int = ED25519
    former: tuple[FormerKey, ...] = ()
    until: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.type not in _SIGNATURE_LENGTHS:
            raise NoteFormatError("signature type {type} is not supported", type=self.type)

    @cached_property
    def key_id(self) -> bytes:
        """Four bytes that find, but do not authenticate, the key."""
        return key_id(self.name, self.type, self.public.raw)

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read ``name+hex8(id)+base64(type | key)``; the id must be the key's own."""
        name, _, rest = vkey.partition("+")
        hexed, _, encoded = rest.partition("+")
        raw = _unbase64(encoded)
        if re.fullmatch(r"[0-9a-f]{8}", hexed) is None or len(raw) != 33:
            raise NoteFormatError("this is not a verifier key: name+id+key")
        try:
            key = cls(name, PublicKey(raw[1:]), raw[0])
        except KeyRefusedError:
            raise NoteFormatError("the verifier key of {name} is not a sound Ed25519 key", name=name) from None
        if key.key_id != bytes.fromhex(hexed):
            raise NoteFormatError("the verifier key of {name} does not have the id it states", name=name)
        return key

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.type]) + self.public.raw).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


def key_id(name: str, kind: int, raw: bytes) -> bytes:
    """Return SHA256(name | 0x0A | type | key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + raw).digest()[:4]


def check_name(name: str) -> str:
    """Return ``name`` if it can name a key (no space, no plus, no control character), else raise."""
    if _NAME.fullmatch(name) is None or not name.isprintable():
        raise NoteFormatError("a key's name is 1 to 255 characters without spaces, '+' or control characters")
    return name


def parse_note(data: bytes) -> Note:
    """Return the note in ``data``; the signatures are not verified.

    Raises:
        NoteFormatError: not UTF-8, a control character, no empty line, a line that is no signature, too large.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise NoteFormatError("a signed note is at most {limit} bytes", limit=MAX_NOTE_BYTES)
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteFormatError("a signed note is UTF-8") from None
    if _CONTROL.search(whole) is not None:
        raise NoteFormatError("a signed note holds no control characters")
    # The last empty line: the text itself may hold others.
    cut = whole.rfind("\n\n")
    if cut < 0:
        raise NoteFormatError("a signed note has an empty line between text and signatures")
    text, block = whole[: cut + 1], whole[cut + 2 :]
    if not block.endswith("\n"):
        raise SignatureMissingError(
            "the note carries no signature", hint="ask its author for the signed note, not for its text"
        )
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteFormatError("a signed note carries at most {limit} signatures", limit=MAX_SIGNATURES)
    return Note(text, tuple(_parse_line(line) for line in lines))


def _parse_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise NoteFormatError("a signature line is an em dash, a name and base64")
    raw = _unbase64(encoded)
    if len(raw) < 5:
        raise NoteFormatError("the signature by {name} is too short", name=check_name(name))
    return NoteSignature(check_name(name), raw[:4], raw[4:])


def verify_note(note: Note, keys: Sequence[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Return those of ``keys`` (each once, in their order) that signed ``note``; at least one must have.

    Raises:
        NoteSignatureError: a known key's signature fails.
        SignatureTypeError, KeySubstitutionError, SignatureMissingError: no known key signed; the closest reason.
    """
    good: set[tuple[str, bytes]] = set()
    for signature in note.signatures:
        for key in keys:
            if (signature.name, signature.key_id) == (key.name, key.key_id) and not _ended(signature, key):
                _verify_one(note.text, signature, key)
                good.add((key.name, key.key_id))
    signers = tuple(dict.fromkeys(key for key in keys if (key.name, key.key_id) in good))
    if not signers:
        raise _why_unsigned(note, keys)
    return signers


def _ended(signature: NoteSignature, key: VerifierKey) -> bool:
    """Whether a witness's key had ended when it cosigned: such a line says no more than one by a stranger."""
    return key.until is not None and int.from_bytes(signature.value[:8], "big") > key.until


def _verify_one(text: str, signature: NoteSignature, key: VerifierKey) -> None:
    if len(signature.value) != _SIGNATURE_LENGTHS[key.type]:
        raise SignatureTypeError("the signature by {name} has the length of another type", name=key.name)
    message = text.encode()
    value = signature.value
    if key.type == COSIGNATURE:
        time = int.from_bytes(value[:8], "big")
        message, value = cosigned_message(text, time), value[8:]
    try:
        key.public.verify(value, message)
    except SignatureError:
        raise NoteSignatureError("the signature by {name} does not hold", name=key.name) from None


def _why_unsigned(note: Note, keys: Sequence[VerifierKey]) -> Exception:
    for signature in note.signatures:
        for key in keys:
            if signature.name != key.name:
                continue
            others = {key_id(key.name, kind, key.public.raw) for kind in _SIGNATURE_LENGTHS if kind != key.type}
            if signature.key_id in others:
                return SignatureTypeError("{name} signed this in another role", name=key.name)
            return KeySubstitutionError(
                "{name} is signed with another key than the one expected",
                hint="compare the fingerprint with its owner over another way",
                name=key.name,
            )
    return SignatureMissingError("none of the expected keys signed this note")


def cosigned_message(text: str, time: int) -> bytes:
    """Return what a type 04 signature signs: the checkpoint's text under a line with the time."""
    return b"cosignature/v1\ntime %d\n" % time + text.encode()


def _unbase64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise NoteFormatError("a key or signature is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteFormatError("a key or signature is not in canonical base64")
    return raw
