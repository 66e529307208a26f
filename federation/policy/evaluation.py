"""Judging constraints in three-valued logic: true, false, unknown.

Unknown is what makes evaluation fail closed on both sides: a permission needs every constraint *true*, while a
prohibition applies unless one of its constraints is *false*. Dropping what cannot be judged would open the first and
lift the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from federation.policy.model import AnyConstraint, Constraint, LogicalConstraint, every, terms_of
from federation.policy.request import Request
from federation.policy.values import SETS, Scalar, UnreadableValueError, part_of, read_left, read_right, right_text
from federation.policy.vocabulary import OPERANDS, PURPOSES, TIERS, Kind, purpose_is_a
from federation.statements import Judged


class Truth(Enum):
    """Kleene's three values."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, value: bool) -> Truth:
        """The two that are known."""
        return cls.TRUE if value else cls.FALSE


@dataclass(frozen=True)
class Finding:
    """One constraint as judged: its truth, the entry for the record, and the code of the refusal it would cause."""

    truth: Truth
    judged: Judged
    code: str


def all_of(truths: Iterable[Truth]) -> Truth:
    """Conjunction: one false makes it false, then one unknown makes it unknown."""
    truth = Truth.TRUE
    for one in truths:
        if one is Truth.FALSE:
            return one
        if one is Truth.UNKNOWN:
            truth = one
    return truth


def any_of(truths: Iterable[Truth]) -> Truth:
    """Disjunction: one true makes it true, then one unknown makes it unknown."""
    found = set(truths)
    if Truth.TRUE in found:
        return Truth.TRUE
    return Truth.UNKNOWN if Truth.UNKNOWN in found else Truth.FALSE


def exactly_one(truths: Iterable[Truth]) -> Truth:
    """Exclusive choice: two true make it false whatever else; otherwise one unknown makes it unknown."""
    found = list(truths)
    true = found.count(Truth.TRUE)
    if true > 1:
        return Truth.FALSE
    return Truth.UNKNOWN if Truth.UNKNOWN in found else Truth.of(true == 1)


def judge(constraint: AnyConstraint, request: Request, place: str) -> tuple[Truth, tuple[Finding, ...]]:
    """The truth of a constraint and a finding for it and for each of its parts, none left out."""
    if isinstance(constraint, Constraint):
        finding = judge_one(constraint, request, place)
        return finding.truth, (finding,)
    return _judge_logical(constraint, request, place)


def _judge_logical(constraint: LogicalConstraint, request: Request, place: str) -> tuple[Truth, tuple[Finding, ...]]:
    parts = _in_order if constraint.operator == "andSequence" else _each
    judged = parts(constraint, request, place)
    truths = [truth for truth, _ in judged]
    combine = {"and": all_of, "or": any_of, "xone": exactly_one, "andSequence": all_of}[constraint.operator]
    truth = combine(truths) if truths else Truth.UNKNOWN
    inner = tuple(finding for _, findings in judged for finding in findings)
    code = next((finding.code for finding in inner if finding.truth is not Truth.TRUE), "constraint")
    own = Judged(
        operand=constraint.operator,
        operator="",
        right=f"{len(truths)} constraints",
        left=" ".join(part.value for part in truths)[:400],
        satisfied=truth is Truth.TRUE,
        note=_note(place, "unknown" if truth is Truth.UNKNOWN else ""),
    )
    return truth, (*inner, Finding(truth, own, code))


_Judgement = tuple[Truth, tuple[Finding, ...]]


def _each(constraint: LogicalConstraint, request: Request, place: str) -> list[_Judgement]:
    return [
        judge(part, request, f"{place}/{constraint.operator}/{index}") for index, part in enumerate(constraint.parts)
    ]


def _in_order(constraint: LogicalConstraint, request: Request, place: str) -> list[_Judgement]:
    """Judge ``andSequence``: each part after the one before held, and an event after the event before it.

    What comes after a part that does not hold is not reached: unknown, so that it neither permits nor lifts a ban.
    """
    judged: list[_Judgement] = []
    since = 0
    for index, part in enumerate(constraint.parts):
        at = f"{place}/andSequence/{index}"
        if judged and judged[-1][0] is not Truth.TRUE:
            judged.append((Truth.UNKNOWN, tuple(_unreached(one, at) for one in every((part,)))))
            continue
        if not (isinstance(part, Constraint) and part.left == "odrl:event"):
            judged.append(judge(part, request, at))
            continue
        events = request.events
        left = None if events is None else events[since:]
        judged.append(judge(part, replace(request, events=left), at))
        happened = [events.index(name, since) for name in terms_of(part) if events and name in events[since:]]
        since = max(happened, default=since - 1) + 1
    return judged


def _unreached(constraint: Constraint, place: str) -> Finding:
    return _finding(constraint, Truth.UNKNOWN, "", place, "not reached", "constraint")


