"""What pages call things, in the language that is spoken now; names and digests as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from federation.policy import name_of
from keyong.text import language, mark, translate, translate_data

KINDS: Mapping[str, str] = {
    "ack": mark("result acknowledged"),
    "agreement": mark("agreement in force"),
    "approval": mark("code approved or refused"),
    "attribute": mark("fact stated"),
    "budget": mark("privacy budget"),
    "coordinator": mark("coordinator"),
    "dataset": mark("dataset"),
    "denied": mark("request refused"),
    "erasure": mark("erasure"),
    "fulfilment": mark("duty fulfilled"),
    "held": mark("output held for review"),
    "intent": mark("step begun"),
    "job": mark("job"),
    "leak": mark("leak budget returned"),
    "node": mark("node"),
    "not-taken": mark("result not taken"),
    "offer": mark("agreement offered"),
    "outcome": mark("step ended"),
    "owner": mark("owner's own use"),
    "peers": mark("company accepted"),
    "plan": mark("job planned"),
    "receipts": mark("receipts received"),
    "result": mark("job ended"),
    "review": mark("output released or refused"),
    "revocation": mark("agreement revoked"),
    "roster": mark("members changed"),
    "stage": mark("something left during a step"),
    "suspension": mark("agreement suspended or resumed"),
    "tier": mark("isolation accepted"),
}
OUTCOMES: Mapping[str, str] = {
    "ok": mark("done"),
    "done": mark("done"),
    "denied": mark("turned down"),
    "failed": mark("failed"),
    "killed": mark("stopped"),
    "open": mark("not ended"),
    "cancelled": mark("cancelled"),
    "interrupted": mark("interrupted"),
    "submitted": mark("submitted"),
    "resumed": mark("resumed"),
    "delivered": mark("delivered"),
    "not-submitted": mark("not submitted"),
}
PROTECTIONS: Mapping[str, str] = {
    "fed:masked": mark("masked: no one sees this company's contribution"),
    "fed:none": mark("unprotected, as the agreement says in words"),
}


def kind(name: str) -> str:
    """A kind of entry in words."""
    return translate_data(KINDS[name]) if name in KINDS else name


def outcome(name: str) -> str:
    """How something ended, in words."""
    return translate_data(OUTCOMES[name]) if name in OUTCOMES else name


def protection(name: str) -> str:
    """How what leaves is protected, in words."""
    return translate_data(PROTECTIONS[name]) if name in PROTECTIONS else name


def term(name: object) -> str:
    """An action, purpose, operand or operator in words."""
    return name_of(str(name), language())


def tone(name: str) -> str:
    """How an outcome is coloured: ``good``, ``bad`` or ``quiet``."""
    if name in ("ok", "done"):
        return "good"
    return "bad" if name in ("denied", "failed", "killed", "interrupted", "not-submitted") else "quiet"


def short(digest: object) -> str:
    """A digest or an id by its first digits."""
    text = str(digest)
    for prefix in ("sha256:", "urn:uuid:"):
        if text.startswith(prefix):
            return text.removeprefix(prefix)[:12]
    return text if len(text) <= 24 else text[:20] + "…"


def moment(time: object) -> str:
    """A time in UTC to the second, as people read it."""
    text = str(time)
    return f"{text[:10]} {text[11:19]}" if len(text) >= 19 and text[10] == "T" else text


def amount(size: object) -> str:
    """Bytes in words: exact below a thousand, to three digits above."""
    if type(size) is not int:
        return ""
    if size < 1000:
        return translate("{count} bytes", count=size)
    value, unit = float(size), "kB"
    for name in ("kB", "MB", "GB", "TB"):
        value, unit = value / 1000, name
        if value < 999.5:
            break
    return f"{value:.3g} {unit}"


def number(value: object) -> str:
    """A number with its thousands apart."""
    return f"{value:,}" if type(value) is int else str(value)
