"""Every key that members ever had, by the rosters of one chain: what statements of any age are verified by."""

from __future__ import annotations

from datetime import datetime

from federation.crypto import PublicKey, SignatureError
from federation.errors import VerificationError
from federation.keyring import KEY_GRACE, statement_keys
from federation.ledger.entry import format_time
from federation.statements import Envelope, Member, Roster, RosterHistory, instant_text, verify


class EvidenceError(VerificationError):
    """What is to be verified does not say what is needed to verify it, or says something else."""

    code = "evidence"


class KeyEndedError(SignatureError):
    """A statement is signed with a key that its author had given up before."""

    code = "key-ended"


class Rosters:
    """Every key that each member ever had, by the rosters of one chain."""

    def __init__(self, history: RosterHistory) -> None:
        self._members: dict[str, list[Member]] = {}
        self._keys: dict[str, list[tuple[PublicKey, datetime | None]]] = {}
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

    def statement_keys(self, member: str) -> list[tuple[PublicKey, datetime | None]]:
        """The keys that this member has signed statements with, newest first, and when each ended."""
        if member not in self._keys:
            self.entries(member)
            self._keys[member] = statement_keys(self.chain, member)
        return self._keys[member]

    def signed_by(self, envelope: Envelope, member: str, *, since: datetime | str = "") -> None:
        """Raise SignatureError unless this member signed the statement, with a key that had not ended.

        Args:
            since: when it was put on record, or earliest can have been signed, as a moment or as an entry's time: a key that
                had ended before counts no more. Empty: any key that the member ever had.
        """
        failure: SignatureError | None = None
        keys = self.statement_keys(member)
        for key, end in keys:
            if end is not None and since and _over(end, since):
                signed = {one.key_id for one in envelope.signatures}
                if key.key_id in signed:
                    failure = KeyEndedError(
                        "{member} did not sign this: the key that did had ended on {end}",
                        member=member,
                        end=instant_text(end),
                    )
                continue
            try:
                verify(envelope, envelope.payload_type, [key])
                return
            except SignatureError as error:
                failure = error
        assert failure is not None
        raise failure


def _over(end: datetime, since: datetime | str) -> bool:
    """Whether a key that ended then had ended before something was put on record, clocks and the way allowed for."""
    last = end + KEY_GRACE
    return format_time(last) < since if isinstance(since, str) else last < since