def judge_one(constraint: Constraint, request: Request, place: str) -> Finding:
    """Judge one comparison; whatever cannot be read or is not in the vocabulary is unknown, and says so in its note."""
    operand = OPERANDS.get(constraint.left)
    if operand is None:
        return _finding(constraint, Truth.UNKNOWN, "", place, "unknown operand", "unsupported")
    if constraint.operator not in operand.operators:
        return _finding(constraint, Truth.UNKNOWN, "", place, "unknown operator", "unsupported")
    left = read_left(operand.kind, request.operand(constraint.left))
    try:
        right = read_right(operand.kind, constraint)
    except UnreadableValueError:
        return _finding(constraint, Truth.UNKNOWN, left.text if left else "", place, "unreadable value", "unsupported")
    if left is None:
        return _finding(constraint, Truth.UNKNOWN, "", place, "not known here", operand.code)
    truth = _compare(operand.kind, constraint.operator, left.values, right)
    reason = "cannot be told" if truth is Truth.UNKNOWN else ""
    return _finding(constraint, truth, left.text, place, reason, operand.code)


def _finding(constraint: Constraint, truth: Truth, left: str, place: str, reason: str, code: str) -> Finding:
    # Most of what a step is judged by is what the step before it was judged by: the entry for the record is the same.
    key = (truth, left, place, reason, code)
    kept = constraint.kept.get("finding")
    if isinstance(kept, tuple) and kept[0] == key and isinstance(kept[1], Finding):
        return kept[1]
    finding = _made(constraint, truth, left, place, reason, code)
    constraint.kept["finding"] = (key, finding)
    return finding


def _made(constraint: Constraint, truth: Truth, left: str, place: str, reason: str, code: str) -> Finding:
    judged = Judged(
        operand=constraint.left,
        operator=constraint.operator,
        right=right_text(constraint),
        left=left,
        satisfied=truth is Truth.TRUE,
        note=_note(place, reason),
    )
    return Finding(truth, judged, code)


def _note(place: str, reason: str) -> str:
    return f"{place}; {reason}"[:400] if reason else place[:400]


def _compare(kind: Kind, operator: str, left: tuple[Scalar, ...], right: tuple[Scalar, ...]) -> Truth:
    if kind == "event":
        return _compare_events(operator, left, right)
    if kind in SETS:
        return _compare_sets(operator, left, right)
    if kind == "purpose":
        return _compare_purpose(operator, str(left[0]), [str(value) for value in right])
    if operator in ("eq", "isAnyOf"):
        return Truth.of(left[0] in right)
    if operator in ("neq", "isNoneOf"):
        return Truth.of(left[0] not in right)
    if operator in ("isPartOf", "isA"):
        return Truth.of(part_of(str(left[0]), str(right[0])))
    if operator == "hasPart":
        return Truth.of(part_of(str(right[0]), str(left[0])))
    return _compare_order(operator, left[0], right[0])


def _compare_events(operator: str, left: tuple[Scalar, ...], right: tuple[Scalar, ...]) -> Truth:
    """Whether what is named happened; what else happened does not matter."""
    happened = [value in left for value in right]
    if operator in ("neq", "isNoneOf"):
        return Truth.of(not any(happened))
    return Truth.of(all(happened) if operator == "isAllOf" else any(happened))


def _compare_sets(operator: str, left: tuple[Scalar, ...], right: tuple[Scalar, ...]) -> Truth:
    """``isAnyOf`` and ``eq``: all listed, true; none, false; some, unknown, so that it neither satisfies a permission nor
    lifts a ban. ``isAllOf`` and ``hasPart``: everything named is there. ``isNoneOf`` and ``neq``: nothing named is."""
    if operator in ("isAllOf", "hasPart"):
        return Truth.of(all(value in left for value in right))
    listed = [value in right for value in left]
    if operator in ("isNoneOf", "neq"):
        return Truth.of(not any(listed))
    if all(listed):
        return Truth.TRUE
    return Truth.UNKNOWN if any(listed) else Truth.FALSE


def _compare_purpose(operator: str, purpose: str, allowed: list[str]) -> Truth:
    """A purpose outside the declared table may mean anything: unknown unless it is named itself."""
    if operator in ("neq", "isNoneOf"):
        # A ban on a purpose is a ban on what lies below it; and what is not in the table cannot be told apart from it.
        if any(purpose_is_a(purpose, name) for name in allowed):
            return Truth.FALSE
        return Truth.TRUE if PURPOSES.issuperset({purpose, *allowed}) else Truth.UNKNOWN
    climbs = operator in ("isA", "isPartOf")
    holds = [purpose_is_a(purpose, name) if climbs else purpose == name for name in allowed]
    if any(holds):
        return Truth.TRUE
    return Truth.of(False) if PURPOSES.issuperset({purpose, *allowed}) else Truth.UNKNOWN


def _compare_order(operator: str, left: Scalar, right: Scalar) -> Truth:
    difference = _order(left, right)
    match operator:
        case "lt":
            return Truth.of(difference < 0)
        case "lteq":
            return Truth.of(difference <= 0)
        case "gt":
            return Truth.of(difference > 0)
        case "gteq":
            return Truth.of(difference >= 0)
    return Truth.UNKNOWN


def _order(left: Scalar, right: Scalar) -> int:
    if isinstance(left, str) and isinstance(right, str):  # tiers; no other text is ordered
        return TIERS.index(left) - TIERS.index(right)
    return (left > right) - (left < right)  # type: ignore[operator]  # both sides were read as the same kind
