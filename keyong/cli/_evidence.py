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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from federation.crypto import PublicKey
from federation.errors import UsageError, VerificationError
from federation.ledger import VerifierKey
from federation.statements import Envelope, Member, RosterHistory
from federation.witnessing import Quorum

FORMAT = "keyong-export"
VERSION = 1
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_ROSTERS = 100_000


class EvidenceError(VerificationError):
    """What is to be verified does not say what is needed to verify it, or says something else."""

    code = "evidence"


@dataclass(frozen=True)
class Evidence:
    """A ledger, whose it is, and the rosters that its keys are looked up in."""

    ledger: Path
    member: Member
    vkey: VerifierKey
    history: RosterHistory
    rosters: Rosters
    quorum: Quorum


class Rosters:
    """Every key that each member ever had, by the rosters of one chain."""

    def __init__(self, history: RosterHistory) -> None:
        from federation.statements import Roster

        self._members: dict[str, list[Member]] = {}
        self._keys: dict[str, list[PublicKey]] = {}
        self.coordinators: set[str] = set()
        self.chain = [Roster.read(envelope) for envelope in history.envelopes]
        for roster in self.chain:
            for member in roster.members:
                known = self._members.setdefault(member.id, [])
                if member not in known:
                    known.append(member)
                if "coordinator" in member.roles:
                    self.coordinators.add(member.id)

    def entries(self, member: str) -> list[Member]:
        """The member's entries, newest last.

        Raises:
            EvidenceError: no roster ever named it.
        """
        found = self._members.get(member)
        if not found:
            raise EvidenceError("no roster names the member {member}", member=member[:64])
        return found

    def statement_keys(self, member: str) -> list[PublicKey]:
        """The keys that this member has signed statements with, newest first."""
        if member not in self._keys:
            texts = dict.fromkeys(one.statement_key for one in reversed(self.entries(member)))
            self._keys[member] = [PublicKey.from_text(text) for text in texts]
        return self._keys[member]


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


def _evidence(ledger: Path, envelopes: list[Envelope], origin: str, fingerprint: str) -> Evidence:
    history = RosterHistory(envelopes, fingerprint)
    rosters = Rosters(history)
    prefix, _, member_id = origin.rpartition("/")
    if prefix != f"keyong/{history.latest.consortium.removeprefix('urn:uuid:')}":
        raise EvidenceError("the ledger {origin} is not one of this consortium", origin=origin[:200])
    member = rosters.entries(member_id)[-1]
    quorum = Quorum.of(rosters.chain, member.id)
    vkey = VerifierKey(origin, PublicKey.from_text(member.ledger_key))
    return Evidence(ledger, member, vkey, history, rosters, quorum)


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


def _split_export(path: Path, ledger: Path) -> tuple[list[Envelope], str]:
    with path.open("rb") as file:
        head = _object(file.readline(MAX_LINE_BYTES), path)
        count = head.get("rosters")
        if (
            (head.get("format"), head.get("v")) != (FORMAT, VERSION)
            or type(count) is not int
            or not 0 < count < MAX_ROSTERS
        ):
            raise EvidenceError(
                "{path} is not an export of this version", hint="export it again with `keyong ledger export`", path=path
            )
        envelopes = [_roster(_object(file.readline(MAX_LINE_BYTES), path), path) for _ in range(count)]
        start = file.tell()
        origin = _object(file.readline(MAX_LINE_BYTES), path).get("origin")
        file.seek(start)
        with ledger.open("wb") as target:
            _copy(file, target)
    return envelopes, str(origin)


def _object(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EvidenceError(
            "{path} is not an export of this version", hint="export it again with `keyong ledger export`", path=path
        )
    return value


def _roster(value: dict[str, Any], path: Path) -> Envelope:
    try:
        return Envelope.from_bytes(base64.b64decode(value["roster"], validate=True))
    except (KeyError, TypeError, binascii.Error):
        raise EvidenceError("a roster in {path} is damaged", path=path) from None
