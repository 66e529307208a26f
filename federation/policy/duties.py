"""Duties that a consumer fulfils after a use: what each demands, by when, and how its state reads on record.

A tracked duty becomes an *obligation* with each job's first step: pending until it is fulfilled, violated once its
deadline is over. A pending duty does not keep a permission from being used (ODRL 2.2, section 2.6.4; case 059 of the
ODRL test suite), a violated one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from federation.policy.model import Constraint, Duty, Policy, demanded, terms_of
from federation.policy.values import parse_duration, parse_instant
from federation.policy.vocabulary import COMPENSATE, TRACKED_DUTIES, includes

DutyState = Literal["pending", "fulfilled", "violated"]
NO_USE = "no obligation yet"


@dataclass(frozen=True)
class Tally:
    """How many obligations of one duty stand how."""

    pending: int = 0
    fulfilled: int = 0
    violated: int = 0

    @property
    def text(self) -> str:
        """The state as a decision record holds it; the worst comes first, and decides."""
        counts = (("violated", self.violated), ("pending", self.pending), ("fulfilled", self.fulfilled))
        return ", ".join(f"{name}: {count}" for name, count in counts if count) or NO_USE


def holds(text: str) -> bool:
    """Whether a duty in this state lets its permission be used."""
    return bool(text) and not text.startswith("violated")


def duty_text(duty: Duty) -> str:
    """A duty in one line: the same for the same duty, wherever in a policy it stands."""
    if "text" in duty.kept:
        return str(duty.kept["text"])
    bounds = (f"{one.left} {one.operator} {' '.join(terms_of(one))}" for one in demanded(duty.constraint))
    duty.kept["text"] = text = "; ".join((duty.action, *sorted(bounds)))[:400]
    return text


def tracked(duties: Iterable[Duty]) -> Iterator[Duty]:
    """Those that become obligations."""
    return (duty for duty in duties if duty.action in TRACKED_DUTIES)


def tracked_duties(policy: Policy, action: str | None = None) -> tuple[Duty, ...]:
    """The tracked duties of a policy's permissions for an action (for any where none is named), each once."""
    found = {
        duty_text(duty): duty
        for permission in policy.permission
        if action is None or includes(permission.action, action)
        for duty in tracked(permission.duty)
    }
    return tuple(found.values())


def deadline(duty: Duty, began: datetime) -> datetime | None:
    """By when a duty is to be fulfilled for a use that began then; None where it names no time."""
    moments = [_moment(one, began) for one in demanded(duty.constraint) if one.left != "odrl:payAmount"]
    return min(moments, default=None)


def _moment(constraint: Constraint, began: datetime) -> datetime:
    text = terms_of(constraint)[0]
    moment = parse_instant(text) if constraint.left == "odrl:dateTime" else began + parse_duration(text)
    return moment - timedelta(seconds=1) if constraint.operator == "lt" else moment


def amount_due(duty: Duty) -> Decimal | None:
    """What is to be paid for each job, in the currency of the agreement's tariff; None where the tariff alone says it."""
    amounts = [Decimal(terms_of(one)[0]) for one in demanded(duty.constraint) if one.left == "odrl:payAmount"]
    return max(amounts, default=None) if duty.action == COMPENSATE else None
