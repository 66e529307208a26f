"""What a policy measures over all uses of an agreement: computing time, bytes and money, and how much of each it leaves.

These are reserved before a step and settled after it. A step may be given less time than its plan allows, where that is
all that is left; it is ended when that is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal

from federation.policy.model import Constraint, Policy, demanded, every, terms_of
from federation.policy.tariff import Tariff
from federation.policy.values import parse_duration
from federation.policy.vocabulary import includes

METERED = ("odrl:meteredTime", "odrl:payAmount", "fed:totalOutputBytes")


@dataclass(frozen=True)
class Usage:
    """What was used of an agreement: settled, and reserved by steps that are at work."""

    uses: int = 0
    seconds: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Measures:
    """What is measured for an action.

    Attributes:
        metered: time and bytes are to be reserved and settled; otherwise nothing rests on them.
        seconds: most seconds of computing that a demanded clause permits; None for no bound.
        pay: most money that a demanded clause permits; None for no bound.
        tariff: what money is computed by.
    """

    metered: bool
    seconds: int | None
    pay: Decimal | None
    tariff: Tariff

    def seconds_for(self, used: Usage, wanted: int, size: int) -> int:
        """The seconds to reserve for a step that may take ``wanted`` and reply with ``size`` bytes: less where less is
        left, and one where nothing is, so that the clause itself refuses."""
        left = wanted
        if self.seconds is not None:
            left = min(left, self.seconds - used.seconds)
        if self.pay is not None and self.tariff.second:
            other = self.tariff.amount(used.uses, used.seconds, used.bytes + size)
            affordable = ((self.pay - other) / self.tariff.second).to_integral_value(ROUND_FLOOR)
            left = min(left, int(affordable))
        return max(left, 1)


def measures(policy: Policy, tariff: Tariff, action: str) -> Measures:
    """What a policy measures for an action, the tightest of all its permissions for it."""
    permissions = [permission for permission in policy.permission if includes(permission.action, action)]
    named = {one.left for permission in permissions for one in every(permission.constraint)}
    named |= {one.left for prohibition in policy.prohibition for one in every(prohibition.constraint)}
    must = [one for permission in permissions for one in demanded(permission.constraint)]
    return Measures(
        metered=tariff.metered or bool(named.intersection(METERED)),
        seconds=min(_seconds(must), default=None),
        pay=min(_amounts(must), default=None),
        tariff=tariff,
    )


def _seconds(constraints: list[Constraint]) -> Iterator[int]:
    for one in constraints:
        if one.left == "odrl:meteredTime" and one.operator in ("lteq", "lt", "eq"):
            bound = parse_duration(terms_of(one)[0])
            whole = bound // timedelta(seconds=1)
            yield whole - 1 if one.operator == "lt" and bound == timedelta(seconds=whole) else whole


def _amounts(constraints: list[Constraint]) -> Iterator[Decimal]:
    smallest = Decimal("0.000000000001")
    for one in constraints:
        if one.left == "odrl:payAmount" and one.operator in ("lteq", "lt", "eq"):
            bound = Decimal(terms_of(one)[0])
            yield bound - smallest if one.operator == "lt" else bound
