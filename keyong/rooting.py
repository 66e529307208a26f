"""The root quorum at work: a roster proposed, signed by several holders of root keys, and adopted.

A proposal is the next roster itself, in its envelope; each holder adds a signature. It is adopted at the coordinator once the
quorum of the roster before it has signed, and, where it changes the root, the quorum of its own root too. Until then it
is a file that does nothing; a roster that came in between makes it void.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from coordinator.enrolment import ROSTER_VALIDITY, EnrolmentError, RootAbsentError, roster_lock
from federation.crypto import PublicKey, SignatureError, SigningKey, write_private
from federation.errors import UsageError
from federation.home import Home, now
from federation.ledger import Checkpoint, parse_note
from federation.statements import Envelope, Root, Roster, StatementError, add_signature, verify
from federation.statements.roster import open_successor
from keyong.succeeding import check_request, succeed, vouched

ROOT_KEY = "root.key"


@dataclass(frozen=True)
class Proposal:
    """A roster that is not adopted yet, beside the one it follows.

    Attributes:
        signed: the root keys, of either roster, that signed it.
    """

    envelope: Envelope
    before: Roster
    roster: Roster
    signed: tuple[str, ...]

    @property
    def old_missing(self) -> int:
        """How many signatures of the root before are missing."""
        return max(0, self.before.root.threshold - len(set(self.signed) & set(self.before.root.keys)))

    @property
    def new_missing(self) -> int:
        """How many signatures of its own root are missing; 0 where the root stays."""
        if self.roster.root == self.before.root:
            return 0
        return max(0, self.roster.root.threshold - len(set(self.signed) & set(self.roster.root.keys)))

    @property
    def new_ledgers(self) -> tuple[tuple[str, int], ...]:
        """Members whose lost ledger is followed by a new one, and how many entries of the old one others vouch for."""
        before = {member.id: member.ledger_number for member in self.before.members}
        return tuple(
            (member.id, Checkpoint.parse(parse_note(member.ledger_since.encode()).text).size)
            for member in self.roster.members
            if before.get(member.id, member.ledger_number) != member.ledger_number
        )

    @property
    def changed(self) -> tuple[str, ...]:
        """Members whose entry is another one, or that are new: beyond what the other properties say."""
        before = {member.id: member for member in self.before.members}
        renewed = {name for name, _ in self.new_ledgers}
        return tuple(
            member.id for member in self.roster.members if before.get(member.id) != member and member.id not in renewed
        )

    @property
    def removed(self) -> tuple[str, ...]:
        """Members that it takes out."""
        stay = {member.id for member in self.roster.members}
        return tuple(member.id for member in self.before.members if member.id not in stay)


def root_key(home: Home, *, make: bool = False) -> SigningKey:
    """The root key that this home holds; ``make`` makes one where there is none.

    Raises:
        RootAbsentError: there is none.
    """
    path = home.path / "keys" / ROOT_KEY
    if not path.exists():
        if not make:
            raise RootAbsentError(
                "this home holds no root key",
                hint="make one (`keyong consortium root-key`) and have it proposed by those who hold one",
            )
        SigningKey.generate().save(path)
    return home.key("root")


def propose(
    home: Home,
    *,
    add: Collection[str] = (),
    drop: Collection[str] = (),
    threshold: int | None = None,
    remove: Collection[str] = (),
    new_ledger: Envelope | None = None,
) -> Envelope:
    """The next roster with these changes (or none: then it is renewed), signed by the root key held here.

    Args:
        new_ledger: a member's request for a ledger that follows one it lost.

    Raises:
        RootAbsentError: no root key of the roster in force is held here.
        UsageError: a key or a member that is not there is to go.
        EnrolmentError: the roster would not hold.
    """
    history = home.history
    latest = history.latest
    key = _our_key(home, latest.root)
    unknown = [one for one in drop if one not in latest.root.keys]
    if unknown:
        raise UsageError("{key} is no root key of this roster", key=unknown[0][:60])
    for member in remove:
        latest.member(member)
    if latest.coordinator.id in remove:
        raise UsageError("the coordinator cannot be removed: nobody else could carry the next roster")
    succession = check_request(history.rosters, new_ledger) if new_ledger is not None else None
    keys = tuple(dict.fromkeys([*(one for one in latest.root.keys if one not in drop), *add]))
    at = now()
    try:
        roster = Roster(
            issued=at,
            expires=at + ROSTER_VALIDITY,
            consortium=latest.consortium,
            name=latest.name,
            version=latest.version + 1,
            previous=history.digest,
            root=Root(threshold=threshold or latest.root.threshold, keys=keys),
            members=tuple(
                succeed(member, succession)
                if succession is not None and member.id == succession.statement.member
                else member
                for member in latest.members
                if member.id not in remove
            ),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise EnrolmentError("the roster would not hold: {what}", what=first["msg"]) from None
    return roster.seal(key)


def read_proposal(home: Home, path: Path) -> Proposal:
    """A proposal in a file, every signature on it verified.

    Raises:
        StatementError: it does not follow the newest roster here, or bears a signature by nobody of either root.
        SignatureError: a signature does not hold.
    """
    envelope = Envelope.from_bytes(path.expanduser().read_bytes())
    roster, history = Roster.read(envelope), home.history
    latest = history.latest
    if (roster.consortium, roster.version, roster.previous) != (
        latest.consortium,
        latest.version + 1,
        history.digest,
    ):
        raise StatementError(
            "the proposal is roster version {version}, and does not follow version {before} that is in force here",
            hint="propose it anew where the newest roster is; this home learns it when it next connects",
            version=roster.version,
            before=latest.version,
        )
    for member in roster.members:
        old = next((one for one in latest.members if one.id == member.id), None)
        if old is not None and old.ledger_number != member.ledger_number:
            vouched(history.rosters, old, member.ledger_since)
    known = {PublicKey.from_text(text).key_id: text for text in (*latest.root.keys, *roster.root.keys)}
    signed = []
    for one in envelope.signatures:
        if one.key_id not in known:
            raise SignatureError("the proposal bears a signature by key {key_id}, of no root", key_id=one.key_id)
        verify(envelope, Roster.TYPE, [PublicKey.from_text(known[one.key_id])])
        signed.append(known[one.key_id])
    return Proposal(envelope, latest, roster, tuple(signed))


def approve(home: Home, proposal: Proposal) -> Envelope:
    """The proposal with the signature of the root key held here.

    Raises:
        RootAbsentError: the key held here is of neither root.
        UsageError: it signed already.
    """
    key = root_key(home)
    if key.public.text not in (*proposal.before.root.keys, *proposal.roster.root.keys):
        raise RootAbsentError(
            "the root key held here is of neither the old nor the new root",
            hint="have it proposed: keyong consortium propose FILE --add-root {key}",
            key=key.public.text,
        )
    return add_signature(proposal.envelope, key)


def adopt(home: Home, path: Path) -> Roster:
    """Take a proposal as the newest roster, if both quorums signed it; a coordinator that serves tells everybody.

    Raises:
        SignatureError: signatures are missing, or do not hold.
        StatementError: it does not follow the newest roster.
    """
    with roster_lock(home):
        proposal = read_proposal(home, path)
        open_successor(home.history.latest, home.history.digest, proposal.envelope)
        return home.learn(proposal.envelope)


def save(path: Path, envelope: Envelope) -> None:
    """Write a proposal, over an earlier state of it."""
    write_private(path.expanduser(), envelope.to_bytes(), replace=True)


def _our_key(home: Home, root: Root) -> SigningKey:
    key = root_key(home)
    if key.public.text not in root.keys:
        raise RootAbsentError(
            "the root key held here is not one of the roster in force",
            hint="propose where one of them is held (`keyong consortium roster` lists them)",
        )
    return key
