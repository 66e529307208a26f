"""Reading the two sides of a comparison: what an agreement demands, and what a request brings.

Both readers are strict and know every kind of the vocabulary. The right side raises on anything it cannot read; the
left side gives None, which evaluation treats as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import cast

from federation.crypto import digest
from federation.policy.model import Constraint, Term, TypedValue, terms_of
from federation.policy.vocabulary import LIST_OPERATORS, OUTPUT_KINDS, PROTECTIONS, PURPOSES, TIERS, UNBOUNDED, Kind
from federation.privacy import MICRO, rho_text

Scalar = int | str | datetime | timedelta | Decimal
MEMBER_PREFIX = "urn:keyong:member:"
DATASET_PREFIX = "urn:keyong:dataset:"
NO_EVENT = "none"
UNBOUNDED_RHO = 2**62
"""Micro-rho of an answer without noise, as it is compared; no budget reaches it."""
SHORT = 400
"""Longest text a decision record holds for one side of a comparison."""

_INTEGER = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_RHO = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?", re.ASCII)
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DURATION = re.compile(
    r"P(?=[0-9T])(?:([0-9]{1,6})D)?(?:T(?=[0-9])(?:([0-9]{1,6})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,9})(?:\.([0-9]{1,6}))?S)?)?",
    re.ASCII,
)
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?", re.ASCII)
_PLACE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)
_INDUSTRY = re.compile(r"[A-T]([0-9]{2,4})?", re.ASCII)
_EVENT = re.compile(r"event:[a-z0-9][a-z0-9.-]{0,99}", re.ASCII)
NEVER = timedelta.max
"""How long ago something was that never was."""
_NEVER_TEXT = "never before"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MEMBER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_PURPOSE = re.compile(r"[a-z][a-z0-9-]*:[A-Za-z][A-Za-z0-9_.-]{0,99}", re.ASCII)

_TYPED: dict[Kind, str] = {
    "integer": "xsd:integer",
    "rho": "xsd:decimal",
    "instant": "xsd:dateTime",
    "duration": "xsd:duration",
    "amount": "xsd:decimal",
    "place": "xsd:string",
    "industry": "xsd:string",
    "tier": "xsd:string",
    "digest": "xsd:string",
    "name": "xsd:string",
}
EXAMPLES: dict[Kind, str] = {
    "integer": '{"@value": "10", "@type": "xsd:integer"}',
    "rho": '{"@value": "0.1", "@type": "xsd:decimal"}',
    "instant": '{"@value": "2026-12-31T00:00:00Z", "@type": "xsd:dateTime"}',
    "duration": '{"@value": "P30D", "@type": "xsd:duration"} (days, hours, minutes, seconds)',
    "amount": '{"@value": "500.00", "@type": "xsd:decimal"}',
    "place": '{"@value": "CN-31", "@type": "xsd:string"} (ISO 3166)',
    "industry": '{"@value": "C31", "@type": "xsd:string"} (GB/T 4754)',
    "event": '{"@id": "event:acceptance-test-passed"}',
    "tier": '{"@value": "T2", "@type": "xsd:string"}',
    "digest": '{"@value": "sha256:...", "@type": "xsd:string"}',
    "name": '{"@value": "entry_temperature", "@type": "xsd:string"}',
    "purpose": '{"@id": "fed:PredictiveMaintenance"}',
    "protection": '{"@id": "fed:masked"}',
    "output": '{"@id": "fed:Metrics"}',
    "party": '{"@id": "urn:keyong:member:mill-a"}',
}
SETS: tuple[Kind, ...] = ("name", "output", "party", "event")
"""Kinds of which a request brings several at once."""


class UnreadableValueError(ValueError):
    """A value on the right side is not one of its kind; private to this package."""


@dataclass(frozen=True)
class Left:
    """What a request brings for one operand: its values, and the text that goes on record."""

    values: tuple[Scalar, ...]
    text: str


def member_iri(member: str) -> str:
    """How a member is named in a policy."""
    return MEMBER_PREFIX + member


def dataset_iri(provider: str, dataset: str) -> str:
    """How a provider's dataset is named in a policy."""
    return f"{DATASET_PREFIX}{provider}:{dataset}"


