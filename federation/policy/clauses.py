"""Clauses in short form: one ``key=value`` for each thing that a policy of this release can demand.

People and templates write ``metered-time=2h`` or ``region=CN``; this table turns it into the constraint or the duty.
What it cannot say (choices, sequences, conditional prohibitions) is written as ODRL itself.

>>> clause("metered-time", "2h")["rightOperand"]
{'@value': 'PT7200S', '@type': 'xsd:duration'}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from federation.errors import UsageError
from federation.policy.values import duration_text
from federation.policy.vocabulary import ANONYMIZE, ATTRIBUTE, COMPENSATE, DELETE

_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ClauseError(UsageError):
    """A clause in short form cannot be read."""

    code = "clause"


@dataclass(frozen=True)
class _Form:
    operand: str
    operator: str
    datatype: str = "xsd:string"
    span: bool = False
    prefix: str = ""


_FORMS: dict[str, _Form] = {
    "elapsed-time": _Form("odrl:elapsedTime", "lteq", "xsd:duration", span=True),
    "metered-time": _Form("odrl:meteredTime", "lteq", "xsd:duration", span=True),
    "interval": _Form("odrl:timeInterval", "gteq", "xsd:duration", span=True),
    "not-before": _Form("odrl:dateTime", "gteq", "xsd:dateTime"),
    "pay-amount": _Form("odrl:payAmount", "lteq", "xsd:decimal"),
    "total-bytes": _Form("fed:totalOutputBytes", "lteq", "xsd:integer"),
    "group-size": _Form("fed:minGroupSize", "gteq", "xsd:integer"),
    "reply-bytes": _Form("fed:maxOutputBytes", "lteq", "xsd:integer"),
    "region": _Form("odrl:spatial", "isPartOf"),
    "industry": _Form("odrl:industry", "isPartOf"),
    "runtime": _Form("odrl:systemDevice", "isAnyOf"),
    "version": _Form("odrl:version", "isAnyOf"),
    "event": _Form("odrl:event", "isAllOf", "@id", prefix="event:"),
    "recipient": _Form("odrl:recipient", "isAnyOf", "@id", prefix="urn:keyong:member:"),
    "output": _Form("fed:outputKind", "isAnyOf", "@id", prefix="fed:"),
    "banned-column": _Form("fed:column", "isNoneOf"),
}
_DUTIES = {"compensate-within": COMPENSATE, "delete-within": DELETE, "attribute-within": ATTRIBUTE}
CLAUSE_KEYS = (*_FORMS, *_DUTIES, "compensate-amount", "anonymize")
"""Every key, in the order in which they are documented."""


def span(text: str) -> timedelta:
    """A time such as ``90d``, ``2h`` or ``30s``."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ClauseError("{text} is no time span", hint="write it like 90d, 2h, 15m or 30s", text=text[:40])
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def clause(key: str, value: str) -> dict[str, Any]:
    """The constraint that a short form stands for; a list of values is separated by commas.

    Raises:
        ClauseError: no such clause, or a value that is none.
    """
    form = _FORMS.get(key)
    if form is None:
        raise ClauseError(
            "there is no clause {key}", hint="one of: {known}", key=key[:60], known=", ".join(CLAUSE_KEYS)
        )
    text = duration_text(span(value)) if form.span else value
    if form.operator in ("isAnyOf", "isAllOf", "isNoneOf"):
        right: Any = [_value(form, part.strip()) for part in text.split(",") if part.strip()]
    else:
        right = _value(form, text)
    return {"leftOperand": form.operand, "operator": form.operator, "rightOperand": right}


def _value(form: _Form, text: str) -> dict[str, str]:
    if form.datatype == "@id":
        return {"@id": text if text.startswith(form.prefix) else form.prefix + text}
    return {"@value": text, "@type": form.datatype}


def further_terms(given: dict[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The constraints and the duties that a set of short forms stands for, each checked when the policy is read."""
    constraints = [clause(key, value) for key, value in given.items() if key in _FORMS]
    duties: list[dict[str, Any]] = []
    for key, action in _DUTIES.items():
        bounds = []
        if key in given:
            bounds.append(_bound("odrl:elapsedTime", "lteq", duration_text(span(given[key])), "xsd:duration"))
        if action == COMPENSATE and "compensate-amount" in given:
            bounds.append(_bound("odrl:payAmount", "eq", given["compensate-amount"], "xsd:decimal"))
        if bounds:
            duties.append({"action": action, "constraint": bounds})
    if given.get("anonymize") == "yes":
        duties.append({"action": ANONYMIZE})
    for key in given:
        if key not in CLAUSE_KEYS or (key == "anonymize" and given[key] not in ("yes", "no")):
            clause(key, given[key])  # says why not
    return constraints, duties


def _bound(left: str, operator: str, text: str, datatype: str) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": {"@value": text, "@type": datatype}}
