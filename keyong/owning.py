"""What an owner decides at a node by command: which code may run, which output may leave. The node need not serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from enterprise_node.approvals import Approvals
from enterprise_node.held import HeldOutputs
from enterprise_node.record import Record
from federation.home import Home


@dataclass(frozen=True)
class Owner:
    """The owner's side of a node: its ledger open, and what waits for a decision."""

    record: Record
    approvals: Approvals
    outputs: HeldOutputs


@contextmanager
def as_owner(home: Home) -> Iterator[Owner]:
    """Open a home for its owner's decisions."""
    with home.open_ledger() as ledger:
        record = Record(ledger)
        yield Owner(record, Approvals(home, ledger), HeldOutputs(home, ledger))
