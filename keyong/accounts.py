"""What was used under agreements, month by month: from a ledger alone, the same figures on both sides.

Every figure comes from receipts: the provider's ledger holds them with its OUTCOME entries, the consumer holds them with
its results and has their digests on record. A use is counted in the month in which its first step began, a step in the
month in which it ended, both in UTC; what it cost is the agreement's tariff times what its receipts meter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from federation.crypto import canonical_json, digest
from federation.ledger import Entry
from federation.policy import Tariff, tariff_of
from federation.statements import (
    Agreement,
    DatasetDescription,
    Envelope,
    JobPlan,
    Receipt,
    instant_text,
    row_bucket,
)


@dataclass(frozen=True)
class JobLine:
    """What one job used in one month.

    Attributes:
        uses: 1 where its first step lies in this month.
        steps: steps by their outcome.
        seconds: that receipts meter; where the agreement counts no time, between the beginning and end of each step.
        rows: the size of the data as a range, empty where the history does not say.
        receipts: their digests, in order: what both sides can compare.
    """

    plan: str
    purpose: str
    actions: tuple[str, ...]
    uses: int
    steps: tuple[tuple[str, int], ...]
    seconds: int
    bytes: int
    rows: str
    first: str
    last: str
    amount: Decimal
    receipts: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """A month's statement of one agreement."""

    month: str
    agreement: str
    id: str
    title: str
    provider: str
    consumer: str
    dataset: str
    tariff: Tariff
    jobs: tuple[JobLine, ...]

    @property
    def uses(self) -> int:
        """Jobs that began in this month."""
        return sum(job.uses for job in self.jobs)

    @property
    def seconds(self) -> int:
        """Seconds of computing."""
        return sum(job.seconds for job in self.jobs)

    @property
    def bytes(self) -> int:
        """Bytes of replies."""
        return sum(job.bytes for job in self.jobs)

    @property
    def amount(self) -> Decimal:
        """What is owed for the month."""
        return sum((job.amount for job in self.jobs), Decimal(0))

    @property
    def figure(self) -> str:
        """Digest over everything that both sides must agree on; what only one of them knows (rows) is not in it."""
        return digest(canonical_json(self.document(own=False)))

    def document(self, *, own: bool = True) -> dict[str, Any]:
        """The statement as JSON; without ``own``, what both sides have in common."""
        jobs = []
        for job in self.jobs:
            row = {**vars(job), "amount": f"{job.amount:f}", "steps": dict(job.steps), "actions": list(job.actions)}
            row["receipts"] = list(job.receipts)
            if not own:
                del row["rows"]
            jobs.append(row)
        found: dict[str, Any] = {
            "month": self.month,
            "agreement": self.agreement,
            "id": self.id,
            "provider": self.provider,
            "consumer": self.consumer,
            "dataset": self.dataset,
            "currency": self.tariff.currency,
            "uses": self.uses,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "amount": f"{self.amount:f}",
            "jobs": jobs,
        }
        return {**found, "title": self.title, "figure": self.figure} if own else found


