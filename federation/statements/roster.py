"""The roster: who belongs to the consortium, with which keys. The only root of trust."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from federation.crypto import PublicKey, canonical_json, digest
from federation.errors import VerificationError
from federation.statements._base import (
    Digest,
    KeyText,
    Label,
    MemberId,
    OptionalDigest,
    Part,
    Statement,
    StatementError,
    Uuid,
)
from federation.statements.dsse import Envelope, verify_quorum

LATER_OF_MEMBERS: Final = {"ledger_number": 1, "ledger_since": ""}
"""Fields of a member's entry that a later release added, left out while they have their default (see ``Statement.LATER``)."""
DEFAULT_TIER = "T2"
"""What a roster entry that names no tier stands for."""

Role = Literal["member", "coordinator", "analyst", "auditor"]


class RosterRolledBackError(VerificationError):
    """Someone presented a roster older than one already seen."""

    code = "roster-rolled-back"


class RosterChainError(VerificationError):
    """A roster does not follow from the one before it."""

    code = "roster-chain"


class RootMismatchError(VerificationError):
    """The roster's root is not the one that was pinned."""

    code = "root-mismatch"


class UnknownMemberError(VerificationError):
    """No such member, or not in the role that was needed."""

    code = "unknown-member"


def check_keys(keys: Sequence[str]) -> None:
    """Refuse keys under which anybody could sign (low order, not canonical) where they are enrolled, not where they are
    used."""
    for text in keys:
        PublicKey.from_text(text)


