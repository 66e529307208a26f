"""How agreements, offers and requests look: short ids, states, one JSON document for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyong.cli._output import facts, line, say
from keyong.text import mark, translate_data

if TYPE_CHECKING:
    from federation.holdings import Holding
    from federation.home import Home
    from federation.statements import Agreement, AgreementRequest

STATES = {
    "requested": mark("requested"),
    "offered": mark("offered"),
    "in-force": mark("in force"),
    "suspended": mark("suspended"),
    "declined": mark("declined"),
    "revoked": mark("revoked"),
    "expired": mark("expired"),
}
"""Sentences of the catalogue for states."""


def short(held: Holding) -> str:
    """The first characters of an id, enough to name it."""
    return held.id.removeprefix("urn:uuid:")[:8]


def read(held: Holding) -> Agreement | AgreementRequest:
    """The statement that a holding holds."""
    from federation.statements import Agreement, AgreementRequest, Envelope

    envelope = Envelope.from_bytes(held.envelope)
    if held.type == AgreementRequest.TYPE:
        return AgreementRequest.read(envelope)
    return Agreement.read(envelope)


def state_of(held: Holding) -> str:
    """The state as a person should see it: an agreement in force whose time is over is expired."""
    from federation.home import now

    if held.state in ("in-force", "suspended", "offered") and read(held).expires <= now():
        return "expired"
    return held.state


def document(held: Holding) -> dict[str, Any]:
    """A holding as JSON."""
    from federation.statements import instant_text

    statement = read(held)
    return {
        "id": held.id,
        "digest": held.digest,
        "state": state_of(held),
        "provider": held.provider,
        "consumer": held.consumer,
        "dataset": held.dataset,
        "title": held.title,
        "issued": instant_text(statement.issued),
        "expires": instant_text(statement.expires),
        "policy": statement.policy,
    }


def used(home: Home, held: Holding) -> dict[str, int | None]:
    """What is used up of an agreement as this home's own ledger has it; nothing where another party provides the data."""
    if held.provider != home.identity.member:
        return {}
    from enterprise_node.record import Record
    from federation.policy import parse_policy
    from federation.policy.model import every, terms_of

    with home.open_ledger() as ledger:
        record = Record(ledger)
        uses, bits = record.uses(held.digest), record.leak_taken(held.digest)
    policy = parse_policy(read(held).policy)
    bounds = [
        int(term)
        for permission in policy.permission
        for constraint in every(permission.constraint)
        if constraint.left == "fed:maxLeakBits"
        for term in terms_of(constraint)
    ]
    return {"uses": uses, "leak_bits": bits, "max_leak_bits": min(bounds, default=None)}


def bits_text(found: dict[str, int | None]) -> str:
    """Bits that left or are reserved, of those that may."""
    if not found:
        return ""
    bound = found["max_leak_bits"]
    return f"{found['leak_bits']}" if bound is None else f"{found['leak_bits']}/{bound}"


def tariff_text(cost: str, tariff: str) -> str:
    """What uses cost, in words."""
    from keyong.text import translate

    return translate("A job costs {cost}; tariff: {tariff}", cost=cost, tariff=tariff)


def signatures(home: Home, held: Holding) -> list[dict[str, Any]]:
    """Which party's signature is there and holds."""
    from federation.crypto import SignatureError
    from federation.statements import Envelope, UnknownMemberError, verify

    envelope = Envelope.from_bytes(held.envelope)
    found = []
    for role, member in (("provider", held.provider), ("consumer", held.consumer)):
        try:
            verify(envelope, held.type, [home.history.latest.member(member).public])
            signed = True
        except (SignatureError, UnknownMemberError):
            signed = False
        found.append({"role": role, "member": member, "signed": signed})
    return found


def show_clauses(home: Home, held: Holding) -> None:
    """Print everything that a person must read before signing."""
    from federation.policy import describe, parse_policy
    from federation.statements import Agreement, instant_text
    from keyong.cli._context import policy_language
    from keyong.text import translate

    statement = read(held)
    usage = used(home, held) if held.state in ("in-force", "suspended", "revoked") else {}
    signed = ", ".join(one["member"] for one in signatures(home, held) if one["signed"])
    facts(
        (
            ("id", held.id),
            ("title", held.title),
            ("state", translate_data(STATES[state_of(held)])),
            ("provider", held.provider),
            ("consumer", held.consumer),
            ("dataset", f"{held.provider}/{held.dataset}"),
            ("signed by", signed or translate("nobody")),
            ("issued", instant_text(statement.issued)),
            ("expires", instant_text(statement.expires)),
            ("digest", held.digest),
            ("uses reserved", usage.get("uses", "")),
            ("bits left or reserved", bits_text(usage)),
        )
    )
    line()
    say("what it says:")
    for sentence in describe(parse_policy(statement.policy), policy_language()):
        line(f"  - {sentence}")
    if isinstance(statement, Agreement) and statement.tariff:
        line(f"  - {tariff_text(statement.cost, statement.tariff)}")
