"""Contract negotiation, what this side says: each step by a person's command, or by itself where consent was given.

This side goes on by itself (:meth:`Negotiator.due`) only along terms that it asked for, offered or accepted before, and
whose digest it kept; everything else waits for its owner.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from federation import correspondence
from federation.dataspace.messages import (
    AgreementVerification,
    ContractAgreement,
    ContractOffer,
    ContractRequest,
    Message,
    Negotiation,
    NegotiationEvent,
    NegotiationTermination,
    pack,
)
from federation.dataspace.negotiation import new_row, pids
from federation.dataspace.offers import Terms, dataset_of
from federation.dataspace.party import Party, undelivered
from federation.dataspace.revoking import revoke, suspend, word
from federation.dataspace.states import ENDED, INITIAL, Role, WrongStateError, check_step, negotiation_step
from federation.dataspace.store import NegotiationRow, write_terms
from federation.errors import UnavailableError, UsageError
from federation.policy import check_parties, parse_policy
from federation.statements import Agreement, Envelope, add_signature, open_offer

NOT_STARTED = "no transfer is started"


class Negotiator:
    """Leads the negotiations of one party."""

    def __init__(self, party: Party) -> None:
        self._party = party

    # -- proposing ----------------------------------------------------------------------------------------------------

    def request(self, provider: str, terms: Terms, offer: str) -> NegotiationRow:
        """Ask a provider for an agreement on these terms: a request is our consent to them.

        Args:
            offer: the id of the catalog's offer that is taken, or a fresh one.
        """
        return self._begin("consumer", provider, terms, offer)

    def offer(self, consumer: str, terms: Terms) -> NegotiationRow:
        """Offer an agreement unasked."""
        return self._begin("provider", consumer, terms, f"urn:uuid:{uuid.uuid4()}")

    def _begin(self, role: Role, peer: str, terms: Terms, offer: str) -> NegotiationRow:
        party = self._party
        row = new_row(party, role, peer, "", INITIAL, terms, terms.digest)
        party.store.add(row)
        proposed, home = terms.offer(offer), party.courier.base(party.me)
        message: Message
        if role == "consumer":
            path, target = "request", "REQUESTED"
            message = ContractRequest(consumer_pid=row.pid, offer=proposed, callback=home)
        else:
            path, target = "offers", "OFFERED"
            message = ContractOffer(provider_pid=row.pid, offer=proposed, callback=home)
        try:
            return self._send(row, target, f"/negotiations/{path}", message)
        except Exception:
            party.store.change(row, party.clock(), state="TERMINATED", reason="it was not taken", sending="")
            raise

    def counter(self, row: NegotiationRow, terms: Terms) -> NegotiationRow:
        """Answer: as consumer with another request, as provider with an offer; our consent to these terms."""
        offered = terms.offer(f"urn:uuid:{uuid.uuid4()}")
        mine = {"terms": write_terms(terms), "consent": terms.digest}
        message: Message
        if row.role == "consumer":
            message = ContractRequest(**_pids(row), offer=offered)
            return self._step(row, "REQUESTED", "request", message, **mine)
        message = ContractOffer(**_pids(row), offer=offered)
        return self._step(row, "OFFERED", "offers", message, **mine)

    # -- agreeing -----------------------------------------------------------------------------------------------------

    def accept(self, row: NegotiationRow) -> NegotiationRow:
        """The consumer accepts what the provider offered."""
        message = NegotiationEvent(**_pids(row), event="ACCEPTED")
        return self._step(row, "ACCEPTED", "events", message, consent=row.on_table.digest)

    def agree(self, row: NegotiationRow, expires: datetime | None = None) -> NegotiationRow:
        """The provider makes and signs the agreement on what is on the table: an offer among our agreements."""
        self._check(row, "provider", "AGREED")
        envelope = self._made(row, expires)
        message = ContractAgreement(**_pids(row), agreement=Agreement.read(envelope).policy, statement=pack(envelope))
        consent = row.on_table.digest
        return self._step(self._party.store.again(row), "AGREED", "agreement", message, consent=consent)

    def _made(self, row: NegotiationRow, expires: datetime | None) -> Envelope:
        party, terms, at = self._party, row.on_table, self._party.clock()
        if row.statement and expires is None:
            return Envelope.from_bytes(row.statement)  # as it went out before, unacknowledged
        end = expires or terms.end(at)
        if end <= at:
            raise UsageError("the agreement would have expired already", hint="name its end: --expires 90d")
        identity = f"urn:uuid:{uuid.uuid4()}"
        agreement = Agreement(
            issued=at,
            expires=end,
            id=identity,
            provider=party.me,
            consumer=row.peer,
            dataset=dataset_of(terms.policy["target"], party.me),
            title=terms.title,
            roster=party.home.history.digest,
            policy={**terms.policy, "@id": identity},
            cost=terms.cost,
            tariff=terms.tariff,
        )
        check_parties(agreement, parse_policy(agreement.policy))
        envelope = agreement.seal(party.home.key("statement"))
        if row.agreement:
            revoke(party, row.agreement, "another took its place")
        party.ledger.append(
            "offer",
            {
                "offer": envelope.to_bytes(),
                "digest": envelope.digest,
                "consumer": row.peer,
                "dataset": agreement.dataset,
            },
        )
        correspondence.keep(party.holdings, envelope, "offered", agreement, at)
        party.store.change(row, at, agreement=envelope.digest, statement=envelope.to_bytes())
        return envelope

    def verify(self, row: NegotiationRow) -> NegotiationRow:
        """The consumer signs the agreement and returns it: our signature is our verification."""
        self._check(row, "consumer", "VERIFIED")
        party = self._party
        envelope = Envelope.from_bytes(row.statement)
        open_offer(envelope, party.home.public_key, party.clock())
        signed = add_signature(envelope, party.home.key("statement"))
        message = AgreementVerification(**_pids(row), statement=pack(signed))
        return self._step(row, "VERIFIED", "agreement/verification", message, statement=signed.to_bytes())

    def finalize(self, row: NegotiationRow) -> NegotiationRow:
        """The provider puts the agreement into force, suspended until a transfer is started, and says so."""
        self._check(row, "provider", "FINALIZED")
        party = self._party
        suspension, hold = word(party, row.agreement, NOT_STARTED, suspended=True)
        suspend(party, suspension, hold)
        party.take(Envelope.from_bytes(row.statement))
        message = NegotiationEvent(**_pids(row), event="FINALIZED", statement=pack(hold))
        moved = self._step(row, "FINALIZED", "events", message)
        party.record("negotiation", moved, "FINALIZED")
        return moved

    # -- ending -------------------------------------------------------------------------------------------------------

    def terminate(self, row: NegotiationRow, reason: str = "") -> tuple[NegotiationRow, bool]:
        """End a negotiation, here in any case; whether the other side was told.

        Whatever was signed in it is revoked first.
        """
        party = self._party
        self._check(row, "provider" if row.role == "provider" else "consumer", "TERMINATED")
        revocation = revoke(party, row.agreement, reason or "the negotiation was ended") if row.agreement else None
        message = NegotiationTermination(
            **_pids(row),
            code="terminated",
            reason=(reason[:500],) if reason else None,
            statement=pack(revocation) if revocation is not None else None,
        )
        told = True
        try:
            moved = self._step(row, "TERMINATED", "termination", message, reason=reason[:500])
        except UnavailableError as error:
            moved, told = party.move(row, "TERMINATED", reason=undelivered(error)), False
        party.record("negotiation", moved, "TERMINATED", by=party.me, reason=reason[:500])
        return moved, told

    # -- by itself ----------------------------------------------------------------------------------------------------

    def due(self, row: NegotiationRow) -> bool:
        """Whether this side goes on by itself."""
        if row.sending or row.state in ENDED or row.consent != row.on_table.digest:
            return False
        if row.role == "consumer":
            return row.state == "AGREED"
        return row.state in ("ACCEPTED", "REQUESTED", "VERIFIED")

    def go_on(self, row: NegotiationRow) -> NegotiationRow:
        """Take the step that is due."""
        if row.role == "consumer":
            return self.verify(row)
        return self.finalize(row) if row.state == "VERIFIED" else self.agree(row)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _check(self, row: NegotiationRow, role: Role, target: str) -> None:
        if row.role != role:
            raise WrongStateError("that is for the {role} to say", role=role)
        check_step(negotiation_step(role, target), row.state, target)

    def _step(self, row: NegotiationRow, target: str, path: str, message: Message, **values: object) -> NegotiationRow:
        role: Role = "provider" if row.role == "provider" else "consumer"
        self._check(row, role, target)
        return self._send(row, target, f"/negotiations/{row.peer_pid}/{path}", message, **values)

    def _send(self, row: NegotiationRow, target: str, path: str, message: Message, **values: object) -> NegotiationRow:
        return self._party.deliver(row, target, path, message, self._stands, **values)[0]

    def _stands(self, row: NegotiationRow) -> str:
        answered = self._party.courier.ask(row.peer, "GET", f"/negotiations/{row.peer_pid}", b"")
        if answered.status != 200:
            return ""
        told = Negotiation.read(answered.body)
        return told.state if (told.consumer_pid, told.provider_pid) == pids(row) else ""


def _pids(row: NegotiationRow) -> dict[str, Any]:
    consumer, provider = pids(row)
    return {"consumer_pid": consumer, "provider_pid": provider}
