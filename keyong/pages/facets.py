"""What an entry can be found by: parties, dataset, agreement, job, outcome. For searching alone; nothing is verified here.

Much of it was written by others: whatever is not a short text is left out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Facet = Literal["kind", "party", "dataset", "agreement", "job", "outcome", "code", "purpose"]
FACETS: tuple[Facet, ...] = ("kind", "party", "dataset", "agreement", "job", "outcome", "code", "purpose")
Term = tuple[Facet, str]
LONGEST = 300

PLAIN = (
    "agreement", "by", "bytes", "code", "consumer", "dataset", "decision", "digest", "event", "job", "node", "outcome",
    "plan", "provider", "purpose", "requester", "rho", "status", "subject",
)  # fmt: skip
STATEMENTS = ("ack", "agreement", "fulfilment", "offer", "plan", "receipt", "revocation", "suspension")
NAMES = tuple(sorted({*PLAIN, *STATEMENTS}))
"""Fields that are read to find an entry by."""
_PARTIES = ("requester", "provider", "consumer", "node", "by", "subject")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signed statement says, as far as it can be read; its signature is not looked at."""

    digest: str
    says: Mapping[str, Any]


@dataclass(slots=True)
class Glance:
    """What was read of one entry: its plain values and its statements, by field."""

    index: int
    kind: str
    time: str
    plain: dict[str, Any] = field(default_factory=dict)
    statements: dict[str, Statement] = field(default_factory=dict)

    def take(self, name: str, form: str, payload: bytes) -> None:
        """Take one opened field; what cannot be read is left out."""
        try:
            if form == "raw":
                sealed = base64.b64decode(orjson.loads(payload)["payload"])
                says = orjson.loads(sealed)
                if isinstance(says, dict):
                    self.statements[name] = Statement(f"sha256:{hashlib.sha256(sealed).hexdigest()}", says)
            else:
                self.plain[name] = orjson.loads(payload)
        except (ValueError, TypeError, KeyError):
            return

    def text(self, name: str) -> str:
        """A plain value, if it is a short text."""
        return _text(self.plain.get(name))

    @property
    def plan(self) -> str:
        """Digest of the job plan that the entry is of."""
        return _name(self.plain.get("digest" if self.kind == "plan" else "plan"))

    @property
    def agreement(self) -> str:
        """Digest of the agreement that the entry is of, where it is one."""
        if self.kind in ("agreement", "offer"):
            held = self.statements.get(self.kind)
            return held.digest if held is not None else _name(self.plain.get("digest"))
        return _name(self.plain.get("agreement")) or _name(self.decided.get("agreement"))

    @property
    def decided(self) -> Mapping[str, str]:
        """Agreement and clause of the decision on record."""
        receipt = self.statements.get("receipt")
        decision = receipt.says.get("decision") if receipt is not None else self.plain.get("decision")
        if not isinstance(decision, dict):
            return {}
        return {name: _text(decision.get(name)) for name in ("agreement", "rule")}

    def terms(self) -> Iterator[Term]:
        """Everything that the entry can be found by, perhaps more than once."""
        for facet, said in self._said():
            if said.isprintable():
                yield facet, said

    def _said(self) -> Iterator[Term]:
        yield "kind", self.kind
        for name in _PARTIES:
            if said := self.text(name):
                yield "party", said
        for name, facet in (("dataset", "dataset"), ("purpose", "purpose"), ("outcome", "outcome"), ("code", "code")):
            if said := self.text(name):
                yield facet, said  # type: ignore[misc]
        if self.kind == "denied":
            yield "outcome", "denied"
        if self.kind in ("job", "result") and (said := self.text("event") or self.text("status")):
            yield "outcome", said
        if said := self.plan:
            yield "job", said
        if said := self.agreement:
            yield "agreement", said
        for statement in self.statements.values():
            yield from _stated(statement.says)


def _stated(says: Mapping[str, Any]) -> Iterator[Term]:
    for name in _PARTIES:
        if said := _text(says.get(name)):
            yield "party", said
    if said := _text(says.get("dataset")):
        yield "dataset", said
    if said := _text(says.get("agreement")):
        yield "agreement", said
    cohort = says.get("cohort")
    for one in cohort if isinstance(cohort, list) else ():
        if isinstance(one, dict):
            for name, facet in (("node", "party"), ("dataset", "dataset"), ("agreement", "agreement")):
                if said := _text(one.get(name)):
                    yield facet, said  # type: ignore[misc]


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST else ""


def _name(value: object) -> str:
    """A text that things are told apart by: nothing in it that is not seen."""
    said = _text(value)
    return said if said.isprintable() else ""


def bare(value: str) -> str:
    """A value as a person would begin to type it: without ``sha256:``, ``urn:uuid:``, ``fed:``, in lower case."""
    for prefix in ("sha256:", "urn:uuid:", "fed:"):
        value = value.removeprefix(prefix)
    return value.lower()
