"""The transfer process as a compute grant: STARTED is the right to run jobs under an agreement; no data moves.

The grant is the provider's own word on whether the agreement is suspended: the one that its node judges every step by,
and that ends what runs within a second. STARTED takes that word back, SUSPENDED, COMPLETED and TERMINATED say it again;
the signed statement travels beside the message, so that both sides hold the same. Who suspended a grant lets it go on.
"""

from __future__ import annotations

import uuid
from typing import Any

from federation.dataspace.messages import (
    MalformedMessageError,
    Message,
    Transfer,
    TransferCompletion,
    TransferRequest,
    TransferStart,
    TransferSuspension,
    TransferTermination,
    pack,
    unpack,
)
from federation.dataspace.party import Party, undelivered
from federation.dataspace.revoking import holding_back, owner_holds, suspend, take_word, word
from federation.dataspace.states import ENDED, INITIAL, Reply, Role, WrongStateError, check_step, other, transfer_step
from federation.dataspace.store import TransferRow
from federation.dataspace.terms import COMPUTE, STATEMENT
from federation.errors import DeniedError, UnavailableError
from federation.holdings import Holding
from federation.statements import Agreement, Envelope, Suspension, instant_text


class NoGrantError(DeniedError):
    """There is no agreement in force under which this could be granted."""

    code = "no-grant"


def pids(row: TransferRow) -> tuple[str, str]:
    """The ids of consumer and provider."""
    return (row.pid, row.peer_pid) if row.role == "consumer" else (row.peer_pid, row.pid)


def _pids(row: TransferRow) -> dict[str, Any]:
    consumer, provider = pids(row)
    return {"consumer_pid": consumer, "provider_pid": provider}


def document(row: TransferRow) -> dict[str, Any]:
    """How a transfer stands, as the protocol tells it."""
    state: Any = row.sending if row.state == INITIAL else row.state
    return Transfer(**_pids(row), state=state).document()


MESSAGES: dict[str, tuple[str, type[TransferStart | TransferSuspension | TransferCompletion | TransferTermination]]] = {
    "STARTED": ("start", TransferStart),
    "SUSPENDED": ("suspension", TransferSuspension),
    "COMPLETED": ("completion", TransferCompletion),
    "TERMINATED": ("termination", TransferTermination),
}
"""By what it leads to: the end of the address, and the message."""


