"""Which entries of a ledger are of one agreement: what an export for its other side shows, and what may be erased with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.ledger import Entry, Ledger
from federation.statements import Agreement, Envelope, JobPlan, Receipt

KEPT = frozenset({"revocation", "roster", "erasure", "continued", "ledger-closed"})
"""Kinds whose fields rules rest on, or that say what was erased: they are never erased."""


@dataclass
class AgreementEntries:
    """The entries of one agreement, found in one pass over a ledger.

    An entry belongs to it that names it, one of its plans, or one of its steps. A plan of several companies' data is one
    statement, which each of them was shown as a whole; so is an acknowledgement.

    Attributes:
        agreement: its digest.
        indices: of its entries.
    """

    agreement: str
    indices: set[int] = field(default_factory=set)
    _dataset: str = ""
    _plans: set[str] = field(default_factory=set)
    _described: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, ledger: Ledger, agreement: str) -> AgreementEntries:
        """Find them; what was erased before cannot be found by what it said."""
        found = cls(agreement)
        for entry in ledger.entries():
            found._take(entry, ledger.fields(entry.index))
        for index, dataset in found._described.items():
            if dataset and dataset == found._dataset:
                found.indices.add(index)
        return found

    def disclose(self, entry: Entry) -> Collection[str]:
        """What an export opens of an entry: all of it, or nothing."""
        return tuple(entry.fields) if entry.index in self.indices else ()

    def _take(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        if entry.kind == "dataset":
            self._described[entry.index] = str(fields.get("dataset", ""))
        if self._is_ours(entry, fields):
            self.indices.add(entry.index)
            plan = fields.get("digest") if entry.kind == "plan" else fields.get("plan")
            if isinstance(plan, str) and plan:
                self._plans.add(plan)

    def _is_ours(self, entry: Entry, fields: Mapping[str, Any]) -> bool:
        named = fields.get("agreement")
        if isinstance(named, bytes):
            envelope = Envelope.from_bytes(named)
            if envelope.digest == self.agreement:
                self._dataset = Agreement.read(envelope).dataset
            return envelope.digest == self.agreement
        if isinstance(named, str) and named:
            return named == self.agreement
        if entry.kind == "plan" and isinstance(fields.get("plan"), bytes):
            plan = JobPlan.read(Envelope.from_bytes(fields["plan"]))
            return any(planned.agreement == self.agreement for planned in plan.cohort)
        if isinstance(fields.get("receipt"), bytes):
            return Receipt.read(Envelope.from_bytes(fields["receipt"])).decision.agreement == self.agreement
        decision = fields.get("decision")
        if isinstance(decision, dict) and decision.get("agreement"):
            return bool(decision["agreement"] == self.agreement)
        of_step = {entry.ref, fields.get("intent"), fields.get("held")} - {None}
        return fields.get("plan") in self._plans or any(one in self.indices for one in of_step)
