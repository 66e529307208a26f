"""ODRL between the protocol's messages and our agreements: one policy, whose parties and moment are filled in.

What the context of the protocol abbreviates (``use``) or spells out (whole IRIs of ODRL) is written as our policies write
it; after that every term has to be one that can be judged here, or the whole is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from federation.crypto import canonical_json, digest
from federation.dataspace.messages import MalformedMessageError
from federation.dataspace.terms import COST, EXPIRES, TARIFF, TITLE
from federation.policy import PROFILE, PolicyError, dataset_iri, last_end, member_iri, parse_policy
from federation.statements import Agreement, StatementError, instant_text, parse_instant

ODRL = "http://www.w3.org/ns/odrl/2/"
USUAL_VALIDITY = timedelta(days=365)
"""Of an agreement whose policy and offer name no end."""
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?", re.ASCII)
_TERMS = ("profile", "permission", "prohibition")
_EXTRAS = (TITLE, COST, TARIFF, EXPIRES)
_KEYS = frozenset({"@type", "@id", "target", "assigner", "assignee", "timestamp", *_TERMS, *_EXTRAS})


@dataclass(frozen=True)
class Terms:
    """What is on the table, whoever put it there.

    Attributes:
        policy: an ODRL agreement between both parties, under the id of the offer.
    """

    policy: dict[str, Any]
    title: str
    cost: str = "0"
    tariff: str = ""
    expires: str = ""
    """The end that the offer names, as an instant; empty where it names none."""

    @property
    def digest(self) -> str:
        """What a side consents to: the clauses and the price, not ids or moments."""
        clauses = {name: self.policy[name] for name in _TERMS if name in self.policy}
        return digest(canonical_json({**clauses, "cost": self.cost, "tariff": self.tariff}))

    def offer(self, identity: str) -> dict[str, Any]:
        """The terms as a ``MessageOffer``."""
        return {**self.policy, "@type": "Offer", "@id": identity, **self.extras()}

    def catalog_offer(self, identity: str) -> dict[str, Any]:
        """The terms as an ``Offer`` of a catalog, which has neither target nor parties."""
        clauses = {name: self.policy[name] for name in _TERMS if name in self.policy}
        return {"@type": "Offer", "@id": identity, **clauses, **self.extras()}

    def extras(self) -> dict[str, str]:
        """What the agreement's own fields will say, where it is not the usual."""
        said = {TITLE: self.title, COST: self.cost, TARIFF: self.tariff, EXPIRES: self.expires}
        return {name: text for name, text in said.items() if text and (name, text) != (COST, "0")}

    def end(self, now: datetime) -> datetime:
        """When an agreement made now expires: as the offer says, or with the last permission, or in a year."""
        if self.expires:
            return parse_instant(self.expires)
        return last_end(parse_policy(self.policy)) or now + USUAL_VALIDITY


def read_offer(raw: Mapping[str, Any], provider: str, consumer: str, now: datetime) -> Terms:
    """The terms of an offer that arrived, about one of ``provider``'s datasets.

    Raises:
        MalformedMessageError: it is no offer, or is about something or somebody else.
        PolicyError: a term that nobody here can judge.
    """
    for key in raw:
        if key not in _KEYS:
            raise PolicyError("{place} is not a key that a policy has here", place=str(key)[:80], hint="leave it out")
    identity, target = raw.get("@id"), raw.get("target")
    if raw.get("@type") not in ("Offer", "Agreement") or not isinstance(identity, str) or not isinstance(target, str):
        raise MalformedMessageError("the offer lacks its type, its id or its target")
    dataset_of(target, provider)
    clauses = {name: _written(raw[name]) for name in _TERMS if name in raw}
    told = {"profile": PROFILE, "assigner": member_iri(provider), "assignee": member_iri(consumer)}
    for name, wanted in told.items():
        if (got := raw.get(name, wanted)) != wanted:
            raise PolicyError(
                "{place} is {got}, but the agreement says {wanted}", place=name, got=str(got)[:200], wanted=wanted
            )
    policy = {
        **clauses,
        **told,
        "@type": "Agreement",
        "@id": identity,
        "target": target,
        "timestamp": instant_text(now),
    }
    parse_policy(policy)
    return _priced(policy, raw, provider)


def _priced(policy: dict[str, Any], raw: Mapping[str, Any], provider: str) -> Terms:
    said: dict[str, str] = {}
    for name in _EXTRAS:
        text = raw.get(name, "")
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise MalformedMessageError("{name} of the offer is not a short text", name=name)
        said[name] = text
    if _AMOUNT.fullmatch(said[COST] or "0") is None:
        raise MalformedMessageError("{name} of the offer is not an amount", name=COST)
    if said[EXPIRES]:
        try:
            said[EXPIRES] = instant_text(parse_instant(said[EXPIRES]))
        except StatementError:
            raise MalformedMessageError("{name} of the offer is not a moment", name=EXPIRES) from None
    title = said[TITLE] or dataset_of(policy["target"], provider)
    return Terms(policy, title, said[COST] or "0", said[TARIFF], said[EXPIRES])


def dataset_of(target: str, provider: str) -> str:
    """The provider's own name for the dataset that an IRI means.

    Raises:
        MalformedMessageError: it is not one of this provider's.
    """
    prefix = dataset_iri(provider, "")
    name = target.removeprefix(prefix)
    if not target.startswith(prefix) or not name:
        raise MalformedMessageError(
            "the target {target} is not a dataset of {provider}", target=target[:120], provider=provider
        )
    return name


def terms_of_agreement(agreement: Agreement) -> Terms:
    """The terms that a signed agreement holds."""
    return Terms(agreement.policy, agreement.title, agreement.cost, agreement.tariff, instant_text(agreement.expires))


def _written(value: Any) -> Any:
    """Rules as our policies write them: ``odrl:`` before actions and operands, operators bare."""
    if isinstance(value, list):
        return [_written(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {key: _written(inner) for key, inner in value.items()}
    for key in ("action", "leftOperand"):
        if isinstance(told.get(key), str):
            told[key] = _prefixed(told[key])
    if isinstance(told.get("operator"), str):
        told["operator"] = told["operator"].removeprefix(ODRL).removeprefix("odrl:")
    return told


def _prefixed(term: str) -> str:
    if term.startswith(ODRL):
        return "odrl:" + term.removeprefix(ODRL)
    return "odrl:use" if term == "use" else term  # the one action that the protocol's context abbreviates
