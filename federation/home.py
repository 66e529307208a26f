"""One identity on disk: keys, certificate, the pinned root and every roster ever seen.

Layout below the home folder (0700):

    identity.json           who we are and which root we pinned
    keys/*.key              one private key a role (0600); never leave this machine
    keys/tls.crt            our certificate, as it stands in the roster
    rosters/000001.json …   every roster version seen, oldest first
    ledger/                 this party's ledger
    ledger-renewed-at       when its ledger was followed by a new one, where it was
    restored-at             when it was made anew from a backup, where it was
    openings-lost           that the backup may be an older state, until the node's ledger takes account of it
    accepted-tier           the weakest isolation its owner accepted here, where that is not the default
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.crypto import (
    PublicKey,
    SigningKey,
    TlsIdentity,
    make_private_dir,
    read_private,
    remove_unfinished,
    write_private,
)
from federation.errors import UnavailableError, UsageError
from federation.keyring import ledger_key, ledger_origin
from federation.ledger import FormerKey, Ledger
from federation.statements import Envelope, Member, Roster, RosterHistory, instant_text, parse_instant
from federation.statements.roster import DEFAULT_TIER, Role, UnknownMemberError, open_successor

RESTORED = "restored-at"
OPENINGS_LOST = "openings-lost"
RENEWED = "ledger-renewed-at"
KEY_ROLES = ("statement", "ledger", "witness")
_ROSTER_FILE = re.compile(r"[0-9].*\.json\Z")
_PARTS = ("keys", "rosters", "ledger")


class NoHomeError(UsageError):
    """There is no identity in this folder."""

    code = "no-home"


class Identity(BaseModel):
    """Who this home is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    consortium: str
    name: str
    fingerprint: str
    member: str
    entity: str
    roles: tuple[Role, ...]
    founded: bool = False
    """True where this home holds a root key."""
    coordinator: str
    address: Annotated[str, Field(max_length=255)]
    """Where the coordinator is reached."""


def now() -> datetime:
    """This machine's time, UTC."""
    return datetime.now(UTC)


