"""How an agreement stands at its provider: what its clauses on time, volume, money, circumstances and duties would be judged
by now, read from the provider's own ledger; nothing is reserved."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from enterprise_node import attributes, metering
from enterprise_node.record import Record
from federation import obligations
from federation.holdings import Holding
from federation.home import Home
from federation.policy import Policy, measures, tariff_of
from federation.statements import Agreement


def standing(
    home: Home, held: Holding, agreement: Agreement, policy: Policy, action: str, now: datetime
) -> dict[str, Any]:
    """Fields of ``federation.policy.Request`` for one more use; empty where another party provides the data.

    Time and volume are those of the uses so far and one second more: what a whole job would take is known when it is
    planned.
    """
    if held.provider != home.identity.member:
        return {}
    with home.open_ledger() as ledger:
        Record(ledger)  # brings the tables
        with ledger.reader() as connection:
            said = attributes.circumstances(connection, held.consumer)
            times = metering.course(connection, held.digest, "", now)
            used = times.used
            duties = obligations.tallies(connection, held.digest, policy, now)
    used = replace(used, uses=used.uses + 1, seconds=used.seconds + 1)
    tariff = measures(policy, tariff_of(agreement), action).tariff
    return {
        "place": said.place,
        "industry": said.industry,
        "events": said.events,
        "elapsed": times.elapsed,
        "interval": times.interval,
        "metered": timedelta(seconds=used.seconds),
        "total_bytes": used.bytes,
        "paid": tariff.amount(used.uses, used.seconds, used.bytes),
        "duties": duties,
    }
