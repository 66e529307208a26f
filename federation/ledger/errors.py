"""The named ways in which a ledger can fail: one class a tampering, so that a report says what happened and where.

``LedgerUnavailableError`` means "nothing was acknowledged, try again"; every other class means "stop and look".
"""

from __future__ import annotations

from federation.errors import UnavailableError, UsageError, VerificationError


class EntryRefusedError(UsageError):
    """The entry breaks the format (name, size, value); it was not written."""

    code = "ledger-entry-refused"


class LedgerUnavailableError(UnavailableError):
    """The ledger could not write or be read; what was asked is not acknowledged and must not be relied on."""

    code = "ledger-unavailable"


class LedgerError(VerificationError):
    """A history, or something that claims to be one, does not hold.

    Args:
        index: the entry at which the fault shows, where one can be named.
        evidence: signed notes that together prove a fork; to be exported and shown to others.
    """

    code = "ledger-invalid"

    def __init__(
        self,
        template: str,
        *,
        hint: str = "",
        code: str | None = None,
        index: int | None = None,
        evidence: tuple[bytes, ...] = (),
        **params: object,
    ) -> None:
        self.index = index
        self.evidence = evidence
        if index is not None:
            params["index"] = index
        super().__init__(template, hint=hint, code=code, **params)


class LedgerUnreadableError(LedgerError):
    """Stored bytes are not in the format at all."""

    code = "ledger-unreadable"


class ProofError(LedgerError):
    """An inclusion or consistency proof does not hold."""

    code = "ledger-proof"


class NoteFormatError(LedgerError):
    """The bytes are not a signed note, a checkpoint or a verifier key."""

    code = "ledger-note-format"


class NoteSignatureError(LedgerError):
    """A signature by a known key does not verify."""

    code = "ledger-note-signature"


class SignatureMissingError(LedgerError):
    """No signature by the expected name is there at all."""

    code = "ledger-signature-missing"


class KeySubstitutionError(LedgerError):
    """The expected name signed, but with another key."""

    code = "ledger-key-substituted"


class KeyEndedError(LedgerError):
    """A ledger's checkpoint is signed by a key of its, but not by the one of that place: the key had ended, or not begun."""

    code = "ledger-key-ended"


class SignatureTypeError(LedgerError):
    """A signature of one type stands where another type belongs."""

    code = "ledger-signature-type"


class OriginError(LedgerError):
    """The checkpoint speaks of another ledger."""

    code = "ledger-origin"


class EntryModifiedError(LedgerError):
    """An entry's bytes are not the ones that were written."""

    code = "ledger-entry-modified"


class StoredHashError(LedgerError):
    """The stored hash of an authentic entry was changed."""

    code = "ledger-stored-hash"


class StoredColumnError(LedgerError):
    """A column that repeats a part of the entry says something else than the entry."""

    code = "ledger-stored-column"


class TileError(LedgerError):
    """A stored subtree hash is not the hash of its subtree."""

    code = "ledger-tile"


class HeadError(LedgerError):
    """The stored head is not the head of the stored entries."""

    code = "ledger-head"


class EntryMissingError(LedgerError):
    """An entry was taken out."""

    code = "ledger-entry-missing"


class EntryInsertedError(LedgerError):
    """An entry was put between others."""

    code = "ledger-entry-inserted"


class EntryReorderedError(LedgerError):
    """Entries stand in another order than they were written in."""

    code = "ledger-entry-reordered"


class DuplicateIndexError(LedgerError):
    """Two entries stand at the same index."""

    code = "ledger-duplicate-index"


class UnsignedEntriesError(LedgerError):
    """Entries follow the last signed checkpoint."""

    code = "ledger-unsigned-entries"


class TruncatedError(LedgerError):
    """The tail is missing: less is stored than was signed."""

    code = "ledger-truncated"


class LedgerRolledBackError(TruncatedError):
    """The store is older than the last checkpoint it signed: a restored backup, or a truncation."""

    code = "ledger-rolled-back"


class CheckpointMissingError(LedgerError):
    """The last-signed checkpoint, without which a truncation cannot be seen, is not there."""

    code = "ledger-checkpoint-missing"


class CheckpointMismatchError(LedgerError):
    """The stored entries do not have the root a stored, signed checkpoint states."""

    code = "ledger-checkpoint-mismatch"


class ForkError(LedgerError):
    """Two histories were signed for one ledger; ``evidence`` holds the signed notes."""

    code = "ledger-fork"


class FieldModifiedError(LedgerError):
    """A disclosed field does not open its commitment."""

    code = "ledger-field-modified"


class FieldMissingError(LedgerError):
    """A field is gone and no erasure entry says so."""

    code = "ledger-field-missing"


class TimestampRollbackError(LedgerError):
    """An entry claims to be older than the one before it."""

    code = "ledger-timestamp-rollback"
