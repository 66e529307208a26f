"""The entry: a clear envelope around commitments, small, canonical, and silent about what it commits to.

Envelope (canonical JSON, at most 16 KiB)::

    {"fields": {name: hex}, "index": n, "kind": text, "nonce": hex16, "prev": hex32, "ref": n or null, "time": text, "v": 1}

``prev`` is the leaf hash of the entry before (64 zeros at index 0), ``time`` RFC 3339 in UTC with milliseconds, and
``ref`` the index of the entry this one settles (an outcome's intent), so that completeness can be judged from envelopes
alone. Each field is a commitment SHA256(domain | 32-byte salt | payload): salt and payload live beside the entry and can
be erased without touching the tree. The nonce keeps a sibling hash in someone else's proof from being guessed. The
domain says whether the payload is canonical JSON or raw bytes (a statement as it was signed), so that neither can be
shown as the other.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

from federation.crypto import canonical_json, parse_json
from federation.ledger.errors import EntryRefusedError, FieldModifiedError, LedgerUnreadableError

VERSION: Final = 1
MAX_ENTRY_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = 1024 * 1024  # all payloads of one entry together
MAX_FIELDS = 128
SALT_BYTES = 32
NONCE_BYTES = 16
NO_PREVIOUS = "0" * 64

Clock = Callable[[], datetime]
Form = Literal["json", "raw"]
_DOMAINS: dict[str, bytes] = {
    "json": b"keyong/ledger/field/v1/json\x00",
    "raw": b"keyong/ledger/field/v1/raw\x00",
}
_KIND = re.compile(r"[a-z][a-z0-9.-]{0,63}", re.ASCII)
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX16 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_KEYS = {"fields", "index", "kind", "nonce", "prev", "ref", "time", "v"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An envelope, read; ``fields`` holds commitments, not values."""

    index: int
    kind: str
    prev: str
    time: str
    nonce: str
    ref: int | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Field:
    """What opens one commitment; never shown, because the payload is business data."""

    form: Form
    salt: bytes
    payload: bytes

    def commitment(self) -> str:
        """Return SHA256(domain | salt | payload) in hex."""
        return hashlib.sha256(_DOMAINS[self.form] + self.salt + self.payload).hexdigest()

    def value(self) -> Any:
        """Return the JSON value, or the raw bytes."""
        return self.payload if self.form == "raw" else parse_json(self.payload, limit=MAX_PAYLOAD_BYTES)


def seal(value: object) -> Field:
    """Return ``value`` ready to be committed to: bytes stay raw, all else becomes canonical JSON (never floats)."""
    if isinstance(value, bytes):
        return Field("raw", secrets.token_bytes(SALT_BYTES), value)
    return Field("json", secrets.token_bytes(SALT_BYTES), canonical_json(value))


def check_kind(kind: str) -> str:
    """Return ``kind`` if it is one (an open set: ``[a-z][a-z0-9.-]*``), else raise ``EntryRefusedError``."""
    if _KIND.fullmatch(kind) is None:
        raise EntryRefusedError("an entry's kind is 1 to 64 characters a-z, 0-9, '.' and '-', starting with a letter")
    return kind


def seal_all(fields: Mapping[str, object]) -> dict[str, Field]:
    """Seal each field, within the limits of an entry.

    Raises:
        EntryRefusedError: a bad name, too many fields, or more than 1 MiB of payload.
    """
    for name in fields:
        if _FIELD.fullmatch(name) is None:
            raise EntryRefusedError("a field's name is 1 to 64 characters A-Z, a-z, 0-9, '_', '.' and '-'")
    sealed = {name: seal(value) for name, value in fields.items()}
    check_sealed(sealed)
    return sealed


def check_sealed(sealed: Mapping[str, Field]) -> None:
    """Raise ``EntryRefusedError`` if these are too many fields, or too large, for one entry."""
    if len(sealed) > MAX_FIELDS:
        raise EntryRefusedError("an entry has at most {limit} fields", limit=MAX_FIELDS)
    if sum(len(field.payload) for field in sealed.values()) > MAX_PAYLOAD_BYTES:
        raise EntryRefusedError(
            "the fields of one entry are larger than {limit} bytes",
            hint="record the digest and keep the content elsewhere",
            limit=MAX_PAYLOAD_BYTES,
        )


def encode(entry: Entry) -> bytes:
    """Return the canonical bytes of the envelope.

    ``json.dumps`` gives the bytes of RFC 8785 here, four times faster: all keys and texts are ASCII, all numbers small
    integers (held against ``canonical_json`` in the tests).
    """
    data = json.dumps(
        {
            "fields": dict(sorted(entry.fields.items())),
            "index": entry.index,
            "kind": entry.kind,
            "nonce": entry.nonce,
            "prev": entry.prev,
            "ref": entry.ref,
            "time": entry.time,
            "v": VERSION,
        },
        separators=(",", ":"),
    ).encode()
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryRefusedError("an entry is at most {limit} bytes", limit=MAX_ENTRY_BYTES)
    return data


def decode(data: bytes, at: int) -> Entry:
    """Return the envelope in ``data``; ``at`` only names the place in an error.

    Raises:
        LedgerUnreadableError: not this format, or not its canonical bytes.
    """
    if len(data) <= MAX_ENTRY_BYTES:
        try:
            entry = _from_json(json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError):
            entry = None
        if entry is not None and encode(entry) == data:
            return entry
    raise LedgerUnreadableError("entry {index} is not an entry of this format", index=at)


def _from_json(value: Any) -> Entry | None:
    if not isinstance(value, dict) or value.keys() != _KEYS or type(value["v"]) is not int or value["v"] != VERSION:
        return None
    index, ref, fields = value["index"], value["ref"], value["fields"]
    if type(index) is not int or index < 0 or not (ref is None or (type(ref) is int and 0 <= ref < index)):
        return None
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        return None
    if any(_FIELD.fullmatch(name) is None or _HEX32.fullmatch(fields[name]) is None for name in fields):
        return None
    for pattern, key in ((_KIND, "kind"), (_HEX32, "prev"), (_HEX16, "nonce"), (_TIME, "time")):
        if pattern.fullmatch(value[key]) is None:
            return None
    return Entry(index, value["kind"], value["prev"], value["time"], value["nonce"], ref, fields)


def check_field(entry: Entry, name: str, field: Field) -> None:
    """Raise ``FieldModifiedError`` unless ``field`` opens the commitment ``name`` of ``entry``."""
    if entry.fields.get(name) != field.commitment() or len(field.salt) != SALT_BYTES:
        raise FieldModifiedError(
            "the field {field} of entry {index} is not the one that was recorded", index=entry.index, field=name
        )


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds; texts of this form sort as their times do."""
    return _format(int(moment.timestamp() * 1000))


@lru_cache(maxsize=64)
def _format(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def utc_now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)
