"""Every key that members ever had, by the rosters of one chain: what statements of any age are verified by."""

from __future__ import annotations

from federation.crypto import PublicKey, SignatureError
from federation.errors import VerificationError
from federation.statements import Envelope, Member, Roster, RosterHistory, verify


class EvidenceError(VerificationError):
    """What is to be verified does not say what is needed to verify it, or says something else."""

    code = "evidence"


class Rosters:
    """Every key that each member ever had, by the rosters of one chain."""

    def __init__(self, history: RosterHistory) -> None:
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

    def signed_by(self, envelope: Envelope, member: str) -> None:
        """Raise SignatureError unless this member signed the statement, with any key it ever had."""
        failure: SignatureError | None = None
        for key in self.statement_keys(member):
            try:
                verify(envelope, envelope.payload_type, [key])
                return
            except SignatureError as error:
                failure = error
        assert failure is not None
        raise failure