class Root(Part):
    """The quorum that may change the roster: ``threshold`` of ``keys``."""

    threshold: Annotated[int, Field(ge=1, le=16)]
    keys: Annotated[tuple[KeyText, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if len(set(self.keys)) != len(self.keys) or self.threshold > len(self.keys):
            raise ValueError("the root needs distinct keys, and a threshold they can reach")
        check_keys(self.keys)
        return self


class Member(Part):
    """One party: its legal entity, roles and the public half of each of its keys."""

    id: MemberId
    entity: Label
    """Legal entity, as registered; two members of one entity count once."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    statement_key: KeyText
    ledger_key: KeyText
    witness_key: KeyText
    tls_certificate: Annotated[str, StringConstraints(max_length=4096)]
    address: Annotated[str, StringConstraints(max_length=255)] = ""
    """host:port that a coordinator listens on; empty for everyone else."""
    tier: Annotated[str, StringConstraints(pattern=r"^(T[0-3])?$")] = ""
    """Floor of isolation the owner declared, empty for the default (T2)."""
    ledger_number: Annotated[int, Field(ge=1, le=999)] = 1
    """Which of its ledgers this is: one that was lost is followed by one of another origin."""
    ledger_since: Annotated[str, StringConstraints(max_length=4096)] = ""
    """The signed checkpoint from which on ``ledger_key`` signs: where it took over from another key, signed by both; where this
    ledger follows one that was lost, the last state of that one that others vouch for. Empty: from the beginning."""

    @property
    def floor(self) -> str:
        """The weakest isolation that this member's owner accepted, in words of ``sandbox.Tier``."""
        return self.tier or DEFAULT_TIER

    @property
    def public(self) -> PublicKey:
        """The key that signs this member's statements."""
        return PublicKey.from_text(self.statement_key)

    @field_validator("ledger_since")
    @classmethod
    def _a_note(cls, text: str) -> str:
        if text and (not text.endswith("\n") or "\n\n" not in text):
            raise ValueError("a ledger's key takes over at a signed checkpoint")
        return text

    @model_validator(mode="after")
    def _separate_keys(self) -> Self:
        if len({self.statement_key, self.ledger_key, self.witness_key}) != 3:
            raise ValueError("one key may serve one role only")
        check_keys((self.statement_key, self.ledger_key, self.witness_key))
        return self


class Roster(Statement):
    """Version ``version`` of the membership, naming its predecessor by digest."""

    TYPE: ClassVar[str] = "application/vnd.keyong.roster.v1+json"

    consortium: Uuid
    name: Label
    version: Annotated[int, Field(ge=1, le=2**31)]
    previous: OptionalDigest = ""
    root: Root
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [member.id for member in self.members]
        keys = [*self.root.keys] + [
            key for member in self.members for key in (member.statement_key, member.ledger_key, member.witness_key)
        ]
        certificates = [member.tls_certificate for member in self.members]
        if len(set(ids)) != len(ids):
            raise ValueError("two members share an id")
        if len(set(keys)) != len(keys) or len(set(certificates)) != len(certificates):
            raise ValueError("two members share a key")
        if (self.version == 1) != (self.previous == ""):
            raise ValueError("every roster but the first names its predecessor")
        return self

    def _said(self) -> dict[str, Any]:
        fields = super()._said()
        for member in fields["members"]:
            for name, default in LATER_OF_MEMBERS.items():
                if member[name] == default:
                    del member[name]
        return fields

    @property
    def fingerprint(self) -> Digest:
        """Digest of this roster's root; the first roster's is what people pin and compare."""
        return root_fingerprint(self.consortium, self.root)

    def member(self, member_id: str, role: Role | None = None) -> Member:
        """The member of that id, in that role; raises :class:`UnknownMemberError`."""
        for member in self.members:
            if member.id == member_id:
                if role is not None and role not in member.roles:
                    raise UnknownMemberError(
                        "{member} is not enrolled as {role}",
                        member=member_id,
                        role=role,
                        hint="see `keyong consortium roster`",
                    )
                return member
        raise UnknownMemberError("{member} is not in the roster", member=member_id[:64])

    @property
    def coordinator(self) -> Member:
        """The member that coordinates."""
        for member in self.members:
            if "coordinator" in member.roles:
                return member
        raise UnknownMemberError("the roster names no coordinator")


def root_fingerprint(consortium: str, root: Root) -> Digest:
    """SHA-256 of the canonical JSON of consortium, threshold and root keys."""
    return digest(canonical_json({"consortium": consortium, "keys": list(root.keys), "threshold": root.threshold}))


def check_quorum(envelope: Envelope, root: Root) -> None:
    """Raise unless at least ``threshold`` distinct root keys signed the envelope."""
    verify_quorum(envelope, Roster.TYPE, [PublicKey.from_text(text) for text in root.keys], root.threshold)


def open_genesis(envelope: Envelope, fingerprint: str) -> Roster:
    """Read the first roster and check it against the pinned root fingerprint (its expiry is not judged)."""
    roster = Roster.read(envelope)
    if roster.version != 1:
        raise RosterChainError("the chain of rosters does not begin with version 1")
    if roster.fingerprint != fingerprint:
        raise RootMismatchError(
            "the root of this consortium is {got}, expected {expected}",
            hint="compare the fingerprint with the founder over another channel",
            got=roster.fingerprint,
            expected=fingerprint,
        )
    check_quorum(envelope, roster.root)
    return roster


def open_successor(old: Roster, old_digest: str, envelope: Envelope) -> Roster:
    """Read the roster that follows ``old``: next version, names it, signed by the old and the new quorum."""
    new = Roster.read(envelope)
    if new.version <= old.version:
        raise RosterRolledBackError(
            "roster version {got} was presented after version {seen}", got=new.version, seen=old.version
        )
    if new.consortium != old.consortium or new.version != old.version + 1 or new.previous != old_digest:
        raise RosterChainError(
            "roster version {version} does not follow version {before}", version=new.version, before=old.version
        )
    check_quorum(envelope, old.root)
    if new.root != old.root:
        check_quorum(envelope, new.root)
    return new


class RosterHistory:
    """Every roster this party has seen, oldest first; it only ever grows (invariant 6).

    Built from the pinned fingerprint, so a forged or rolled-back roster cannot enter it. Expiry is judged where a
    roster is *used* (:meth:`in_force`), never while history is read.
    """

    def __init__(self, envelopes: Sequence[Envelope], fingerprint: str) -> None:
        if not envelopes:
            raise RosterChainError("there is no roster")
        self._extending = threading.Lock()
        self._envelopes = [envelopes[0]]
        self._rosters = [open_genesis(envelopes[0], fingerprint)]
        self.fingerprint = fingerprint
        for envelope in envelopes[1:]:
            self.extend(envelope)

    def extend(self, envelope: Envelope) -> Roster:
        """Add the next version; a version already held is accepted only when it is the same bytes."""
        with self._extending:
            return self._extend(envelope)

    def _extend(self, envelope: Envelope) -> Roster:
        claimed = Roster.read(envelope)
        if claimed.version <= self.latest.version:
            if self._envelopes[claimed.version - 1].digest == envelope.digest:
                return self._rosters[claimed.version - 1]
            raise RosterRolledBackError(
                "roster version {got} was presented after version {seen}", got=claimed.version, seen=self.latest.version
            )
        roster = open_successor(self.latest, self.digest, envelope)
        self._rosters.append(roster)
        self._envelopes.append(envelope)
        return roster

    @property
    def latest(self) -> Roster:
        """The highest version held."""
        return self._rosters[-1]

    @property
    def digest(self) -> Digest:
        """Digest of the highest version."""
        return self._envelopes[-1].digest

    @property
    def envelopes(self) -> tuple[Envelope, ...]:
        """All versions, oldest first."""
        return tuple(self._envelopes)

    @property
    def rosters(self) -> tuple[Roster, ...]:
        """What all versions say, oldest first."""
        return tuple(self._rosters)

    def by_digest(self, wanted: str) -> Roster:
        """The roster of that digest; raises where this party never saw it."""
        for envelope, roster in zip(self._envelopes, self._rosters, strict=False):
            if envelope.digest == wanted:
                return roster
        raise RosterChainError(
            "a statement names a roster that is not known here", hint="fetch the newest roster, then try again"
        )

    def in_force(self, now: datetime) -> Roster:
        """The latest roster, or an error where it has expired."""
        self.latest.check_time(now)
        return self.latest


__all__ = [
    "Member",
    "Role",
    "Root",
    "RootMismatchError",
    "Roster",
    "RosterChainError",
    "RosterHistory",
    "RosterRolledBackError",
    "StatementError",
    "UnknownMemberError",
    "check_quorum",
    "open_genesis",
    "open_successor",
    "root_fingerprint",
]
