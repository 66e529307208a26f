"""One party of the protocol: its home, what it holds, whom it can reach. What both kinds of process share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from federation import correspondence
from federation.dataspace.messages import MalformedMessageError, Message, read_object
from federation.dataspace.states import Role, WrongStateError
from federation.dataspace.store import DataspaceStore, NegotiationRow, TransferRow
from federation.dataspace.terms import OPEN_PER_MEMBER, PID
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.holdings import Holdings, TooManyWaitingError
from federation.home import Home
from federation.home import now as this_moment
from federation.ledger import Ledger
from federation.statements import DatasetDescription, Envelope

SETTLE_SECONDS = 5.0
"""How long a message that presumes one of ours waits until that one's own answer is here."""
_LOOK_AGAIN_SECONDS = 0.02

P = TypeVar("P", NegotiationRow, TransferRow)


class CounterpartyRefusedError(DeniedError):
    """The other side took the message for what it is, and refused it."""

    code = "counterparty-refused"


class ForeignAddressError(DeniedError):
    """A message names an address to answer to that is not its sender's in this consortium."""

    code = "foreign-address"


@dataclass(frozen=True)
class Answered:
    """What the other side answered, its signature verified."""

    status: int
    body: bytes


class Courier(Protocol):
    """Calls other members' endpoints."""

    def base(self, member: str) -> str:
        """The one address under which a member is called; also the only callback address it may name."""

    def ask(self, member: str, method: str, path: str, body: bytes) -> Answered:
        """Call a member; raises :class:`UnavailableError` where no answer of its own comes back."""


def no_datasets() -> Sequence[DatasetDescription]:
    """The catalog of a party that owns no data."""
    return ()


@dataclass
class Party:
    """Who speaks. ``changed`` is called after an agreement was interrupted, ended or let go on."""

    home: Home
    holdings: Holdings
    ledger: Ledger
    store: DataspaceStore
    courier: Courier
    datasets: Callable[[], Sequence[DatasetDescription]] = no_datasets
    clock: Callable[[], datetime] = this_moment
    changed: Callable[[], None] = field(default=lambda: None)

    @property
    def me(self) -> str:
        """Our own id."""
        return self.home.identity.member

    def check_callback(self, peer: str, address: str | None) -> None:
        """Raise unless ``address`` is where this member is reached: we call nobody where somebody else sends us."""
        if address is None or address.rstrip("/") != self.courier.base(peer):
            raise ForeignAddressError(
                "the callback address is not {member}'s in this consortium",
                hint="name {known}",
                member=peer,
                known=self.courier.base(peer),
            )

    def check_room(self, kind: type[P], peer: str) -> None:
        """Raise where a member has more processes open here than it may."""
        if self.store.open_with(kind, peer) >= OPEN_PER_MEMBER:
            raise TooManyWaitingError(
                "{member} has {count} processes open here",
                hint="end some of them first",
                member=peer,
                count=OPEN_PER_MEMBER,
            )

    def take(self, envelope: Envelope) -> str:
        """Take a signed statement as if it had come by mail: one mechanism, whoever carries it."""
        _, agreement = correspondence.take(self.home, self.holdings, self.ledger, envelope, self.clock())
        return agreement

    def record(self, kind: str, row: NegotiationRow | TransferRow, state: str, **more: object) -> None:
        """Put the outcome of a process on record."""
        fields: dict[str, object] = {
            "pid": row.pid,
            "peer-pid": row.peer_pid,
            "role": row.role,
            "with": row.peer,
            "state": state,
            "agreement": row.agreement,
            **more,
        }
        self.ledger.append(kind, fields)

    # -- moving on ----------------------------------------------------------------------------------------------------

    def settled(self, row: P, allowed: tuple[str, ...]) -> P:
        """The process once no message of ours is on its way that what arrived presumes; as it is where none is.

        The other side may answer our message with one of its own before its acknowledgement of ours was read here.
        """
        end = time.monotonic() + SETTLE_SECONDS
        while row.sending and (row.state not in allowed or not row.peer_pid) and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_SECONDS)
            row = self.store.again(row)
        return row

    def move(self, row: P, target: str, **values: object) -> P:
        """Lead a process to a state; raise where it changed meanwhile."""
        if not self.store.change(row, self.clock(), state=target, **values):
            raise WrongStateError("it changed meanwhile", hint="ask how it stands, then try again")
        return self.store.again(row)

    def deliver(
        self, row: P, target: str, path: str, message: Message, stands: Callable[[P], str], **values: object
    ) -> tuple[P, dict[str, Any]]:
        """Send a message that leads to ``target``, and go there once the other side has acknowledged it.

        Where the acknowledgement of an earlier try was lost, the other side refuses this one and is asked how it
        stands. Returns the process and the acknowledgement's document.

        Raises:
            CounterpartyRefusedError: it refused; nothing changed.
            UnavailableError: nobody knows whether it arrived; nothing changed here, and it may be sent again.
        """
        self.store.begin(row, target, self.clock())
        try:
            answered = self.courier.ask(row.peer, "POST", path, message.to_bytes())
            document = read_object(answered.body) if answered.body else {}
            if answered.status >= 300 and (not row.peer_pid or stands(row) != target):
                raise CounterpartyRefusedError(
                    "{member} refused: {reason}", member=row.peer, reason=_reason_of(document, answered.status)
                )
        except KeyongError:
            self.store.change(row, self.clock(), sending="")
            raise
        if not row.peer_pid:
            values = {**values, "peer_pid": _pid_of(document, row.role)}
        return self.move(row, target, sending="", **values), document


def _reason_of(document: dict[str, Any], status: int) -> str:
    reasons = document.get("reason")
    said = [one for one in reasons if isinstance(one, str)] if isinstance(reasons, list) else []
    return ("; ".join(said) or str(document.get("code") or status))[:300]


def _pid_of(document: dict[str, Any], role: Role | str) -> str:
    pid = document.get("providerPid" if role == "consumer" else "consumerPid")
    if not isinstance(pid, str) or re.fullmatch(PID, pid) is None:
        raise MalformedMessageError("the acknowledgement names no process of the other side")
    return pid


def undelivered(error: UnavailableError) -> str:
    """Why a message did not arrive, for the record."""
    return f"not told: {error.code}"
