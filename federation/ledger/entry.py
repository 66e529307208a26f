"""The entry: a clear envelope around commitments, small, canonical, and silent about what it commits to.

Envelope (canonical JSON, at most 16 KiB)::

    {"fields": {name: hex32}, "index": n, "kind": text, "nonce": hex16, "prev": hex32, "ref": n or null,
     "time": text, "v": 1}

``prev`` is the leaf hash of the entry before (64 zeros at index 0), ``time`` RFC 3339 in UTC with milliseconds, and
``ref`` the index of the entry this one settles (an outcome's intent), so that completeness can be judged from envelopes
alone. Each field is a commitment SHA256(domain | 32-byte salt | payload): salt and payload live beside the entry, to
be erased without touching the tree. The nonce keeps a sibling hash in someone else's proof from being guessed. The
domain says whether the payload is canonical JSON or raw bytes (a statement as it was signed), so that neither can be
shown as the other.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from federation.crypto import canonical_json, parse_json
from federation.ledger.errors import EntryRefusedError, FieldModifiedError, LedgerUnreadableError

VERSION: Final = 1
MAX_ENTRY_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = 1024 * 1024  # all payloads of one entry together
MAX_FIELDS = 128
SALT_BYTES = 32
NONCE_BYTES = 16

Clock = Callable[[], datetime]
Form = Literal["json", "raw"]
DOMAINS: Final[dict[str, bytes]] = {
    "json": b"keyong/ledger/field/v1/json\x00",
    "raw": b"keyong/ledger/field/v1/raw\x00",
}
_KIND_PATTERN = r"[a-z][a-z0-9.-]{0,63}"
_FIELD_PATTERN = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"
_PAIR_PATTERN = rf'"{_FIELD_PATTERN}":"[0-9a-f]{{64}}"'
_NUMBER_PATTERN = r"(?:0|[1-9][0-9]{0,14})"
_KIND = re.compile(_KIND_PATTERN, re.ASCII)
_FIELD = re.compile(_FIELD_PATTERN, re.ASCII)
_PAIR = re.compile(rf'"({_FIELD_PATTERN})":"([0-9a-f]{{64}})"', re.ASCII)
_REST_PATTERN = (
    rf'"index":({_NUMBER_PATTERN}),"kind":"({_KIND_PATTERN})","nonce":"([0-9a-f]{{32}})","prev":"([0-9a-f]{{64}})",'
    rf'"ref":(null|{_NUMBER_PATTERN}),'
    rf'"time":"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}\.[0-9]{{3}}Z)","v":{VERSION}}}'
)
REST: Final = re.compile(_REST_PATTERN.encode("ascii"))
"""What follows the fields in an envelope: index, kind, nonce, prev, ref, time."""
_ENVELOPE = re.compile(rf'{{"fields":{{((?:{_PAIR_PATTERN}(?:,{_PAIR_PATTERN})*)?)}},{_REST_PATTERN}'.encode("ascii"))


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


class Field(NamedTuple):
    """What opens one commitment; never shown, because the payload is business data."""

    form: Form
    salt: bytes
    payload: bytes

    def __repr__(self) -> str:
        return f"Field({self.form!r}, ...)"

    def commitment(self) -> str:
        """Return SHA256(domain | salt | payload) in hex."""
        return hashlib.sha256(DOMAINS[self.form] + self.salt + self.payload).hexdigest()

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


def is_field_name(name: str) -> bool:
    """Whether a field can have this name."""
    return _FIELD.fullmatch(name) is not None


def seal_all(fields: Mapping[str, object]) -> dict[str, Field]:
    """Seal each field, within the limits of an entry.

    Raises:
        EntryRefusedError: a bad name, too many fields, or more than 1 MiB of payload.
    """
    for name in fields:
        if not is_field_name(name):
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

    Spelled out, eight times faster than a canonical JSON library: every text is ASCII that needs no escape (kinds and
    field names are checked before they get here), every number a small integer. The tests hold it against
    ``canonical_json``.
    """
    fields = ",".join([f'"{name}":"{entry.fields[name]}"' for name in sorted(entry.fields)])
    ref = "null" if entry.ref is None else entry.ref
    data = (
        f'{{"fields":{{{fields}}},"index":{entry.index},"kind":"{entry.kind}","nonce":"{entry.nonce}",'
        f'"prev":"{entry.prev}","ref":{ref},"time":"{entry.time}","v":{VERSION}}}'
    ).encode("ascii")
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryRefusedError("an entry is at most {limit} bytes", limit=MAX_ENTRY_BYTES)
    return data


def decode(data: bytes, at: int) -> Entry:
    """Return the envelope in ``data``; ``at`` only names the place in an error.

    One expression that matches canonical bytes only: there is no second spelling of an entry to confuse two readers.

    Raises:
        LedgerUnreadableError: not this format, or not its canonical bytes.
    """
    match = _ENVELOPE.fullmatch(data) if len(data) <= MAX_ENTRY_BYTES else None
    if match is not None:
        listed, index, kind, nonce, prev, ref, time = [group.decode("ascii") for group in match.groups()]
        fields = dict(_PAIR.findall(listed))
        settles = None if ref == "null" else int(ref)
        canonical = listed.count(":") == len(fields) <= MAX_FIELDS and list(fields) == sorted(fields)
        if canonical and (settles is None or settles < int(index)):
            return Entry(int(index), kind, prev, time, nonce, settles, fields)
    raise LedgerUnreadableError("entry {index} is not an entry of this format", index=at)


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
