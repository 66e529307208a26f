"""An append-only, signed record that anybody can verify offline, in the formats of transparency logs.

>>> import tempfile, pathlib
>>> from federation.crypto import SigningKey
>>> from federation.ledger import Ledger, verify_bundle, verify_ledger
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> with Ledger.create(folder, "keyong/example/steelworks", SigningKey.generate()) as ledger:
...     intent = ledger.append("intent", {"purpose": "rolling-force"})
...     _ = ledger.append("outcome", {"outcome": "ok"}, ref=intent.index)
...     receipt = ledger.receipt_bundle(intent.index)
...     vkey = ledger.vkey
>>> verify_bundle(receipt, vkey).fields
{'purpose': 'rolling-force'}
>>> verdict = verify_ledger(folder, vkey, receipts=[receipt])
>>> verdict.entries, verdict.anchoring, verdict.completeness
(2, 'unanchored', 'complete')
"""

from __future__ import annotations

from federation.ledger.bundle import VerifiedBundle, prove_again, verify_bundle
from federation.ledger.checkpoint import Checkpoint, SignedCheckpoint, cosign, open_checkpoint, sign_checkpoint
from federation.ledger.entry import Clock, Entry
from federation.ledger.errors import (
    CheckpointMismatchError,
    CheckpointMissingError,
    DuplicateIndexError,
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryRefusedError,
    EntryReorderedError,
    FieldMissingError,
    FieldModifiedError,
    ForkError,
    HeadError,
    KeyEndedError,
    KeySubstitutionError,
    LedgerError,
    LedgerRolledBackError,
    LedgerUnavailableError,
    LedgerUnreadableError,
    NoteFormatError,
    NoteSignatureError,
    OriginError,
    ProofError,
    SignatureMissingError,
    SignatureTypeError,
    StoredColumnError,
    StoredHashError,
    TileError,
    TimestampRollbackError,
    TruncatedError,
    UnsignedEntriesError,
)
from federation.ledger.fork import Fork, is_fork, prove_fork, roots_at, verify_fork
from federation.ledger.ledger import Ledger
from federation.ledger.merkle import verify_consistency, verify_extension, verify_inclusion
from federation.ledger.note import FormerKey, Note, NoteSignature, VerifierKey, parse_note, verify_note
from federation.ledger.refusals import Refusals
from federation.ledger.verify import Verdict, verify_ledger
from federation.ledger.witness import AddCheckpoint, Witness, WitnessRefusedError, countersign
from federation.ledger.writer import Appended

__all__ = [
    "AddCheckpoint",
    "Appended",
    "Checkpoint",
    "CheckpointMismatchError",
    "CheckpointMissingError",
    "Clock",
    "DuplicateIndexError",
    "Entry",
    "EntryInsertedError",
    "EntryMissingError",
    "EntryModifiedError",
    "EntryRefusedError",
    "EntryReorderedError",
    "FieldMissingError",
    "FieldModifiedError",
    "Fork",
    "ForkError",
    "FormerKey",
    "HeadError",
    "KeyEndedError",
    "KeySubstitutionError",
    "Ledger",
    "LedgerError",
    "LedgerRolledBackError",
    "LedgerUnavailableError",
    "LedgerUnreadableError",
    "Note",
    "NoteFormatError",
    "NoteSignature",
    "NoteSignatureError",
    "OriginError",
    "ProofError",
    "Refusals",
    "SignatureMissingError",
    "SignatureTypeError",
    "SignedCheckpoint",
    "StoredColumnError",
    "StoredHashError",
    "TileError",
    "TimestampRollbackError",
    "TruncatedError",
    "UnsignedEntriesError",
    "Verdict",
    "VerifiedBundle",
    "VerifierKey",
    "Witness",
    "WitnessRefusedError",
    "cosign",
    "countersign",
    "is_fork",
    "open_checkpoint",
    "parse_note",
    "prove_again",
    "prove_fork",
    "roots_at",
    "sign_checkpoint",
    "verify_bundle",
    "verify_consistency",
    "verify_extension",
    "verify_fork",
    "verify_inclusion",
    "verify_ledger",
    "verify_note",
]
