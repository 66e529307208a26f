"""Our own word on an agreement, signed and recorded: that it is over, or interrupted, or may go on."""

from __future__ import annotations

from datetime import timedelta

from federation import correspondence
from federation.dataspace.messages import MalformedMessageError
from federation.dataspace.party import Party
from federation.dataspace.store import NegotiationRow, TransferRow
from federation.statements import Envelope, Revocation, Suspension

VALIDITY = timedelta(days=365)
OURS = "dataspace: "
"""How the reason of a word begins that a negotiation or transfer gave, and not the owner by command."""


def revoke(party: Party, agreement: str, reason: str) -> Envelope | None:
    """End an agreement by our own word; None where nothing of it is held, or it is over already."""
    state = party.holdings.state(agreement)
    if state is None or state == "revoked":
        return None
    at = party.clock()
    revocation = Revocation(issued=at, expires=at + VALIDITY, agreement=agreement, by=party.me, reason=reason[:500])
    envelope = revocation.seal(party.home.key("statement"))
    correspondence.revoke(party.holdings, party.ledger, envelope, revocation)
    party.changed()
    return envelope


def word(party: Party, agreement: str, reason: str, *, suspended: bool) -> tuple[Suspension, Envelope]:
    """Our next word on whether an agreement is suspended, signed and not yet in effect."""
    at = party.clock()
    mine = (one.number for one in party.holdings.pauses(agreement) if one.by == party.me)
    suspension = Suspension(
        issued=at,
        expires=at + VALIDITY,
        agreement=agreement,
        by=party.me,
        number=max(mine, default=0) + 1,
        suspended=suspended,
        reason=(OURS + reason)[:500],
    )
    return suspension, suspension.seal(party.home.key("statement"))


def suspend(party: Party, suspension: Suspension, envelope: Envelope) -> None:
    """Put our word into effect, on record; jobs that it ends are told at once."""
    correspondence.suspend(party.holdings, party.ledger, envelope, suspension)
    party.changed()


def take_word(party: Party, row: NegotiationRow | TransferRow, envelope: Envelope) -> None:
    """Take the provider's signed word on this agreement, and on no other."""
    suspension = Suspension.read(envelope) if envelope.payload_type == Suspension.TYPE else None
    if suspension is None or suspension.agreement != row.agreement or suspension.by != row.peer:
        raise MalformedMessageError("the statement beside the message is not the provider's word on this agreement")
    party.take(envelope)
    party.changed()


def holding_back(party: Party, agreement: str) -> bool:
    """Whether our own word suspends an agreement now."""
    return any(one.by == party.me and one.suspended for one in party.holdings.pauses(agreement))


def owner_holds(party: Party, agreement: str) -> bool:
    """Whether the owner suspended an agreement by command: then no message lets it go on."""
    if not holding_back(party, agreement):
        return False
    said = ""
    for entry in party.ledger.find(kind="suspension"):
        fields = party.ledger.fields(entry.index)
        statement = fields.get("suspension")
        if fields.get("agreement") == agreement and fields.get("by") == party.me and isinstance(statement, bytes):
            said = Suspension.read(Envelope.from_bytes(statement)).reason
    return not said.startswith(OURS)
