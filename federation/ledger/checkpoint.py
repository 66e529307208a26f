"""C2SP checkpoints and cosignatures: a ledger's size and root, signed by it and, later, by witnesses.

https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature. A checkpoint's text is three lines (origin, size,
base64 root); extension lines are refused. The ledger's key bears the origin as its name.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from federation.crypto import SigningKey
from federation.ledger.errors import ForkError, KeyEndedError, NoteFormatError, OriginError
from federation.ledger.merkle import HASH_SIZE
from federation.ledger.note import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteSignature,
    VerifierKey,
    check_name,
    cosigned_message,
    key_id,
    parse_note,
    verify_note,
)

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a ledger says of itself: under ``origin``, the first ``size`` entries have the root ``root``."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read exactly three lines.

        Raises:
            NoteFormatError: more or fewer lines, a size that is no plain decimal, a root that is not 32 bytes.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or _SIZE.fullmatch(lines[1]) is None:
            raise NoteFormatError("a checkpoint is three lines: origin, size, root")
        try:
            root = base64.b64decode(lines[2].encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            root = b""
        checkpoint = cls(check_name(lines[0]), int(lines[1]), root)
        if len(root) != HASH_SIZE or checkpoint.text() != text:
            raise NoteFormatError("a checkpoint's root is 32 bytes in base64")
        return checkpoint


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose ledger signature was verified, its note, and the witnesses whose cosignatures hold."""

    checkpoint: Checkpoint
    note: bytes
    witnesses: tuple[str, ...] = ()


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the note in which the ledger signs its checkpoint (type 01, named by the origin)."""
    text = checkpoint.text()
    identity = key_id(check_name(checkpoint.origin), ED25519, key.public.raw)
    return Note(text, (NoteSignature(checkpoint.origin, identity, key.sign(text.encode())),)).encode()


def open_checkpoint(data: bytes, vkey: VerifierKey, witnesses: Sequence[VerifierKey] = ()) -> SignedCheckpoint:
    """Return the checkpoint in ``data``, signed by the ledger ``vkey``.

    Args:
        data: a signed note.
        vkey: the ledger's key; its name is the origin the checkpoint must state.
        witnesses: known witnesses (type 04). Those who cosigned are named in the result; a bad cosignature by one of
            them rejects the note.

    Raises:
        OriginError: a checkpoint of another ledger.
        KeyEndedError: signed by a key of this ledger, but not by the one of that place.
        ForkError: another state than the one at which a key of this ledger took over.
        NoteSignatureError, SignatureTypeError, KeySubstitutionError, SignatureMissingError, NoteFormatError: see
            `federation.ledger.note`.
    """
    note = parse_note(data)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != vkey.name:
        raise OriginError(
            "the checkpoint is of the ledger {found}, not of {expected}",
            found=checkpoint.origin,
            expected=vkey.name,
        )
    if vkey.former:
        _check_place(note, checkpoint, vkey, data)
    else:
        verify_note(note, [vkey])
    names: tuple[str, ...] = ()
    ids = {(signature.name, signature.key_id) for signature in note.signatures}
    present = [witness for witness in witnesses if (witness.name, witness.key_id) in ids]
    if present:
        signers = verify_note(note, present)
        names = tuple(dict.fromkeys(key.name for key in signers if key.type == COSIGNATURE))
    return SignedCheckpoint(checkpoint, data, names)


def _check_place(note: Note, checkpoint: Checkpoint, vkey: VerifierKey, data: bytes) -> None:
    """Verify by the key that a ledger with several had at this size; where one took over, by either."""
    parts: list[tuple[int, float, VerifierKey]] = []
    begin = 0
    for former in vkey.former:
        if checkpoint.size == former.size and checkpoint.root != former.root:
            raise ForkError(
                "the ledger signed two histories of {size} entries: its key was exchanged in the other one",
                hint="keep both signed checkpoints (the error carries them) and show them to the other members",
                size=former.size,
                evidence=(former.note, data),
            )
        parts.append((begin, former.size, VerifierKey(vkey.name, former.public)))
        begin = former.size
    parts.append((begin, math.inf, VerifierKey(vkey.name, vkey.public)))
    allowed = [key for first, last, key in parts if first <= checkpoint.size <= last]
    signed = {(one.name, one.key_id) for one in note.signatures}
    if any((key.name, key.key_id) in signed for key in allowed):
        verify_note(note, allowed)
        return
    for first, last, key in parts:
        if (key.name, key.key_id) in signed:
            raise KeyEndedError(
                "a checkpoint of {size} entries is signed with a key that signs entries {first} to {last} alone",
                hint="the key was exchanged: whoever signs with another one now is not the ledger's owner",
                size=checkpoint.size,
                first=first,
                last="…" if last == math.inf else int(last),
            )
    verify_note(note, allowed)


def cosign(checkpoint: Checkpoint, name: str, key: SigningKey, time: int) -> NoteSignature:
    """Return the witness ``name``'s cosignature/v1 of ``checkpoint`` at ``time`` (seconds since 1970).

    The witness's name is not signed: one key serves one role and one name.
    """
    signed = key.sign(cosigned_message(checkpoint.text(), time))
    identity = key_id(check_name(name), COSIGNATURE, key.public.raw)
    return NoteSignature(name, identity, time.to_bytes(8, "big") + signed)