class TransferDesk:
    """Answers the transfer endpoints of one party."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def show(self, peer: str, pid: str) -> Reply:
        """Tell how a transfer stands."""
        return 200, document(self._party.store.get(TransferRow, pid, peer))

    def begin(self, peer: str, body: bytes) -> Reply:
        """A consumer asks for a grant; the same request again is told how it stands."""
        party, message = self._party, TransferRequest.read(body)
        party.check_callback(peer, message.callback)
        if (known := party.store.begun_by(TransferRow, "provider", peer, message.consumer_pid)) is not None:
            return 200, document(known)
        if message.format != COMPUTE:
            raise MalformedMessageError("data does not move here; the one format is {format}", format=COMPUTE)
        if message.address is not None:
            raise MalformedMessageError("data does not move here: a request names no dataAddress")
        held = granting(party, message.agreement, provider=party.me, consumer=peer)
        party.check_room(TransferRow, peer)
        _check_single(party, held)
        row = new_row(party, "provider", peer, message.consumer_pid, "REQUESTED", held.digest)
        party.store.add(row)
        return 201, document(row)

    def told(self, peer: str, pid: str, body: bytes, target: str) -> Reply:
        """The other side starts, suspends, completes or terminates."""
        party, message = self._party, MESSAGES[target][1].read(body)
        row = party.store.get(TransferRow, pid, peer)
        mine: Role = "provider" if row.role == "provider" else "consumer"
        allowed = transfer_step(other(mine), target)
        row = party.settled(row, allowed)
        check_step(allowed, row.state, target)
        if (message.consumer_pid, message.provider_pid) != pids(row):
            raise MalformedMessageError("the message names another process than its address")
        _check_holder(row, target, peer)
        said = getattr(message, "said", "")
        beside: dict[str, str] = {}
        if mine == "provider":
            granted = self._grant(row, target, f"{peer}: {said}" if said else peer)
            beside = {STATEMENT: pack(granted)} if granted is not None else {}
        elif (envelope := message.envelope()) is not None:
            take_word(party, row, envelope)
        held_by = peer if target == "SUSPENDED" else ""
        moved = party.move(row, target, reason=said, held_by=held_by)
        party.record("transfer", moved, target, by=peer, reason=said)
        return 200, {**document(moved), **beside}

    def _grant(self, row: TransferRow, target: str, reason: str) -> Envelope | None:
        party = self._party
        if target == "STARTED" and owner_holds(party, row.agreement):
            raise WrongStateError("its owner has suspended the agreement")
        if target != "STARTED" and holding_back(party, row.agreement):
            return None  # stopped already, and by a word that this must not take the place of
        suspension, envelope = word(party, row.agreement, reason, suspended=target != "STARTED")
        suspend(party, suspension, envelope)
        return envelope


class Grantor:
    """Leads the transfers of one party."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def request(self, held: Holding) -> TransferRow:
        """Ask the provider of an agreement for the right to run jobs under it."""
        party = self._party
        granting(party, held.id, provider=held.provider, consumer=party.me)
        _check_single(party, held)
        row = new_row(party, "consumer", held.provider, "", INITIAL, held.digest)
        party.store.add(row)
        home = party.courier.base(party.me)
        message = TransferRequest(consumer_pid=row.pid, agreement=held.id, format=COMPUTE, callback=home)
        try:
            return party.deliver(row, "REQUESTED", "/transfers/request", message, self._stands)[0]
        except Exception:
            party.store.change(row, party.clock(), state="TERMINATED", reason="it was not taken", sending="")
            raise

    def lead(self, row: TransferRow, target: str, reason: str = "") -> tuple[TransferRow, bool]:
        """Start, suspend, complete or terminate; whether the other side was told.

        A provider's word that stops comes into effect before it is sent, whatever becomes of the message; one that
        starts only once the consumer has acknowledged it. A termination holds here even where nobody answers.
        """
        party = self._party
        role: Role = "provider" if row.role == "provider" else "consumer"
        check_step(transfer_step(role, target), row.state, target)
        _check_holder(row, target, party.me)
        suspension: Suspension | None = None
        envelope: Envelope | None = None
        if role == "provider" and (target == "STARTED" or not holding_back(party, row.agreement)):
            suspension, envelope = word(party, row.agreement, reason or target.lower(), suspended=target != "STARTED")
            if suspension.suspended:
                suspend(party, suspension, envelope)
        told = True
        try:
            row, answer = self._send(row, target, reason, envelope)
            if role == "consumer" and isinstance(answer.get(STATEMENT), str):
                take_word(party, row, unpack(answer[STATEMENT]))
        except UnavailableError as error:
            if target != "TERMINATED":
                raise
            row, told = party.move(row, target, reason=undelivered(error)), False
        if suspension is not None and envelope is not None and not suspension.suspended:
            suspend(party, suspension, envelope)
        party.record("transfer", row, target, by=party.me, reason=reason[:500])
        return row, told

    def due(self, row: TransferRow) -> str:
        """The state that this side leads a grant to by itself; empty where it waits.

        A grant that was asked for is started, where the owner did not suspend the agreement by command; one under an
        agreement that was revoked is over.
        """
        if row.role != "provider" or row.sending or row.state in ENDED:
            return ""
        party = self._party
        state = party.holdings.state(row.agreement)
        if state == "revoked":
            return "TERMINATED"
        return "STARTED" if row.state == "REQUESTED" and not owner_holds(party, row.agreement) else ""

    def _send(
        self, row: TransferRow, target: str, reason: str, envelope: Envelope | None
    ) -> tuple[TransferRow, dict[str, Any]]:
        path, kind = MESSAGES[target]
        values: dict[str, Any] = {**_pids(row), "statement": pack(envelope) if envelope is not None else None}
        if reason and target in ("SUSPENDED", "TERMINATED"):
            values |= {"code": target.lower(), "reason": (reason[:500],)}
        message: Message = kind(**values)
        held_by = self._party.me if target == "SUSPENDED" else ""
        return self._party.deliver(
            row,
            target,
            f"/transfers/{row.peer_pid}/{path}",
            message,
            self._stands,
            held_by=held_by,
            reason=reason[:500],
        )

    def _stands(self, row: TransferRow) -> str:
        answered = self._party.courier.ask(row.peer, "GET", f"/transfers/{row.peer_pid}", b"")
        if answered.status != 200:
            return ""
        told = Transfer.read(answered.body)
        return told.state if (told.consumer_pid, told.provider_pid) == pids(row) else ""


def new_row(party: Party, role: Role, peer: str, peer_pid: str, state: str, agreement: str) -> TransferRow:
    """A transfer that begins now."""
    at = instant_text(party.clock())
    return TransferRow(
        pid=f"urn:uuid:{uuid.uuid4()}",
        role=role,
        peer=peer,
        peer_pid=peer_pid,
        state=state,
        agreement=agreement,
        created=at,
        updated=at,
    )


def granting(party: Party, identity: str, *, provider: str, consumer: str) -> Holding:
    """The agreement in force (or suspended) of that id between exactly these two."""
    for held in party.holdings.with_id(identity):
        between = (held.provider, held.consumer) == (provider, consumer)
        if held.type == Agreement.TYPE and between and held.state in ("in-force", "suspended"):
            return held
    raise NoGrantError(
        "there is no agreement {agreement} in force between {provider} and {consumer}",
        agreement=identity[:60],
        provider=provider,
        consumer=consumer,
    )


def _check_single(party: Party, held: Holding) -> None:
    for row in party.store.list(TransferRow, open_only=True):
        if row.agreement == held.digest and row.state != INITIAL:
            raise WrongStateError("a transfer under this agreement is open already: {pid}", pid=row.pid)


def _check_holder(row: TransferRow, target: str, by: str) -> None:
    if target == "STARTED" and row.state == "SUSPENDED" and row.held_by != by:
        raise WrongStateError("it was suspended by {member}, who alone lets it go on", member=row.held_by)
