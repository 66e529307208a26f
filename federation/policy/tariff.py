"""What uses cost: the tariff of an agreement, and amounts by it, exact to the last digit.

A tariff is one line that both parties sign (``Agreement.tariff``): a currency, then prices, for example
``CNY; second 0.02; megabyte 1.50``. The price of one use (a job) is ``Agreement.cost``. Seconds are those a receipt
meters, a megabyte is 1,000,000 bytes of replies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from federation.errors import UsageError
from federation.statements import Agreement

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_PRICE = re.compile(r"(second|megabyte) ((?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?)", re.ASCII)
MEGABYTE = 1_000_000


class TariffError(UsageError):
    """A tariff cannot be read, so nothing could be owed by it for certain."""

    code = "tariff"


@dataclass(frozen=True)
class Tariff:
    """Prices in one currency; all nothing where an agreement charges nothing."""

    currency: str = ""
    use: Decimal = Decimal(0)
    second: Decimal = Decimal(0)
    megabyte: Decimal = Decimal(0)

    @property
    def metered(self) -> bool:
        """Whether time or volume is charged, so that both have to be metered."""
        return bool(self.second or self.megabyte)

    def amount(self, uses: int, seconds: int, size: int) -> Decimal:
        """What these uses, seconds and bytes cost together."""
        return (self.use * uses + self.second * seconds + self.megabyte * size / MEGABYTE).normalize() + Decimal(0)


def tariff_of(agreement: Agreement) -> Tariff:
    """The tariff of an agreement.

    Raises:
        TariffError: its line is none of the form above, a price is named twice, or something is charged in no currency.
    """
    use = Decimal(agreement.cost)
    if use < 0:
        raise TariffError("the price of a use is {cost}, below nothing", cost=agreement.cost)
    if not agreement.tariff:
        if use:
            raise TariffError(
                "a use costs {cost}, and the tariff names no currency",
                hint="write the tariff like: CNY; second 0.02; megabyte 1.50",
                cost=agreement.cost,
            )
        return Tariff()
    currency, *parts = agreement.tariff.split("; ")
    found = [_PRICE.fullmatch(part) for part in parts]
    prices = {one[1]: Decimal(one[2]) for one in found if one is not None}
    if _CURRENCY.fullmatch(currency) is None or len(prices) != len(parts):
        raise TariffError(
            "the tariff {line} cannot be read",
            hint="write the tariff like: CNY; second 0.02; megabyte 1.50",
            line=agreement.tariff[:80],
        )
    return Tariff(currency, use, prices.get("second", Decimal(0)), prices.get("megabyte", Decimal(0)))
