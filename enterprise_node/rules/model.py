"""The rules as data: one a column. Amounts are decimal text, so that equal rules have equal digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, Literal

from federation.errors import UsageError

Scope = Literal["agreement", "dataset"]
"""Within which what is made stays the same: one agreement, or the whole dataset for whoever uses it."""

DATE_PARTS: Final = ("day", "week", "month", "quarter", "year")
TIME_PARTS: Final = ("minute", "hour")


class RulesError(UsageError):
    """Rules are malformed, or do not fit the dataset's columns."""

    code = "rules"


@dataclass(frozen=True)
class Drop:
    """The column is left out."""

    NAME: ClassVar[str] = "drop"


@dataclass(frozen=True)
class Pseudonym:
    """Each value becomes the beginning of its HMAC-SHA-256 (RFC 2104): equal values stay equal, none can be read back
    without the key."""

    NAME: ClassVar[str] = "pseudonym"
    scope: Scope = "agreement"


@dataclass(frozen=True)
class Codes:
    """Each value becomes a short random code, by a map that the owner keeps."""

    NAME: ClassVar[str] = "codes"
    prefix: str = ""
    scope: Scope = "dataset"


@dataclass(frozen=True)
class Round:
    """A number goes to the nearest multiple of ``step``; a date or time down to the beginning of ``to``."""

    NAME: ClassVar[str] = "round"
    step: str = ""
    to: str = ""


@dataclass(frozen=True)
class Bucket:
    """A number becomes the lower end of its interval of ``width``, or the name of its interval between ``edges``."""

    NAME: ClassVar[str] = "bucket"
    width: str = ""
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shift:
    """A date or time moves by a secret number of whole days, at most ``days`` either way and never by none.

    One number for the dataset, or one for each value of the column ``unit``. Columns with the same limit and unit move
    together, so what lies between them stays.
    """

    NAME: ClassVar[str] = "shift"
    days: int = 0
    unit: str = ""
    scope: Scope = "agreement"


Rule = Drop | Pseudonym | Codes | Round | Bucket | Shift
KINDS: Final[dict[str, type[Rule]]] = {kind.NAME: kind for kind in (Drop, Pseudonym, Codes, Round, Bucket, Shift)}


def rule_document(rule: Rule) -> dict[str, Any]:
    """One rule as JSON, whole: a default that changes one day changes no digest of today."""
    return {"rule": rule.NAME, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(rule).items()}}


def rule_of(document: Mapping[str, Any]) -> Rule:
    """Read what :func:`rule_document` wrote."""
    kind: Any = KINDS[document["rule"]]
    known = {field.name for field in fields(kind)}
    values = {name: tuple(item) if isinstance(item, list) else item for name, item in document.items()}
    rule: Rule = kind(**{name: value for name, value in values.items() if name in known})
    return rule


@dataclass(frozen=True)
class Rules:
    """The rules of one dataset, by column."""

    columns: Mapping[str, Rule]

    def __bool__(self) -> bool:
        return bool(self.columns)

    def column(self, name: str) -> Rule | None:
        """The rule of a column; None where it stays as it is."""
        return self.columns.get(name)

    @property
    def keyed(self) -> bool:
        """Whether any rule needs the owner's key."""
        return any(isinstance(rule, Pseudonym | Shift) for rule in self.columns.values())

    def document(self) -> dict[str, Any]:
        """As JSON, for the digest and for whoever reads it later."""
        return {"format": 1, "columns": {name: rule_document(rule) for name, rule in self.columns.items()}}

    def canonical(self) -> bytes:
        """Canonical JSON; the store keeps it and the digest is over it."""
        from federation.crypto import canonical_json  # here: the process that makes snapshots needs no cryptography

        return canonical_json(self.document())

    @property
    def digest(self) -> str:
        """What agreements, intents and receipts name them by; empty where there are none."""
        from federation.crypto import digest

        return digest(self.canonical()) if self else ""