class Home:
    """A folder that holds one identity; everything a party owns lives below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "identity.json").exists():
            raise NoHomeError(
                "there is no identity in {path}",
                hint="found a consortium with `keyong consortium init`, or enter one with `keyong join INVITATION`; "
                "--home or KEYONG_HOME choose another folder",
                path=str(path),
            )
        try:
            self.identity = Identity.model_validate(json.loads(read_private(path / "identity.json")))
        except (ValidationError, ValueError):
            raise NoHomeError(
                "{path} is damaged, or was written by a newer version",
                hint="restore it from a backup, or upgrade this software",
                path=str(path / "identity.json"),
            ) from None
        self._lock = threading.RLock()
        self._history: RosterHistory | None = None
        self._files: tuple[str, ...] = ()
        self._rosters, self._names = str(self.path / "rosters"), list[str]()

    @classmethod
    def create(cls, path: Path, identity: Identity, keys: NewKeys, rosters: list[Envelope]) -> Home:
        """Write a new home; refuses one that already holds an identity."""
        refuse_occupied(path)
        make_private_dir(path)
        _set_aside(path)
        make_private_dir(path / "keys")
        make_private_dir(path / "rosters")
        for role in KEY_ROLES:
            keys.of(role).save(path / "keys" / f"{role}.key")
        if keys.root is not None:
            keys.root.save(path / "keys" / "root.key")
        write_private(path / "keys" / "tls.key", keys.tls.key_pem)
        write_private(path / "keys" / "tls.crt", keys.tls.certificate_pem)
        for number, envelope in enumerate(rosters, start=1):
            write_private(path / "rosters" / f"{number:06d}.json", envelope.to_bytes())
        make_private_dir(path / "ledger")
        Ledger.create(path / "ledger", ledger_origin(identity.consortium, identity.member), keys.ledger).close()
        # Last: a home without identity.json is no home yet, and can be made again.
        write_private(
            path / "identity.json", json.dumps(identity.model_dump(mode="json"), ensure_ascii=False, indent=1).encode()
        )
        return cls(path)

    def key(self, role: str) -> SigningKey:
        """The private key of that role."""
        return SigningKey.load(self.path / "keys" / f"{role}.key")

    def check_keys(self) -> None:
        """Refuse to go on with keys that the newest roster does not give this member: others would refuse what they sign.

        Raises:
            KeysDifferError: a role's key was exchanged, in another copy of this home.
        """
        me = self.identity.member
        entry = next((one for one in self.history.latest.members if one.id == me), None)
        if entry is None:
            return
        enrolled = {"statement": entry.statement_key, "ledger": entry.ledger_key, "witness": entry.witness_key}
        for role in KEY_ROLES:
            if self.key(role).public.text != enrolled[role]:
                raise KeysDifferError(
                    "the {role} key in this home is not the one that the roster gives {member}",
                    hint="was it exchanged? then finish that (`keyong keys rotate`), or use the home, or the newest backup,"
                    " that has the new keys",
                    role=role,
                    member=me,
                )

    @property
    def tls(self) -> TlsIdentity:
        """Our TLS key and certificate."""
        return TlsIdentity(
            key_pem=read_private(self.path / "keys" / "tls.key"),
            certificate_pem=read_private(self.path / "keys" / "tls.crt"),
        )

    @property
    def history(self) -> RosterHistory:
        """Every roster seen, checked from the pinned root; what another process of this home learned is noticed.

        The files need no secrecy and are believed for their signatures alone.
        """
        with self._lock:
            names = os.listdir(self._rosters)  # noqa: PTH208  # looked at with every step: a path object each takes longer
            if self._history is not None and names == self._names:
                return self._history
            files = tuple(sorted(filter(_ROSTER_FILE.match, names)))
            if self._history is None:
                envelopes = [self._roster_file(name) for name in files]
                self._history, self._files = RosterHistory(envelopes, self.identity.fingerprint), files
            elif len(files) > len(self._files):
                for name in files[len(self._files) :]:
                    self._history.extend(self._roster_file(name))
                self._files = files
            self._names = names
            return self._history

    def _roster_file(self, name: str) -> Envelope:
        try:
            return Envelope.from_bytes((self.path / "rosters" / name).read_bytes())
        except OSError as error:
            raise UnavailableError("cannot read {path}: {reason}", path=name, reason=error.strerror or "") from None

    def learn(self, envelope: Envelope) -> Roster:
        """Take the next roster and persist it; older or forged ones are refused, the same one again is fine.

        On disk before it is used: a node must not forget after a crash a version it has acted on. Two processes of one
        home may learn at once; the first to write a version decides, and another roster of that version is refused.
        """
        with self._lock:
            history = self.history
            if Roster.read(envelope).version > history.latest.version:
                roster = open_successor(history.latest, history.digest, envelope)
                path = self.path / "rosters" / f"{roster.version:06d}.json"
                try:
                    write_private(path, envelope.to_bytes())
                except UsageError:
                    if not path.exists():
                        raise
            return self.history.extend(envelope)

    @property
    def roster(self) -> Roster:
        """The newest roster, which must be in force."""
        return self.history.in_force(now())

    @property
    def member(self) -> Member:
        """Our own entry in the newest roster."""
        return self.roster.member(self.identity.member)

    @property
    def tier_floor(self) -> str:
        """The weakest isolation that may hold jobs here: accepted by the owner in this home *and* in the roster.

        Neither alone lowers it: not a roster that the owner did not ask for, nor a file that the others do not see.
        """
        path = self.path / "accepted-tier"
        here = read_private(path).decode("ascii", "replace").strip() if path.exists() else DEFAULT_TIER
        if here not in ("T0", "T1", "T2", "T3"):
            raise UsageError("{path} names no tier", hint="accept one anew: keyong node tier T2", path=str(path))
        try:
            return max(here, self.history.latest.member(self.identity.member).floor)
        except UnknownMemberError:
            return max(here, DEFAULT_TIER)

    def accept_tier(self, tier: str) -> None:
        """Keep the owner's word on the weakest isolation that may hold jobs here; onto the record first."""
        with self.open_ledger() as ledger:
            ledger.append("tier", {"event": "accepted", "tier": tier})
        write_private(self.path / "accepted-tier", (tier + "\n").encode(), replace=True)

    @property
    def restored_at(self) -> datetime | None:
        """When this home was made anew from a backup: what was done here before may be forgotten. None: never."""
        path = self.path / RESTORED
        return parse_instant(read_private(path).decode("ascii", "replace").strip()) if path.exists() else None

    def mark_restored(self) -> None:
        """Remember that this home was made anew from a backup, now."""
        write_private(self.path / RESTORED, (instant_text(now()) + "\n").encode(), replace=True)

    @property
    def openings_lost(self) -> bool:
        """Whether this home may have helped to open sums that its ledger does not know: its backup may be an older state."""
        return (self.path / OPENINGS_LOST).exists()

    def mark_openings_lost(self, lost: bool = True) -> None:
        """Remember that, or that the ledger accounts for it now."""
        if lost:
            write_private(self.path / OPENINGS_LOST, b"", replace=True)
        else:
            (self.path / OPENINGS_LOST).unlink(missing_ok=True)

    @property
    def renewed_at(self) -> datetime | None:
        """When this home's ledger was followed by a new one, which knows nothing of uses before. None: never."""
        path = self.path / RENEWED
        return parse_instant(read_private(path).decode("ascii", "replace").strip()) if path.exists() else None

    def mark_renewed(self) -> None:
        """Remember that the ledger here is a new one, from now on."""
        write_private(self.path / RENEWED, (instant_text(now()) + "\n").encode(), replace=True)

    def public_key(self, member: str) -> PublicKey:
        """The statement key of a member of the roster in force."""
        return self.roster.member(member).public

    def open_ledger(self) -> Ledger:
        """Our ledger, for appending."""
        return Ledger.open(self.path / "ledger", self.key("ledger"), former=self._former_ledger_keys())

    def _former_ledger_keys(self) -> tuple[FormerKey, ...]:
        """The keys that our ledger had before the one in this home, which a roster may have ended a moment ago."""
        me = self.identity.member
        if not any(one.ledger_since for roster in self.history.rosters for one in roster.members if one.id == me):
            return ()
        key = ledger_key(self.history.rosters, me)
        return key.former if key.public == self.key("ledger").public else key.former[:-1]

    def claim(self, role: str) -> Claim:
        """Hold the right to serve this home in a role until :meth:`Claim.release`, or until this process ends.

        Raises:
            AlreadyServingError: another process serves it; two would settle each other's open steps.
        """
        parts = [part for part in self.path.iterdir() if part.is_dir() and not part.is_symlink()]
        for folder in (self.path, *parts):
            remove_unfinished(folder)
        return Claim(self.path / f"{role}.lock", role)

    def folder(self, *parts: str) -> Path:
        """A private folder below the home, made where it is missing."""
        path = self.path
        for part in parts:
            path = path / part
            make_private_dir(path)
        return path


