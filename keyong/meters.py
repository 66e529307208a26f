"""What agreements had used at each entry of a ledger: uses, seconds, bytes, money and rho, added up from the entries alone.

The node keeps these totals in tables beside its ledger, which are no part of the tree. Here they are made anew from what is:
each INTENT says what its step reserved, each OUTCOME's receipt what it came to, and `budget` entries what a plan gave back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from federation.ledger import Entry
from federation.policy import Tariff
from federation.policy.values import UNBOUNDED_RHO, UnreadableValueError, parse_rho
from federation.statements import Metered, Receipt


@dataclass
class _Used:
    """What is used or reserved of one agreement."""

    seconds: int = 0
    bytes: int = 0
    plans: set[str] = field(default_factory=set)
    rho: dict[str, int] = field(default_factory=dict)
    """Micro-rho that each plan has taken: all it reserved, or what it drew once it was over."""


@dataclass
class _Step:
    """A step at work: of which agreement, and what it reserved."""

    agreement: str
    plan: str
    reserved: Metered | None


@dataclass
class Meters:
    """Totals of every agreement, as the entries go by.

    Attributes:
        blind: an entry that may have changed them was erased or not disclosed: from then on nothing is said.
    """

    blind: bool = False
    _used: dict[str, _Used] = field(default_factory=lambda: defaultdict(_Used))
    _steps: dict[int, _Step] = field(default_factory=dict)
    _bounds: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of each plan with a privacy budget its agreement, and what it reserved."""
    _over: set[str] = field(default_factory=set)
    _unsure: set[str] = field(default_factory=set)
    """Agreements of whose rho nothing can be said."""

    def intent(self, entry: Entry, fields: Mapping[str, Any], tariff: Tariff) -> dict[str, Any]:
        """Take a step's INTENT; what the request was to be judged by, as fields of ``federation.policy.Request``."""
        agreement, plan, rho = (str(fields.get(name, "")) for name in ("agreement", "plan", "rho"))
        if self.blind or not agreement or not plan:
            self.blind = True
            return {}
        used, said = self._used[agreement], dict[str, Any]()
        reserved = Metered.model_validate(fields["metered"]) if isinstance(fields.get("metered"), dict) else None
        self._steps[entry.index] = _Step(agreement, plan, reserved)
        used.plans.add(plan)
        if reserved is not None:
            used.seconds += reserved.seconds
            used.bytes += reserved.bytes
            said["metered"] = timedelta(seconds=used.seconds)
            said["total_bytes"] = used.bytes
            said["paid"] = tariff.amount(len(used.plans), used.seconds, used.bytes)
        return said | self._rho(agreement, plan, rho)

    def _rho(self, agreement: str, plan: str, stated: str) -> dict[str, Any]:
        if stated == "unbounded":
            return {"rho": UNBOUNDED_RHO}
        try:
            bound = parse_rho(stated)
        except UnreadableValueError:
            self._unsure.add(agreement)  # by a release that did not state it
            return {}
        taken = self._used[agreement].rho
        taken[plan] = bound
        self._bounds[plan] = (agreement, bound)
        self._over.discard(plan)
        return {} if agreement in self._unsure else {"rho": sum(taken.values())}

    def outcome(self, entry: Entry, receipt: Receipt | None) -> None:
        """Take a step's OUTCOME: what it came to takes the place of what it reserved."""
        step = self._steps.pop(entry.ref, None) if entry.ref is not None else None
        if receipt is None:
            self.blind = True
            return
        if step is None:
            return
        if step.plan in self._over:
            self._unsure.add(step.agreement)  # it was settled after its plan gave back what it had not drawn
        if step.reserved is not None and receipt.metered is not None:
            used = self._used[step.agreement]
            used.seconds += receipt.metered.seconds - step.reserved.seconds
            used.bytes += receipt.metered.bytes - step.reserved.bytes

    def budget(self, fields: Mapping[str, Any]) -> None:
        """Take what a plan that is over gave back of its privacy budget."""
        if not fields:
            self.blind = True
        if fields.get("event") != "returned":
            return
        plan = str(fields.get("plan", ""))
        agreement, bound = self._bounds.get(plan, ("", 0))
        try:
            left = parse_rho(str(fields.get("rho", "")))
        except UnreadableValueError:
            self._unsure.add(agreement)
            return
        if agreement:
            self._used[agreement].rho[plan] = bound - left
            self._over.add(plan)
