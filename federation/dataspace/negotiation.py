"""Contract negotiation, what arrives: each message judged by role, state and signature, then acted on.

1. A process is found by its id *and* the member who called: nobody reaches another's.
2. A message that the state machine does not have from here is refused, and changes nothing.
3. The provider's agreement is a statement that it signed, holds exactly what is on the table, and is kept as any offer.
4. The consumer's verification is the same statement with both signatures.
5. It comes into force at FINALIZED by the way that every agreement takes, suspended until a transfer is started.
6. A negotiation that ends without that revokes whatever was signed in it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from federation.crypto import canonical_json
from federation.dataspace.messages import (
    AgreementVerification,
    ContractAgreement,
    ContractOffer,
    ContractRequest,
    MalformedMessageError,
    Negotiation,
    NegotiationEvent,
    NegotiationTermination,
    read_object,
)
from federation.dataspace.offers import Terms, dataset_of, read_offer, terms_of_agreement
from federation.dataspace.party import Party
from federation.dataspace.revoking import revoke, take_word
from federation.dataspace.states import INITIAL, Reply, Role, check_step, negotiation_step, other
from federation.dataspace.store import NegotiationRow, read_terms, write_terms
from federation.errors import DeniedError
from federation.policy import check_parties, parse_policy
from federation.statements import Envelope, Revocation, instant_text, open_agreement, open_offer


class AgreementDiffersError(DeniedError):
    """The agreement is not what was negotiated."""

    code = "agreement-differs"


def document(row: NegotiationRow) -> dict[str, Any]:
    """How a negotiation stands, as the protocol tells it."""
    consumer, provider = pids(row)
    state: Any = row.sending if row.state == INITIAL else row.state
    return Negotiation(consumer_pid=consumer, provider_pid=provider, state=state).document()


def pids(row: NegotiationRow) -> tuple[str, str]:
    """The ids of consumer and provider."""
    return (row.pid, row.peer_pid) if row.role == "consumer" else (row.peer_pid, row.pid)


def new_row(
    party: Party, role: Role, peer: str, peer_pid: str, state: str, terms: Terms, consent: str
) -> NegotiationRow:
    """A negotiation that begins now."""
    at = instant_text(party.clock())
    return NegotiationRow(
        pid=f"urn:uuid:{uuid.uuid4()}",
        role=role,
        peer=peer,
        peer_pid=peer_pid,
        state=state,
        terms=write_terms(terms),
        consent=consent,
        created=at,
        updated=at,
    )


class NegotiationDesk:
    """Answers the negotiation endpoints of one party."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def show(self, peer: str, pid: str) -> Reply:
        """Tell how a negotiation stands."""
        return 200, document(self._party.store.get(NegotiationRow, pid, peer))

    # -- at the provider ----------------------------------------------------------------------------------------------

    def begin(self, peer: str, body: bytes) -> Reply:
        """A consumer asks; the same request again is told how it stands."""
        party, message = self._party, ContractRequest.read(body)
        if message.provider_pid is not None:
            raise MalformedMessageError("a first request names no providerPid")
        party.check_callback(peer, message.callback)
        if (known := party.store.begun_by(NegotiationRow, "provider", peer, message.consumer_pid)) is not None:
            return 200, document(known)
        terms = self._asked(peer, message.offer)
        party.check_room(NegotiationRow, peer)
        taken = self._published(message.offer, terms)
        row = new_row(
            party,
            "provider",
            peer,
            message.consumer_pid,
            "REQUESTED",
            taken or terms,
            taken.digest if taken is not None else "",
        )
        party.store.add(row)
        return 201, document(row)

    def counter(self, peer: str, pid: str, body: bytes) -> Reply:
        """A consumer answers an offer with a request of its own."""
        message = ContractRequest.read(body)
        row = self._row(peer, pid, "provider", "REQUESTED", message.consumer_pid, message.provider_pid)
        terms = self._asked(peer, message.offer)
        return 200, document(self._party.move(row, "REQUESTED", terms=write_terms(terms), consent=""))

    def verified(self, peer: str, pid: str, body: bytes) -> Reply:
        """The consumer returns the agreement with its signature beside ours."""
        party, message = self._party, AgreementVerification.read(body)
        row = self._row(peer, pid, "provider", "VERIFIED", message.consumer_pid, message.provider_pid)
        envelope = message.envelope()
        if envelope is None or envelope.digest != row.agreement:
            raise AgreementDiffersError(
                "the verification does not hold the agreement that was made, with the consumer's signature"
            )
        open_agreement(envelope, party.home.public_key, party.clock())
        return 200, document(party.move(row, "VERIFIED", statement=envelope.to_bytes()))

    def _asked(self, peer: str, offer: dict[str, Any]) -> Terms:
        terms = read_offer(offer, self._party.me, peer, self._party.clock())
        name = dataset_of(terms.policy["target"], self._party.me)
        if name not in {one.dataset for one in self._party.datasets()}:
            raise MalformedMessageError("there is no dataset {name} here", name=name[:80])
        return terms

    def _published(self, offer: dict[str, Any], terms: Terms) -> Terms | None:
        """The terms of our own catalog, where the request takes an offer of it as it stands and it is given so."""
        for row in self._party.store.offers():
            ours = read_terms(row.terms)
            same = row.id == offer.get("@id") and ours.policy["target"] == terms.policy["target"]
            if same and row.automatic and ours.digest == terms.digest:
                return replace(terms, title=ours.title, expires=ours.expires)
        return None

    # -- at the consumer ----------------------------------------------------------------------------------------------

    def offered(self, peer: str, body: bytes) -> Reply:
        """A provider offers unasked; the same offer again is told how it stands."""
        party, message = self._party, ContractOffer.read(body)
        if message.consumer_pid is not None:
            raise MalformedMessageError("a first offer names no consumerPid")
        party.check_callback(peer, message.callback)
        if (known := party.store.begun_by(NegotiationRow, "consumer", peer, message.provider_pid)) is not None:
            return 200, document(known)
        terms = read_offer(message.offer, peer, party.me, party.clock())
        party.check_room(NegotiationRow, peer)
        row = new_row(party, "consumer", peer, message.provider_pid, "OFFERED", terms, "")
        party.store.add(row)
        return 201, document(row)

    def offered_again(self, peer: str, pid: str, body: bytes) -> Reply:
        """A provider answers a request with an offer."""
        message = ContractOffer.read(body)
        row = self._row(peer, pid, "consumer", "OFFERED", message.consumer_pid, message.provider_pid)
        terms = read_offer(message.offer, peer, self._party.me, self._party.clock())
        return 200, document(self._party.move(row, "OFFERED", terms=write_terms(terms)))

    def agreed(self, peer: str, pid: str, body: bytes) -> Reply:
        """The provider's signed agreement: exactly what is on the table, or it is refused."""
        party, message = self._party, ContractAgreement.read(body)
        row = self._row(peer, pid, "consumer", "AGREED", message.consumer_pid, message.provider_pid)
        envelope = message.envelope()
        if envelope is None:
            raise MalformedMessageError("the agreement comes without the statement that its provider signed")
        agreement = open_offer(envelope, party.home.public_key, party.clock())
        check_parties(agreement, parse_policy(agreement.policy))
        said, wanted = terms_of_agreement(agreement), row.on_table
        if (
            (agreement.provider, agreement.consumer) != (peer, party.me)
            or canonical_json(agreement.policy) != canonical_json(message.agreement)
            or said.policy["target"] != wanted.policy["target"]
            or said.digest != wanted.digest
        ):
            raise AgreementDiffersError("the agreement is not what was negotiated, or not what was signed")
        party.take(envelope)
        moved = party.move(row, "AGREED", agreement=envelope.digest, statement=envelope.to_bytes())
        return 200, document(moved)

    # -- at both ------------------------------------------------------------------------------------------------------

    def event(self, peer: str, pid: str, body: bytes) -> Reply:
        """The consumer accepts, or the provider finalizes."""
        party, message = self._party, NegotiationEvent.read(body)
        role: Role = "provider" if message.event == "ACCEPTED" else "consumer"
        row = self._row(peer, pid, role, message.event, message.consumer_pid, message.provider_pid)
        if message.event == "ACCEPTED":
            return 200, document(party.move(row, "ACCEPTED"))
        if (hold := message.envelope()) is not None:
            take_word(party, row, hold)  # first: it is not to be in force for a moment without
        party.take(Envelope.from_bytes(row.statement))
        moved = party.move(row, "FINALIZED")
        party.record("negotiation", moved, "FINALIZED")
        return 200, document(moved)

    def terminated(self, peer: str, pid: str, body: bytes) -> Reply:
        """The other side ends it; what was signed in it is revoked by both."""
        party, message = self._party, NegotiationTermination.read(body)
        mine = party.store.get(NegotiationRow, pid, peer)
        row = self._row(peer, pid, mine.role, "TERMINATED", message.consumer_pid, message.provider_pid)
        if row.agreement:
            theirs = message.envelope()
            if theirs is not None and theirs.payload_type == Revocation.TYPE:
                if Revocation.read(theirs).agreement != row.agreement:
                    raise MalformedMessageError("the revocation is of another agreement")
                party.take(theirs)
                party.changed()
            revoke(party, row.agreement, "the negotiation was ended")
        moved = party.move(row, "TERMINATED", reason=message.said, sending="")
        party.record("negotiation", moved, "TERMINATED", by=peer, reason=message.said)
        return 200, document(moved)

    def _row(
        self, peer: str, pid: str, role: str, target: str, consumer_pid: str | None, provider_pid: str | None
    ) -> NegotiationRow:
        """Our process, if this member may lead it to ``target`` and the message names it rightly."""
        row = self._party.store.get(NegotiationRow, pid, peer)
        mine: Role = "provider" if role == "provider" else "consumer"
        allowed = negotiation_step(other(mine), target)
        row = self._party.settled(row, allowed)
        check_step(allowed if row.role == mine else (), row.state, target)
        if (consumer_pid, provider_pid) != pids(row):
            raise MalformedMessageError("the message names another process than its address")
        return row


def echoed(body: bytes) -> tuple[str, str]:
    """The ids of consumer and provider that a message names, for the error that answers it."""
    try:
        value = read_object(body) if body else {}
    except MalformedMessageError:
        value = {}
    found = (value.get("consumerPid"), value.get("providerPid"))
    return tuple(one[:300] if isinstance(one, str) else "" for one in found)  # type: ignore[return-value]  # two of them
