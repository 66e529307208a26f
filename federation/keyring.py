"""Which keys a member has had, and for which part of history each of them speaks.

A roster names one key a role. The chain of rosters says when it was exchanged, and from then on the old one signs nothing
more, whoever has it:

- a **statement** key ends with the roster that names the next one: what is put on record later, or presented as new, counts
  under the next key alone;
- a **ledger** key ends at a size: the roster holds the checkpoint of that state, signed by both keys, so that the old one
  can neither go on nor go back;
- a **witness** key ends at a time: cosignatures state theirs, and for the newest state the newest key alone counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from federation.crypto import PublicKey
from federation.errors import VerificationError
from federation.ledger import FormerKey, VerifierKey, open_checkpoint
from federation.ledger.note import COSIGNATURE
from federation.statements import CLOCK_SKEW, Envelope, Member, Roster, UnknownMemberError

KEY_GRACE: Final = timedelta(minutes=10)
"""How long after a roster ended a key a statement under it may still be put on record: it may have been on its way, and
clocks differ."""


class LedgerNameError(VerificationError):
    """A ledger's origin names no ledger of this consortium."""

    code = "ledger-name"


def ledger_origin(consortium: str, member: str, number: int = 1) -> str:
    """The origin line of a member's ledger: unique in the consortium, and outside it. A ledger that had to be begun anew
    has a number."""
    plain = f"keyong/{consortium.removeprefix('urn:uuid:')}/{member}"
    return plain if number == 1 else f"{plain}/{number}"


def ledger_of(consortium: str, origin: str) -> tuple[str, int]:
    """The member whose ledger has this origin, and which of its ledgers it is.

    Raises:
        LedgerNameError: it is of another consortium.
    """
    prefix = f"keyong/{consortium.removeprefix('urn:uuid:')}/"
    member, slash, number = origin.removeprefix(prefix).partition("/")
    known = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 1
    if not origin.startswith(prefix) or ledger_origin(consortium, member, known) != origin or (slash and not number):
        raise LedgerNameError("the ledger {origin} is not one of this consortium", origin=origin[:200])
    return member, known


def entries_of(rosters: Sequence[Roster], member: str) -> list[tuple[Roster, Member]]:
    """The rosters that name a member, oldest first, with its entry in each."""
    return [(roster, one) for roster in rosters for one in roster.members if one.id == member]


def ledger_key(rosters: Sequence[Roster], member: str, number: int | None = None) -> VerifierKey:
    """What a member's ledger is verified with: its key, and those it had before.

    Args:
        rosters: of one chain, oldest first.
        number: which of its ledgers; the newest, if None.

    Raises:
        UnknownMemberError: no roster names the member, or that ledger of it.
        LedgerError: a checkpoint at which a key took over is not signed by both.
    """
    found = entries_of(rosters, member)
    if not found or (number is not None and all(one.ledger_number != number for _, one in found)):
        raise UnknownMemberError("{member} is not in the roster", member=member[:64])
    wanted = found[-1][1].ledger_number if number is None else number
    origin = ledger_origin(found[0][0].consortium, member, wanted)
    key, former = "", list[FormerKey]()
    for _, one in found:
        if one.ledger_number != wanted or one.ledger_key == key:
            continue
        # Without a handover it is another's ledger under the name: of a member that was removed, and entered anew.
        former = [*former, handed_over(origin, key, one)] if key and one.ledger_since else []
        key = one.ledger_key
    return VerifierKey(origin, PublicKey.from_text(key), former=tuple(former))


def handed_over(origin: str, before: str, member: Member) -> FormerKey:
    """The key ``before`` as the roster's entry of its successor ends it.

    Raises:
        LedgerError: the checkpoint in it is not signed by both keys.
    """
    note, old = member.ledger_since.encode(), PublicKey.from_text(before)
    signed = open_checkpoint(note, VerifierKey(origin, old)).checkpoint
    open_checkpoint(note, VerifierKey(origin, PublicKey.from_text(member.ledger_key)))
    return FormerKey(old, signed.size, signed.root, note)


def statement_keys(rosters: Sequence[Roster], member: str) -> list[tuple[PublicKey, datetime | None]]:
    """The keys that a member has signed statements with, newest first, and when each ended (None: it has not)."""
    found = entries_of(rosters, member)
    return [
        (PublicKey.from_text(key), end) for key, end in _spans([(roster, one.statement_key) for roster, one in found])
    ]


def signing_key(rosters: Sequence[Roster], member: str, envelope: Envelope, since: datetime) -> PublicKey:
    """The key of a member's that a statement of that time may be signed with: the one that did, if it had not ended by then.

    Args:
        since: when the statement was issued. That it was not issued later than it says is for whoever kept it to know.
    """
    known = [key for key, end in statement_keys(rosters, member) if end is None or end + CLOCK_SKEW > since]
    if not known:
        raise UnknownMemberError("{member} is not in the roster", member=member[:64])
    signed = {one.key_id for one in envelope.signatures}
    return next((key for key in known if key.key_id in signed), known[0])


def witness_name(consortium: str, member: str) -> str:
    """The name in a member's cosignatures."""
    return f"{ledger_origin(consortium, member)}/witness"


def witness_key(roster: Roster, member: Member) -> VerifierKey:
    """What a member's cosignatures are verified with."""
    return VerifierKey(witness_name(roster.consortium, member.id), PublicKey.from_text(member.witness_key), COSIGNATURE)


def witness_keys(rosters: Sequence[Roster], member: str) -> list[VerifierKey]:
    """The keys that a member has cosigned with, newest first; each but the newest with the time at which it ended."""
    found = entries_of(rosters, member)
    keys = []
    for key, end in _spans([(roster, one.witness_key) for roster, one in found]):
        until = None if end is None else int((end + CLOCK_SKEW).timestamp())
        name = witness_name(rosters[0].consortium, member)
        keys.append(VerifierKey(name, PublicKey.from_text(key), COSIGNATURE, until=until))
    return keys


def _spans(found: Sequence[tuple[Roster, str]]) -> list[tuple[str, datetime | None]]:
    """Each key once, newest first, with the time of the roster that named another one."""
    spans: list[tuple[str, datetime | None]] = []
    for roster, key in found:
        if spans and spans[0][0] == key:
            continue
        if spans:
            spans[0] = (spans[0][0], roster.issued)
        spans.insert(0, (key, None))
    return spans
