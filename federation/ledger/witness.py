"""A witness of other parties' ledgers: C2SP tlog-witness (https://c2sp.org/tlog-witness), whatever carries it.

A request is ``old <size>``, the lines of a consistency proof from there, an empty line, and the ledger's signed
checkpoint. The answer is a cosignature, or a refusal with the status that the specification gives it:

400  malformed, or older than what it says it follows
403  not signed by the ledger's key
404  a ledger that is not witnessed here
409  not what follows the last checkpoint seen here, whose size the answer holds
422  the proof does not hold

What was cosigned is on disk before the answer is given, so that two histories of one ledger never both get a
cosignature: not even across a crash. A witness whose folder is put back to an older state may, and that is why there are
several.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from federation.crypto import SigningKey, write_private
from federation.errors import VerificationError
from federation.ledger.checkpoint import Checkpoint, cosign, open_checkpoint
from federation.ledger.errors import LedgerError, ProofError
from federation.ledger.merkle import EMPTY_ROOT, HASH_SIZE, verify_extension
from federation.ledger.note import (
    COSIGNATURE,
    MAX_NOTE_BYTES,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    verify_note,
)

MAX_PROOF_LINES: Final = 63
MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 64 * (MAX_PROOF_LINES + 1)
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)


class WitnessRefusedError(VerificationError):
    """A checkpoint was not cosigned.

    Args:
        status: as HTTP would say it.
        size: of the last checkpoint that the witness saw, where that is why (status 409).
    """

    code = "witness-refused"

    def __init__(self, template: str, *, status: int, size: int | None = None, **params: object) -> None:
        self.status = status
        self.size = size
        super().__init__(template, hint="", code=None, size=size, **params)


@dataclass(frozen=True)
class AddCheckpoint:
    """A request for a cosignature.

    Attributes:
        old: size of the last checkpoint that this witness cosigned, as far as the asker knows; 0 for none.
        proof: that the tree of ``old`` entries is a prefix of the checkpoint's.
        note: the signed checkpoint.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old}", *(base64.b64encode(one).decode() for one in self.proof), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """Read a request's body.

        Raises:
            WitnessRefusedError: (400) it is not of this form.
        """
        head, found, note = data.partition(b"\n\n")
        lines = head.decode("ascii", "replace").split("\n")
        first = _OLD.fullmatch(lines[0])
        if not found or first is None or len(lines) > MAX_PROOF_LINES + 1 or len(data) > MAX_REQUEST_BYTES:
            raise WitnessRefusedError("a request to a witness is malformed", status=400)
        try:
            proof = tuple(base64.b64decode(line, validate=True) for line in lines[1:])
        except (binascii.Error, ValueError):
            proof = (b"",)
        if any(len(one) != HASH_SIZE for one in proof):
            raise WitnessRefusedError("a line of a consistency proof is not a hash", status=400)
        return cls(int(first[1]), proof, note)


class Witness:
    """Cosigns each ledger's checkpoints as long as each extends the one before.

    Args:
        name: of the witness, for its verifier key.
        key: the witness key, of no other role.
        folder: holds the last checkpoint cosigned of each ledger; this witness's alone.
        clock: the time that goes into cosignatures.
    """

    def __init__(self, name: str, key: SigningKey, folder: Path, clock: Callable[[], datetime]) -> None:
        self.vkey = VerifierKey(name, key.public, COSIGNATURE)
        self._key = key
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()

    def add_checkpoint(self, data: bytes, log: Callable[[str], VerifierKey | None]) -> bytes:
        """Cosign a checkpoint and return the signature's line, once it is on disk that it was seen.

        Args:
            data: the request's body.
            log: the key of the ledger with an origin, None where it is not to be witnessed.

        Raises:
            WitnessRefusedError: see above.
            OSError, KeyongError: the state could not be written; nothing was cosigned.
        """
        request = AddCheckpoint.parse(data)
        checkpoint, signed = self._opened(request, log)
        with self._lock:
            before = self._last(checkpoint.origin)
            self._check_follows(request, checkpoint, before)
            signature = cosign(checkpoint, self.vkey.name, self._key, int(self._clock().timestamp()))
            note = Note(checkpoint.text(), (*signed, signature)).encode()
            write_private(self._path(checkpoint.origin), note, replace=True)
        return signature.line().encode()

    def last_note(self, origin: str) -> bytes | None:
        """The last checkpoint of a ledger that was cosigned here, as the ledger signed it; None where there was none."""
        with self._lock:
            return self._path(origin).read_bytes() if self._last(origin) is not None else None

    def last(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of a ledger that was cosigned here; None where there was none."""
        with self._lock:
            return self._last(origin)

    def _opened(
        self, request: AddCheckpoint, log: Callable[[str], VerifierKey | None]
    ) -> tuple[Checkpoint, tuple[NoteSignature, ...]]:
        try:
            note = parse_note(request.note)
            claimed = Checkpoint.parse(note.text)
        except LedgerError:
            raise WitnessRefusedError("a request to a witness holds no checkpoint", status=400) from None
        vkey = log(claimed.origin)
        if vkey is None:
            raise WitnessRefusedError("the ledger {origin} is not witnessed here", status=404, origin=claimed.origin)
        try:
            open_checkpoint(request.note, vkey)
        except LedgerError:
            raise WitnessRefusedError("the ledger {origin} did not sign this", status=403, origin=vkey.name) from None
        own = tuple(one for one in note.signatures if (one.name, one.key_id) == (vkey.name, vkey.key_id))
        if request.old > claimed.size:
            raise WitnessRefusedError("a checkpoint is older than what it is said to follow", status=400)
        return claimed, own

    def _check_follows(self, request: AddCheckpoint, new: Checkpoint, before: Checkpoint | None) -> None:
        size, root = (before.size, before.root) if before is not None else (0, EMPTY_ROOT)
        if request.old != size or (size == new.size and root != new.root):
            raise WitnessRefusedError(
                "the last checkpoint of {origin} seen here is of {size} entries",
                status=409,
                size=size,
                origin=new.origin,
            )
        try:
            verify_extension(size, root, new.size, new.root, request.proof)
        except ProofError:
            raise WitnessRefusedError(
                "{origin} does not show that it extends what was seen here", status=422, origin=new.origin
            ) from None

    def _last(self, origin: str) -> Checkpoint | None:
        try:
            data = self._path(origin).read_bytes()
        except FileNotFoundError:
            return None
        note = parse_note(data)
        verify_note(note, [self.vkey])  # what another hand put there is not what was cosigned
        return Checkpoint.parse(note.text)

    def _path(self, origin: str) -> Path:
        return self._folder / hashlib.sha256(origin.encode()).hexdigest()


def countersign(folder: Path, name: str, key: SigningKey, successor: SigningKey, at: datetime) -> int:
    """Cosign what a witness saw last of each ledger with the key that takes over, too; returns of how many.

    So the successor goes on from what the key before it saw, and a rollback or fork gets no cosignature from it either.

    Raises:
        LedgerError: something there was not cosigned with ``key``.
    """
    own, new = (VerifierKey(name, one.public, COSIGNATURE) for one in (key, successor))
    count = 0
    for path in sorted(folder.glob("[0-9a-f]*")):
        note = parse_note(path.read_bytes())
        if any((one.name, one.key_id) == (new.name, new.key_id) for one in note.signatures):
            continue
        verify_note(note, [own])
        added = cosign(Checkpoint.parse(note.text), name, successor, int(at.timestamp()))
        write_private(path, Note(note.text, (*note.signatures, added)).encode(), replace=True)
        count += 1
    return count
