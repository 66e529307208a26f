"""How much of what was agreed is used: uses, computing time, privacy budget, leaked bits; and the owner's privacy budgets.

Counted from the ledger's entries alone, limits read from the agreements on record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from federation.errors import KeyongError
from federation.policy import Constraint, Policy, parse_policy
from federation.privacy import STANDARD, rho_text
from keyong.pages.records import read_record
from keyong.pages.tallies import CONTRACT_COLUMNS, JOB_COLUMNS, Contract, Job, micro
from keyong.text import translate

MOST = 200
"""Agreements and jobs on one page."""
_BOUNDS = ("odrl:lteq", "odrl:lt", "lteq", "lt")


@dataclass(frozen=True)
class Gauge:
    """One bound: what it counts, what is taken of it, where it ends; texts are for people."""

    name: str
    taken: int
    limit: int
    taken_text: str
    limit_text: str

    @property
    def share(self) -> float:
        """What is taken, 0 to 1; 1 too where the limit is nothing."""
        return 1.0 if self.limit <= 0 else min(1.0, self.taken / self.limit)

    @property
    def tone(self) -> str:
        """``good`` while there is room, ``warn`` from nine tenths on, ``bad`` where nothing is left."""
        return "bad" if self.share >= 1 else "warn" if self.share >= 0.9 else "good"


@dataclass(frozen=True)
class Use:
    """An agreement with its gauges and what was done under it."""

    contract: Contract
    gauges: tuple[Gauge, ...]
    jobs: int
    steps: int
    denied: int
    seconds: int
    bytes: int
    now: str

    @property
    def state(self) -> str:
        """``revoked``, ``suspended``, ``expired`` or ``in force``, as this ledger has it."""
        if self.contract.ended:
            return translate("revoked")
        if self.contract.paused:
            return translate("suspended")
        return translate("expired") if self.contract.expires <= self.now else translate("in force")

    @property
    def tone(self) -> str:
        """How the state is coloured."""
        over = self.contract.ended or self.contract.paused or self.contract.expires <= self.now
        return "quiet" if over else "good"


def uses(index: sqlite3.Connection, ledger: sqlite3.Connection, now: datetime, digest: str | None = None) -> list[Use]:
    """The agreements on record, newest first, with what is used of each; only one where it is named."""
    where, values = ("WHERE digest = ?", (digest,)) if digest is not None else ("", ())
    contracts = index.execute(
        f"SELECT {CONTRACT_COLUMNS} FROM agreement {where} ORDER BY entry DESC LIMIT {MOST}",  # noqa: S608
        values,
    ).fetchall()
    return [_use(index, ledger, Contract(*row), now) for row in contracts]


def jobs(
    index: sqlite3.Connection, agreement: str | None = None, plan: str | None = None, limit: int = MOST
) -> list[Job]:
    """The jobs on record, newest first: all, one agreement's, or one."""
    where, values = "", tuple[str, ...]()
    if agreement is not None:
        where, values = "WHERE agreement = ?", (agreement,)
    if plan is not None:
        where, values = "WHERE plan = ?", (plan,)
    rows = index.execute(f"SELECT {JOB_COLUMNS} FROM job {where} ORDER BY first DESC LIMIT {limit}", values)  # noqa: S608
    return [Job(*row) for row in rows]


def _use(index: sqlite3.Connection, ledger: sqlite3.Connection, contract: Contract, now: datetime) -> Use:
    names = ("steps", "denied", "seconds", "bytes", "rho", "leak")
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
    count, taken, *rest = index.execute(
        f"SELECT count(*), coalesce(sum(steps > 0), 0), {sums} FROM job WHERE agreement = ?",  # noqa: S608
        (contract.digest,),
    ).fetchone()
    total = dict(zip(names, rest, strict=True))
    gauges = tuple(_gauges(_policy(ledger, contract.entry), taken, total))
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Use(contract, gauges, count, total["steps"], total["denied"], total["seconds"], total["bytes"], at)


def _policy(ledger: sqlite3.Connection, entry: int) -> Policy | None:
    record = read_record(ledger, entry)
    policy = record.statement("agreement").get("policy") if record is not None else None
    try:
        return parse_policy(policy) if isinstance(policy, dict) else None
    except KeyongError:
        return None


def _gauges(policy: Policy | None, taken: int, total: Mapping[str, int]) -> Iterator[Gauge]:
    if policy is None:
        return
    if (uses := _least(policy, "odrl:count")) is not None:
        yield Gauge(translate("uses"), taken, int(uses), str(taken), str(uses))
    if (seconds := _least(policy, "odrl:meteredTime")) is not None:
        used = total["seconds"]
        yield Gauge(translate("computing time"), used, int(seconds), f"{used:,} s", f"{int(seconds):,} s")
    if (bits := _least(policy, "fed:maxLeakBits")) is not None:
        yield Gauge(translate("leaked bits"), total["leak"], int(bits), f"{total['leak']:,}", f"{int(bits):,}")
    if (rho := _least(policy, "fed:rho")) is not None:
        limit = micro(rho)
        yield Gauge(translate("privacy budget (rho)"), total["rho"], limit, rho_text(total["rho"]), rho_text(limit))


def _least(policy: Policy, operand: str) -> Decimal | None:
    """The largest bound that any permission leaves for an operand; None where one is without, for then nothing bounds it."""
    found = []
    for permission in policy.permission:
        bounds = [
            bound
            for one in permission.constraint
            if isinstance(one, Constraint) and one.left == operand and one.operator in _BOUNDS
            if (bound := _number(one)) is not None
        ]
        if bounds:
            found.append(min(bounds))
    return max(found) if found else None


def _number(constraint: Constraint) -> Decimal | None:
    value = getattr(constraint.values[0], "value", "")
    if value.startswith("P"):
        from federation.policy.values import UnreadableValueError, parse_duration

        try:
            return Decimal(int(parse_duration(value).total_seconds()))
        except UnreadableValueError:
            return None
    try:
        bound = Decimal(value)
    except InvalidOperation:
        return None
    strict = constraint.operator.endswith("lt") and bound == bound.to_integral_value()
    return bound - 1 if strict else bound


def budgets(index: sqlite3.Connection, entities: Mapping[str, str], now: datetime) -> list[tuple[str, Gauge]]:
    """The owner's privacy budgets: of each dataset that noise was spent on, this quarter's and each company's."""
    quarter = f"{now.year}Q{(now.month + 2) // 3}"
    limits = {
        name: (micro(quarterly), micro(requester))
        for name, quarterly, requester in index.execute("SELECT dataset, quarterly, requester FROM budget")
    }
    taken: dict[tuple[str, str], int] = {}
    rows = index.execute("SELECT dataset, requester, began, sum(rho) FROM job WHERE rho > 0 GROUP BY plan")
    for dataset, requester, began, rho in rows:
        if _quarter(began) == quarter:
            taken[dataset, ""] = taken.get((dataset, ""), 0) + rho
        company = entities.get(requester, requester)
        taken[dataset, company] = taken.get((dataset, company), 0) + rho
    for dataset in limits:
        taken.setdefault((dataset, ""), 0)
    found = []
    for (dataset, company), amount in sorted(taken.items()):
        quarterly, each = limits.get(dataset, (STANDARD.dataset, STANDARD.requester))
        limit = each if company else quarterly
        name = company or translate("everybody, {quarter}", quarter=quarter)
        found.append((dataset, Gauge(name, amount, limit, rho_text(amount), rho_text(limit))))
    return found


def _quarter(time: str) -> str:
    return f"{time[:4]}Q{(int(time[5:7]) + 2) // 3}" if time[5:7].isdecimal() else ""
