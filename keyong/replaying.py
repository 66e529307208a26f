"""``keyong ledger replay``: every decision of a history judged again, from its entries alone."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from federation.ledger import Entry
from federation.policy import Difference, Policy, check_parties, decide_again, parse_policy, shown_columns, tariff_of
from federation.policy.vocabulary import EVALUATE, SCORE, TRAIN
from federation.statements import (
    CLOCK_SKEW,
    Agreement,
    DatasetDescription,
    DecisionRecord,
    Envelope,
    Receipt,
    instant_text,
)
from keyong.meters import Meters

_APPROVAL = re.compile(r"(sha256:[0-9a-f]{64}), entry (\d+),")


@dataclass(frozen=True)
class Finding:
    """A decision that comes out otherwise; ``index`` is its entry's."""

    index: int
    agreement: str
    differences: tuple[Difference, ...]


@dataclass
class _Contract:
    """An agreement as the ledger has it: its statement, and whether it was ended."""

    agreement: Agreement
    policy: Policy
    ended: bool = False
    paused: set[str] = field(default_factory=set)
    """The parties whose suspension stands."""


@dataclass
class DecisionReplay:
    """Judges decisions as their entries go by; hand :meth:`on_entry` to ``verify_ledger``, in one process.

    What a decision rested on is taken from entries before it: agreements and their end, descriptions of datasets, uses
    reserved. A node's ledger holds decisions; other parties' hold none.

    Attributes:
        same: decisions that come out as they are recorded.
        findings: those that do not, in the order of the ledger.
        erased: entries whose decision, or what it rested on, was erased or not disclosed.
        refused: refusals before any clause was judged, by their code.
    """

    same: int = 0
    findings: list[Finding] = field(default_factory=list)
    erased: list[int] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    _contracts: dict[str, _Contract] = field(default_factory=dict)
    _agreements: set[str] = field(default_factory=set)
    _sealed_agreements: bool = False
    _columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)
    """Of each version of a dataset the least rows that its description names."""
    _approvals: dict[str, int] = field(default_factory=dict)
    """Of each approval the entry that grants it, or -1 where it was refused or withdrawn since."""
    _plans: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _meters: Meters = field(default_factory=Meters)

    def on_entry(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        """Take one entry with its opened values; returns how many decisions it held."""
        match entry.kind:
            case "agreement":
                self._take_agreement(fields)
            case "suspension":
                self._interrupt(str(fields.get("agreement", "")), str(fields.get("by", "")), fields.get("suspended"))
            case "revocation":
                self._end(str(fields.get("agreement", "")))
            case "dataset" if isinstance(fields.get("description"), bytes):
                description = DatasetDescription.read(Envelope.from_bytes(fields["description"]))
                self._columns[description.data_version] = tuple(column.name for column in description.columns)
                self._rows[description.data_version] = description.rows_at_least
            case "approval":
                granted = fields.get("state") == "granted"
                self._approvals[str(fields.get("approval", ""))] = entry.index if granted else -1
            case "intent":
                return self._intent(entry, fields)
            case "outcome":
                receipt = fields.get("receipt")
                self._meters.outcome(
                    entry, Receipt.read(Envelope.from_bytes(receipt)) if isinstance(receipt, bytes) else None
                )
            case "budget":
                self._meters.budget(fields)
            case "denied":
                return self._denied(entry, fields)
        return 0

    def _take_agreement(self, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields.get("agreement"), bytes):
            self._sealed_agreements = True
            return
        envelope = Envelope.from_bytes(fields["agreement"])
        agreement = Agreement.read(envelope)
        policy = parse_policy(agreement.policy)
        check_parties(agreement, policy)
        self._contracts[envelope.digest] = _Contract(agreement, policy)

    def _end(self, digest: str) -> None:
        if digest in self._contracts:
            self._contracts[digest].ended = True

    def _interrupt(self, digest: str, by: str, suspended: object) -> None:
        if digest in self._contracts:
            (set.add if suspended else set.discard)(self._contracts[digest].paused, by)

    def _intent(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        if not isinstance(fields.get("decision"), dict):
            self.erased.append(entry.index)
            self._meters.blind = True
            return 1
        record = _read(fields["decision"])
        plan = str(fields.get("plan", ""))
        known = {
            name: fields[name] for name in ("action", "purpose", "requester", "code", "protection") if name in fields
        }
        if fields.get("rules"):
            known["rules"] = fields["rules"]
        if (contract := self._contracts.get(record.agreement)) is not None:
            known |= self._meters.intent(entry, fields, tariff_of(contract.agreement))
        self._judge(entry, record, plan, known, str(fields.get("data_version", "")))
        self._plans[record.agreement].add(plan)
        return 1

    def _denied(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        version = ""
        if isinstance(fields.get("receipt"), bytes):
            receipt = Receipt.read(Envelope.from_bytes(fields["receipt"]))
            record, version = receipt.decision, receipt.data_version
        elif isinstance(fields.get("decision"), dict):
            record = _read(fields["decision"])
        else:
            self.erased.append(entry.index)
            return 1
        if not record.constraints:
            self.refused[record.rule or str(fields.get("code", ""))] += 1
            return 0
        self._judge(entry, record, str(fields.get("plan", "")), {}, version)
        return 1

    def _judge(self, entry: Entry, record: DecisionRecord, plan: str, known: dict[str, Any], data_version: str) -> None:
        contract = self._contracts.get(record.agreement)
        if contract is None:
            if self._sealed_agreements:
                self.erased.append(entry.index)
            else:
                self._find(entry, record, (Difference("agreement", record.agreement, "not on record before this"),))
            return
        taken = self._plans[record.agreement]
        known |= {"uses_taken": len(taken), "continuing": plan in taken}
        if "action" in known and data_version in self._columns:
            known["columns"] = shown_columns(contract.policy, known["action"], self._columns[data_version])
        if known.get("action") in (TRAIN, EVALUATE, SCORE) and data_version in self._rows:
            known["group_size"] = self._rows[data_version]
        differences = decide_again(contract.policy, record, known)
        if record.permit:
            differences += _not_in_force(contract, entry) + self._not_approved(record)
        if differences:
            self._find(entry, record, differences)
        else:
            self.same += 1

    def _not_approved(self, record: DecisionRecord) -> tuple[Difference, ...]:
        """A permit that names an approval which no entry before grants, or one after it withdrew."""
        for judged in record.constraints:
            if judged.operand == "duty" and judged.right == "odrl:obtainConsent" and judged.satisfied:
                named = _APPROVAL.search(judged.left)
                if "" in self._approvals:  # one was erased or not disclosed: it may be this
                    return ()
                if named is None or self._approvals.get(named[1], -1) != int(named[2]):
                    return (Difference("duty", judged.left, "no such approval on record before this"),)
        return ()

    def _find(self, entry: Entry, record: DecisionRecord, differences: tuple[Difference, ...]) -> None:
        self.findings.append(Finding(entry.index, record.agreement, differences))


def _not_in_force(contract: _Contract, entry: Entry) -> tuple[Difference, ...]:
    """A permit under an agreement that was over. The decision comes before its entry, so expiry is judged with a margin."""
    if contract.ended:
        return (Difference("agreement", "in force", "revoked on record before this"),)
    if contract.paused:
        return (Difference("agreement", "in force", f"suspended by {', '.join(sorted(contract.paused))}"),)
    if datetime.fromisoformat(entry.time) >= contract.agreement.expires + CLOCK_SKEW:
        return (Difference("agreement", "in force", f"expired {instant_text(contract.agreement.expires)}"),)
    return ()


def _read(value: dict[str, Any]) -> DecisionRecord:
    return DecisionRecord.model_validate_json(json.dumps(value))
