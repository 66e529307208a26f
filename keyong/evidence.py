"""Where a ledger is read from, whose it is, and which key that party has: everything rests on the root fingerprint.

A home, a ledger's folder and an export all bring their rosters with them. Rosters are believed because their chain
begins at the fingerprint that the person gave, never because of where they lie. The base installation suffices for
all of this.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from federation.errors import UsageError
from federation.keyring import entries_of, ledger_key, ledger_of
from federation.ledger import Fork, LedgerError, SignedCheckpoint, VerifierKey, is_fork
from federation.ledger.fork import MAX_FORK_BYTES
from federation.statements import Envelope, Member, Roster, RosterHistory
from federation.witnessing import Quorum
from keyong.rosters import EvidenceError, Rosters

FORMAT = "keyong-export"
VERSION = 1
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_ROSTERS = 100_000


@dataclass(frozen=True)
class Evidence:
    """A ledger, whose it is, and the rosters that its keys are looked up in."""

    ledger: Path
    member: Member
    vkey: VerifierKey
    history: RosterHistory
    rosters: Rosters
    quorum: Quorum
    checkpoints: tuple[bytes, ...] = ()
    """States of this ledger that the rosters hold: where it was lost, the one that its successor commits to."""
    continues: str = ""
    """The state of the ledger before, that this one has to commit to with its first entry; empty where it is the first."""


def fingerprint_of(text: str) -> str:
    """A root fingerprint as a person gave it; raises UsageError where it is none."""
    fingerprint = text.strip().lower()
    if re.fullmatch(r"sha256:[0-9a-f]{64}", fingerprint) is None:
        raise UsageError(
            "{text} is not a root fingerprint",
            hint="it is sha256: and 64 hexadecimal digits, as `keyong whoami` shows it",
            text=text[:90],
        )
    return fingerprint


def write_export(target: Path, ledger_export: Path, envelopes: tuple[Envelope, ...]) -> None:
    """Join rosters and a ledger's export into the one file that an auditor gets: it is there whole, or as it was before."""
    head = [{"format": FORMAT, "v": VERSION, "rosters": len(envelopes)}]
    lines = [json.dumps(one, separators=(",", ":")).encode() for one in head]
    lines += [
        json.dumps({"roster": base64.b64encode(one.to_bytes()).decode()}, separators=(",", ":")).encode()
        for one in envelopes
    ]
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file, ledger_export.open("rb") as source:
            file.write(b"\n".join(lines) + b"\n")
            _copy(source, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(1 << 20):
        target.write(block)


@contextmanager
def open_evidence(path: Path, fingerprint: str) -> Iterator[Evidence]:
    """The evidence at ``path`` (a home, a ledger's folder or an export), its rosters checked from this fingerprint.

    Raises:
        UsageError: there is no ledger.
        VerificationError: the chain of rosters does not begin at this root, or does not hold.
    """
    path = path.expanduser()
    if path.is_dir():
        folder = path / "ledger" if (path / "ledger").is_dir() else path
        if not (folder / "ledger.db").is_file():
            raise UsageError(
                "there is no ledger at {path}", hint="give a home, a ledger's folder, or an export file", path=path
            )
        yield _evidence(folder, _folder_rosters(folder.parent / "rosters"), _folder_origin(folder), fingerprint)
        return
    if not path.is_file():
        raise UsageError(
            "there is no ledger at {path}", hint="give a home, a ledger's folder, or an export file", path=path
        )
    with tempfile.TemporaryDirectory(prefix="keyong-verify-") as name:
        ledger = Path(name) / "ledger.export"
        envelopes, origin = _split_export(path, ledger)
        yield _evidence(ledger, envelopes, origin, fingerprint)


def write_fork(target: Path, fork: Fork, envelopes: tuple[Envelope, ...]) -> None:
    """Join rosters and the proof of a fork into the one file that can be handed on."""
    with tempfile.TemporaryDirectory(prefix="keyong-fork-") as name:
        part = Path(name) / "fork"
        part.write_bytes(fork.encode() + b"\n")
        write_export(target, part, envelopes)


def read_fork(path: Path) -> tuple[Fork, list[Envelope]] | None:
    """The proof of a fork in a file, with the rosters beside it; None where the file is something else.

    Raises:
        LedgerError, EvidenceError: it says that it is one, and cannot be read.
    """
    path = path.expanduser()
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if b'"format":"keyong-export"' not in file.readline(MAX_LINE_BYTES):
            return None
    with tempfile.TemporaryDirectory(prefix="keyong-verify-") as name:
        part = Path(name) / "fork"
        envelopes, origin = _split_export(path, part, MAX_FORK_BYTES)
        data = part.read_bytes()
        return (Fork.decode(data.strip()), envelopes) if origin == "None" and is_fork(data) else None


@dataclass(frozen=True)
class ProvedFork:
    """A fork that holds: whose ledger signed two histories, and the two states."""

    member: Member
    consortium: str
    held: SignedCheckpoint
    shown: SignedCheckpoint


def verify_fork_file(fork: Fork, envelopes: list[Envelope], fingerprint: str) -> ProvedFork:
    """Return whose ledger a fork is of, if it proves that this ledger's key signed two histories.

    Raises:
        VerificationError: the rosters do not begin at this root, or the proof does not hold.
    """
    from federation.ledger import verify_fork

    history = RosterHistory(envelopes, fingerprint)
    member_id, number = ledger_of(history.latest.consortium, fork.origin)
    rosters = Rosters(history)
    member = rosters.entries(member_id)[-1]
    key = ledger_key(rosters.chain, member_id, number)
    failure: LedgerError | None = None
    # An old key that signs beyond its place signs nothing that its owner answers for: each key is taken for its own part.
    for one, last in ((key, None), *((VerifierKey(key.name, old.public), old.size) for old in reversed(key.former))):
        try:
            held, shown = verify_fork(fork, one)
            if last is not None and shown.checkpoint.size > last:
                continue
            return ProvedFork(member, history.latest.name, held, shown)
        except LedgerError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _evidence(ledger: Path, envelopes: list[Envelope], origin: str, fingerprint: str) -> Evidence:
    history = RosterHistory(envelopes, fingerprint)
    rosters = Rosters(history)
    name, number = ledger_of(history.latest.consortium, origin)
    member = rosters.entries(name)[-1]
    quorum = Quorum.of(rosters.chain, member.id)
    vkey = ledger_key(rosters.chain, member.id, number)
    later, own = (_commitment(rosters.chain, member.id, one) for one in (number + 1, number))
    return Evidence(
        ledger, member, vkey, history, rosters, quorum, (later.encode(),) if later else (), own if number > 1 else ""
    )


def _commitment(chain: Sequence[Roster], member: str, number: int) -> str:
    """The state of the ledger before which a member's ledger of that number commits to; empty where there is none."""
    return next((one.ledger_since for _, one in entries_of(chain, member) if one.ledger_number == number), "")


def _folder_rosters(folder: Path) -> list[Envelope]:
    files = sorted(folder.glob("[0-9]*.json"))
    if not files:
        raise UsageError(
            "there are no rosters beside the ledger, at {path}",
            hint="give the whole home, copy its rosters folder too, or export the ledger with `keyong ledger export`",
            path=folder,
        )
    return [Envelope.from_bytes(file.read_bytes()) for file in files]


def _folder_origin(folder: Path) -> str:
    """Whose ledger it claims to be; the signature over that claim is checked with everything else."""
    from federation.ledger import Checkpoint, CheckpointMissingError, parse_note

    try:
        note = (folder / "ledger.checkpoint").read_bytes()
    except OSError:
        raise CheckpointMissingError(
            "the ledger's last-signed checkpoint is missing",
            hint="without ledger.checkpoint beside ledger.db a truncated ledger looks whole",
        ) from None
    return Checkpoint.parse(parse_note(note).text).origin


def _split_export(path: Path, ledger: Path, limit: int | None = None) -> tuple[list[Envelope], str]:
    with path.open("rb") as file:
        head = _object(file.readline(MAX_LINE_BYTES), path)
        count = head.get("rosters")
        if (
            (head.get("format"), head.get("v")) != (FORMAT, VERSION)
            or type(count) is not int
            or not 0 < count < MAX_ROSTERS
        ):
            raise EvidenceError(
                "{path} is not a whole export of this version",
                hint="export it again with `keyong ledger export`",
                path=path,
            )
        envelopes = [_roster(_object(file.readline(MAX_LINE_BYTES), path), path) for _ in range(count)]
        start = file.tell()
        origin = _object(file.readline(MAX_LINE_BYTES), path).get("origin")
        file.seek(start)
        with ledger.open("wb") as target:
            if limit is None:
                _copy(file, target)
            else:
                target.write(file.read(limit))
    return envelopes, str(origin)


def _object(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EvidenceError(
            "{path} is not a whole export of this version",
            hint="export it again with `keyong ledger export`",
            path=path,
        )
    return value


def _roster(value: dict[str, Any], path: Path) -> Envelope:
    try:
        return Envelope.from_bytes(base64.b64decode(value["roster"], validate=True))
    except (KeyError, TypeError, binascii.Error):
        raise EvidenceError("a roster in {path} is damaged", path=path) from None
