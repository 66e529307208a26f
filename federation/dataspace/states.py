"""The two state machines of the protocol: which message takes which party from where to where.

Contract negotiation and transfer process, as the Dataspace Protocol 2025-1 has them. Pure tables: whoever holds a
process asks :func:`negotiation_step` or :func:`transfer_step`, and anything that is not in them is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from federation.errors import UsageError

Role = Literal["consumer", "provider"]
Reply = tuple[int, dict[str, Any]]
"""Status and document of an answer."""
INITIAL = "INITIAL"
"""Before the other side has acknowledged the first message: a state of ours alone."""
NEGOTIATION_STATES = ("REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED", "TERMINATED")
TRANSFER_STATES = ("REQUESTED", "STARTED", "SUSPENDED", "COMPLETED", "TERMINATED")
ENDED = frozenset({"FINALIZED", "COMPLETED", "TERMINATED"})
"""No message leads out of these."""

_NEGOTIATION: dict[tuple[Role, str], tuple[str, ...]] = {
    ("consumer", "REQUESTED"): ("OFFERED",),
    ("provider", "OFFERED"): ("REQUESTED",),
    ("consumer", "ACCEPTED"): ("OFFERED",),
    ("provider", "AGREED"): ("REQUESTED", "ACCEPTED"),
    ("consumer", "VERIFIED"): ("AGREED",),
    ("provider", "FINALIZED"): ("VERIFIED",),
    ("consumer", "TERMINATED"): ("REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED"),
    ("provider", "TERMINATED"): ("REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED"),
}
"""By who sends and what it leads to: the states from which it may be sent."""

_TRANSFER: dict[tuple[Role, str], tuple[str, ...]] = {
    ("provider", "STARTED"): ("REQUESTED", "SUSPENDED"),
    ("consumer", "STARTED"): ("SUSPENDED",),
    ("provider", "SUSPENDED"): ("STARTED",),
    ("consumer", "SUSPENDED"): ("STARTED",),
    ("provider", "COMPLETED"): ("STARTED",),
    ("consumer", "COMPLETED"): ("STARTED",),
    ("provider", "TERMINATED"): ("REQUESTED", "STARTED", "SUSPENDED"),
    ("consumer", "TERMINATED"): ("REQUESTED", "STARTED", "SUSPENDED"),
}


class WrongStateError(UsageError):
    """The process is not in a state in which this may be said."""

    code = "wrong-state"


def other(role: Role) -> Role:
    """The role at the other side."""
    return "provider" if role == "consumer" else "consumer"


def negotiation_step(sender: Role, target: str) -> tuple[str, ...]:
    """The states from which ``sender`` may lead a negotiation to ``target``; none where it never may."""
    return _NEGOTIATION.get((sender, target), ())


def transfer_step(sender: Role, target: str) -> tuple[str, ...]:
    """The states from which ``sender`` may lead a transfer to ``target``; none where it never may."""
    return _TRANSFER.get((sender, target), ())


def check_step(allowed: tuple[str, ...], state: str, target: str) -> None:
    """Raise :class:`WrongStateError` unless ``state`` is one of those from which ``target`` may be reached."""
    if state not in allowed:
        raise WrongStateError(
            "it is {state}, and from there nothing leads to {target} by this side's word", state=state, target=target
        )