def parse_instant(text: str) -> datetime:
    """An ``xsd:dateTime`` that names its zone; a time without one could be read two ways."""
    if _INSTANT.fullmatch(text) is None:
        raise UnreadableValueError(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableValueError(text) from None


def parse_duration(text: str) -> timedelta:
    """An ``xsd:duration`` of days, hours, minutes and seconds; a month is not always as long, so none is taken."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UnreadableValueError(text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[:4])
    microseconds = int((found[5] or "").ljust(6, "0"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)


def duration_text(value: timedelta) -> str:
    """What :func:`parse_duration` reads, in seconds; words where it never was."""
    if value == NEVER:
        return _NEVER_TEXT
    fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
    return f"PT{value.days * 86400 + value.seconds}{fraction}S"


def recorded_duration(text: str) -> timedelta:
    """What :func:`duration_text` wrote into a record."""
    return NEVER if text == _NEVER_TEXT else parse_duration(text)


def part_of(part: str, whole: str) -> bool:
    """Whether a place or an industry is the other, or lies in it: CN-31 in CN, C313 in C31 in C."""
    return part == whole or (part.startswith(whole) and (len(whole) < 2 or part[len(whole)] in "-0123456789"))


def parse_rho(text: str) -> int:
    """Micro-rho of a decimal of rho with at most six places, or of the word for no noise as it stands on record."""
    if text == UNBOUNDED.removeprefix("fed:"):
        return UNBOUNDED_RHO
    if _RHO.fullmatch(text) is None:
        raise UnreadableValueError(text)
    whole, _, rest = text.partition(".")
    return int(whole) * MICRO + int(rest.ljust(6, "0"))


def right_text(constraint: Constraint) -> str:
    """The right side as it goes on record."""
    if "text" not in constraint.kept:
        constraint.kept["text"] = short(terms_of(constraint))
    return str(constraint.kept["text"])


def short(parts: Sequence[str]) -> str:
    """The parts in one line; where they do not fit, how many they are and the digest of the whole line (UTF-8)."""
    line = " ".join(parts)
    if len(line) <= SHORT:
        return line
    return f"{line[:200]}... ({len(parts)} in all, {digest(line.encode())})"


def read_right(kind: Kind, constraint: Constraint) -> tuple[Scalar, ...]:
    """The values an agreement demands, of this kind.

    Raises:
        UnreadableValueError: a value has another shape, datatype or form, or the operator does not fit one or many.
    """
    if kind in constraint.kept:
        return cast("tuple[Scalar, ...]", constraint.kept[kind])
    if isinstance(constraint.right, tuple) != (constraint.operator in LIST_OPERATORS):
        raise UnreadableValueError("isAnyOf, isAllOf and isNoneOf take a list, and no other operator does")
    found = tuple(_read_one(kind, value) for value in constraint.values)
    constraint.kept[kind] = found
    return found


def _read_one(kind: Kind, value: TypedValue | Term) -> Scalar:
    datatype = _TYPED.get(kind)
    if kind == "rho" and value == Term.model_validate({"@id": UNBOUNDED}):
        return UNBOUNDED_RHO
    if isinstance(value, Term):
        if datatype is not None:
            raise UnreadableValueError(value.id)
        text = value.id
        if kind == "party":
            if not text.startswith(MEMBER_PREFIX):
                raise UnreadableValueError(text)
            text = text.removeprefix(MEMBER_PREFIX)
    else:
        if datatype is None or value.type != datatype:
            raise UnreadableValueError(value.value)
        text = value.value
    if kind == "instant":
        return parse_instant(text)
    if kind == "duration":
        return parse_duration(text)
    if not is_of_kind(kind, text):
        raise UnreadableValueError(text)
    if kind == "amount":
        return Decimal(text)
    if kind == "rho":
        return parse_rho(text)
    return int(text) if kind == "integer" else text


def is_of_kind(kind: Kind, text: str) -> bool:
    """Whether a text is a value of this kind."""
    match kind:
        case "integer":
            return _INTEGER.fullmatch(text) is not None
        case "rho":
            return _RHO.fullmatch(text) is not None
        case "tier":
            return text in TIERS
        case "digest":
            return _DIGEST.fullmatch(text) is not None
        case "purpose":
            return _is_purpose(text)
        case "protection":
            return text in PROTECTIONS
        case "output":
            return text in OUTPUT_KINDS
        case "party":
            return _MEMBER.fullmatch(text) is not None
        case "name":
            return text != ""
        case "instant":
            return _INSTANT.fullmatch(text) is not None
        case "duration":
            return text == _NEVER_TEXT or _DURATION.fullmatch(text) is not None
        case "amount":
            return _AMOUNT.fullmatch(text) is not None
        case "place":
            return _PLACE.fullmatch(text) is not None
        case "industry":
            return _INDUSTRY.fullmatch(text) is not None
        case "event":
            return _EVENT.fullmatch(text) is not None


def _is_purpose(text: str) -> bool:
    """A prefixed name; one in our own namespace has to be in the table, for it is a slip otherwise."""
    if _PURPOSE.fullmatch(text) is None or text.startswith(("odrl:", "xsd:")):
        return False
    return text in PURPOSES or not text.startswith("fed:")


def read_left(kind: Kind, value: object) -> Left | None:
    """What a request brings, of this kind; None where it brings nothing, or nothing readable."""
    if kind in SETS:
        if not isinstance(value, tuple) or not (value or kind == "event"):
            return None
        if not value:
            return Left((), NO_EVENT)
        items = tuple(item for item in value if isinstance(item, str) and is_of_kind(kind, item))
        if len(items) != len(value):
            return None
        names = [member_iri(item) for item in items] if kind == "party" else list(items)
        return Left(items, short(names))
    if kind == "instant":
        if not isinstance(value, datetime) or value.utcoffset() is None:
            return None
        return Left((value,), value.isoformat())
    if kind == "duration":
        if not isinstance(value, timedelta) or value < timedelta():
            return None
        return Left((value,), duration_text(value))
    if kind == "amount":
        if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
            return None
        return Left((value,), f"{value:f}")
    if kind == "integer":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return None
        return Left((value,), str(value))
    if kind == "rho":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return None
        return Left((value,), rho_text(value) if value < UNBOUNDED_RHO else UNBOUNDED.removeprefix("fed:"))
    if not isinstance(value, str) or not is_of_kind(kind, value):
        return None
    return Left((value,), short([value]))
