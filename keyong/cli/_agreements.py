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

    if held.state in ("in-force", "offered") and read(held).expires <= now():
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
    from federation.statements import instant_text
    from keyong.cli._context import policy_language
    from keyong.text import translate

    statement = read(held)
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
        )
    )
    line()
    say("what it says:")
    for sentence in describe(parse_policy(statement.policy), policy_language()):
        line(f"  - {sentence}")
