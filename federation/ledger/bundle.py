"""The receipt bundle: one entry, what opens its fields, its inclusion proof and a signed checkpoint, as JSON.

Verified with the ledger's key alone: no network, no database. Witness cosignatures travel in the checkpoint.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.crypto import MalformedError, canonical_json, parse_json
from federation.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from federation.ledger.entry import MAX_PAYLOAD_BYTES, Entry, Field, check_field, decode
from federation.ledger.errors import EntryReorderedError, LedgerUnreadableError
from federation.ledger.merkle import leaf_hash, verify_inclusion
from federation.ledger.note import VerifierKey

FORMAT = "keyong-ledger-receipt"
VERSION = 1
MAX_BUNDLE_BYTES = 2 * MAX_PAYLOAD_BYTES + 256 * 1024


@dataclass(frozen=True)
class VerifiedBundle:
    """An entry that is proved to be in the ledger, with the disclosed values of its fields."""

    entry: Entry
    data: bytes
    fields: Mapping[str, Any]
    checkpoint: SignedCheckpoint


def encode_fields(fields: Mapping[str, Field]) -> dict[str, dict[str, str]]:
    """Return the JSON form of disclosed fields."""
    return {
        name: {
            "form": field.form,
            "salt": base64.b64encode(field.salt).decode(),
            "payload": base64.b64encode(field.payload).decode(),
        }
        for name, field in fields.items()
    }


def decode_fields(value: Any, at: int) -> dict[str, Field]:
    """Read what ``encode_fields`` wrote; raises ``LedgerUnreadableError``."""
    try:
        fields = {}
        for name, item in value.items():
            if item.keys() != {"form", "salt", "payload"} or item["form"] not in ("json", "raw"):
                raise ValueError
            fields[name] = Field(
                item["form"],
                base64.b64decode(item["salt"], validate=True),
                base64.b64decode(item["payload"], validate=True),
            )
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise LedgerUnreadableError("the disclosed fields of entry {index} are not in this format", index=at) from None
    return fields


def encode_bundle(
    data: bytes, fields: Mapping[str, Field], index: int, size: int, proof: Sequence[bytes], note: bytes
) -> bytes:
    """Return the bundle's canonical JSON."""
    return canonical_json(
        {
            "format": FORMAT,
            "v": VERSION,
            "entry": data.decode(),
            "fields": encode_fields(fields),
            "proof": {"index": index, "size": size, "hashes": [base64.b64encode(one).decode() for one in proof]},
            "checkpoint": note.decode(),
        }
    )


def prove_again(data: bytes, size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Return a bundle whose entry is proved under another checkpoint, of ``size`` entries; verify it before use."""
    try:
        document = parse_json(data, limit=MAX_BUNDLE_BYTES)
        index = document["proof"]["index"]
    except (MalformedError, KeyError, TypeError):
        raise LedgerUnreadableError("this is not a receipt bundle of this version") from None
    hashes = [base64.b64encode(one).decode() for one in proof]
    again = {"proof": {"index": index, "size": size, "hashes": hashes}, "checkpoint": note.decode()}
    return canonical_json({**document, **again})


def verify_bundle(data: bytes, vkey: VerifierKey | str, witnesses: Sequence[VerifierKey] = ()) -> VerifiedBundle:
    """Return the entry that ``data`` proves to be in the ledger of ``vkey``.

    Raises:
        LedgerUnreadableError: not a bundle of this format.
        ProofError: the entry is not in the signed tree.
        FieldModifiedError: a field does not open its commitment.
        LedgerError: the checkpoint is not signed by ``vkey`` (see `open_checkpoint`).
    """
    key = VerifierKey.parse(vkey) if isinstance(vkey, str) else vkey
    try:
        document = parse_json(data, limit=MAX_BUNDLE_BYTES)
        if (document["format"], document["v"]) != (FORMAT, VERSION):
            raise ValueError
        raw = document["entry"].encode("ascii")
        note = document["checkpoint"].encode()
        index, size = document["proof"]["index"], document["proof"]["size"]
        proof = [base64.b64decode(one, validate=True) for one in document["proof"]["hashes"]]
        if type(index) is not int or type(size) is not int or len(document) != 6:
            raise ValueError
    except (MalformedError, KeyError, TypeError, AttributeError, ValueError):
        raise LedgerUnreadableError("this is not a receipt bundle of this version") from None
    signed = open_checkpoint(note, key, witnesses)
    if signed.checkpoint.size != size:
        raise LedgerUnreadableError("the bundle's proof is for another size than its checkpoint", index=index)
    verify_inclusion(leaf_hash(raw), index, size, proof, signed.checkpoint.root)
    entry = decode(raw, index)
    if entry.index != index:
        raise EntryReorderedError("entry {found} stands at index {index}", index=index, found=entry.index)
    fields = decode_fields(document["fields"], index)
    for name, field in fields.items():
        check_field(entry, name, field)
    return VerifiedBundle(entry, raw, {name: field.value() for name, field in fields.items()}, signed)