@dataclass
class Accounts:
    """Gathers receipts as a history goes by; hand :meth:`on_entry` to ``verify_ledger``, in one process.

    Attributes:
        missing: digests of receipts that are on record here while the receipt itself was not given.
        sealed: entries that were erased or not disclosed, so that the statement may lack what they hold.
    """

    missing: set[str] = field(default_factory=set)
    sealed: list[int] = field(default_factory=list)
    _agreements: dict[str, Agreement] = field(default_factory=dict)
    _purposes: dict[str, str] = field(default_factory=dict)
    _rows: dict[str, str] = field(default_factory=dict)
    _receipts: dict[str, Receipt] = field(default_factory=dict)

    def on_entry(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        """Take one entry with its opened values; returns how many receipts it held."""
        match entry.kind:
            case "agreement" if isinstance(fields.get("agreement"), bytes):
                envelope = Envelope.from_bytes(fields["agreement"])
                self._agreements[envelope.digest] = Agreement.read(envelope)
            case "dataset" if isinstance(fields.get("description"), bytes):
                said = DatasetDescription.read(Envelope.from_bytes(fields["description"]))
                self._rows[said.data_version] = f"{said.rows_at_least}-{said.rows_at_most}"
            case "intent" if "plan" in fields:
                self._purposes[str(fields["plan"])] = str(fields.get("purpose", ""))
            case "plan" if isinstance(fields.get("plan"), bytes):
                envelope = Envelope.from_bytes(fields["plan"])
                self._purposes[envelope.digest] = JobPlan.read(envelope).purpose
            case "receipts" if isinstance(fields.get("receipts"), list):
                self.missing.update(str(row[1]) for row in fields["receipts"])
                self.missing.difference_update(self._receipts)
            case "outcome" | "agreement" | "receipts":  # sealed, where it is one of the latter two
                if isinstance(fields.get("receipt"), bytes):
                    return self.add(Envelope.from_bytes(fields["receipt"]))
                self.sealed.append(entry.index)
        return 0

    def add(self, envelope: Envelope) -> int:
        """Take one receipt whose signature was verified; those of refusals before an INTENT cost nothing."""
        receipt = Receipt.read(envelope)
        self.missing.discard(envelope.digest)
        if receipt.intent >= 0 and receipt.decision.agreement:
            self._receipts[envelope.digest] = receipt
        return 1

    def named(self, text: str) -> set[str]:
        """Digests of the agreements on record whose id or digest begins so."""
        bare = text.removeprefix("urn:uuid:").removeprefix("sha256:")
        return {
            name
            for name, held in self._agreements.items()
            if held.id.removeprefix("urn:uuid:").startswith(bare) or name.removeprefix("sha256:").startswith(bare)
        }

    def accounts(self, agreement: str | None = None, month: str | None = None) -> list[Account]:
        """The statements, by month and agreement; only those of an agreement or a month where one is named."""
        found = []
        for name, held in sorted(self._agreements.items(), key=lambda item: item[1].id):
            if agreement not in (None, name):
                continue
            tariff = tariff_of(held)
            lines = self._lines(name, tariff)
            found += [
                Account(
                    when, name, held.id, held.title, held.provider, held.consumer, held.dataset, tariff,
                    tuple(sorted(lines[when], key=lambda line: (line.first, line.plan))),
                )
                for when in sorted(lines)
                if month in (None, when)
            ]  # fmt: skip
        return sorted(found, key=lambda one: (one.month, one.id))

    def _lines(self, agreement: str, tariff: Tariff) -> dict[str, list[JobLine]]:
        plans: dict[str, list[tuple[str, Receipt]]] = defaultdict(list)
        for name, receipt in self._receipts.items():
            if receipt.decision.agreement == agreement:
                plans[receipt.plan].append((name, receipt))
        lines: dict[str, list[JobLine]] = defaultdict(list)
        for plan, given in plans.items():
            given.sort(key=lambda one: (one[1].intent, one[0]))
            began = month_of(given[0][1].started)
            months = {month_of(receipt.ended) for _, receipt in given} | {began}
            for when in months:
                part = [one for one in given if month_of(one[1].ended) == when]
                lines[when].append(self._line(plan, part, int(when == began), tariff, given[0][1].started))
        return lines

    def _line(self, plan: str, given: list[tuple[str, Receipt]], uses: int, tariff: Tariff, began: datetime) -> JobLine:
        receipts = [receipt for _, receipt in given]
        seconds, size = sum(map(_seconds, receipts)), sum(map(_size, receipts))
        counts: dict[str, int] = defaultdict(int)
        for receipt in receipts:
            counts[receipt.outcome] += 1
        moments = [moment for receipt in receipts for moment in (receipt.started, receipt.ended)] or [began]
        return JobLine(
            plan=plan,
            purpose=self._purposes.get(plan, ""),
            actions=tuple(sorted({f"fed:{receipt.stage}" for receipt in receipts})),
            uses=uses,
            steps=tuple(sorted(counts.items())),
            seconds=seconds,
            bytes=size,
            rows=next((rows for receipt in receipts if (rows := self._rows_of(receipt))), ""),
            first=instant_text(min(moments)),
            last=instant_text(max(moments)),
            amount=tariff.amount(uses, seconds, size),
            receipts=tuple(name for name, _ in given),
        )

    def _rows_of(self, receipt: Receipt) -> str:
        if receipt.data_version in self._rows:
            return self._rows[receipt.data_version]
        return "-".join(map(str, row_bucket(receipt.weight))) if receipt.weight else ""


def month_of(moment: datetime) -> str:
    """The month in UTC, as ``2026-05``."""
    return instant_text(moment)[:7]


def _seconds(receipt: Receipt) -> int:
    if receipt.metered is not None:
        return receipt.metered.seconds
    return max(0, int((receipt.ended - receipt.started).total_seconds()))


def _size(receipt: Receipt) -> int:
    return receipt.metered.bytes if receipt.metered is not None else receipt.output_bytes


COLUMNS = (
    "month", "agreement", "provider", "consumer", "dataset", "job", "purpose", "uses", "steps", "seconds", "bytes",
    "rows", "first", "last", "amount", "currency",
)  # fmt: skip


def csv_rows(accounts: Iterable[Account]) -> list[list[str]]:
    """The statements as rows under :data:`COLUMNS`, one a job."""
    return [
        [
            one.month, one.id, one.provider, one.consumer, one.dataset, job.plan, job.purpose, str(job.uses),
            " ".join(f"{name}:{count}" for name, count in job.steps), str(job.seconds), str(job.bytes), job.rows,
            job.first, job.last, f"{job.amount:f}", one.tariff.currency,
        ]
        for one in accounts
        for job in one.jobs
    ]  # fmt: skip