class KeysDifferError(UsageError):
    """This home has other keys than the newest roster gives its member."""

    code = "keys-differ"


class AlreadyServingError(UnavailableError):
    """Another process serves this home in the same role."""

    code = "already-serving"


class Claim:
    """An advisory lock on a file, which the kernel gives back when the process ends, however it does."""

    def __init__(self, path: Path, role: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise AlreadyServingError(
                "another process serves this home as {role} already",
                hint="one is enough; end that one first (`ps aux | grep keyong` names it)",
                role=role,
            ) from None

    def release(self) -> None:
        """Give the claim back."""
        os.close(self._descriptor)


class NewKeys:
    """Fresh keys for a new identity, one a role."""

    def __init__(self, member: str, *, root: bool) -> None:
        self.statement = SigningKey.generate()
        self.ledger = SigningKey.generate()
        self.witness = SigningKey.generate()
        self.root = SigningKey.generate() if root else None
        self.tls = TlsIdentity.generate(member)

    def of(self, role: str) -> SigningKey:
        """The key of that role."""
        return {"statement": self.statement, "ledger": self.ledger, "witness": self.witness}[role]


def refuse_occupied(path: Path) -> None:
    """Raise where the folder already holds an identity: keys are never overwritten."""
    if (path / "identity.json").exists():
        raise UsageError(
            "{path} already holds an identity",
            hint="choose another folder with --home, or move this one away",
            path=str(path),
        )


def _set_aside(path: Path) -> None:
    """Move what a run that was broken off left: no identity, but keys, and no key is ever destroyed here."""
    left = [path / name for name in _PARTS if (path / name).exists()]
    if left:
        make_private_dir(path / "unfinished")
        place = path / "unfinished" / secrets.token_hex(8)
        make_private_dir(place)
        for part in left:
            remove_unfinished(part)
            part.rename(place / part.name)
