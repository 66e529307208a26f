"""The Dataspace Protocol as commands and programs use it: this home's side, with the coordinator's gateway looked up."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from federation.dataspace import (
    CounterpartyRefusedError,
    DataspaceStore,
    HttpsCourier,
    OfferRow,
    Party,
    Terms,
    read_offer,
    write_terms,
)
from federation.dataspace.terms import CONTEXT
from federation.errors import KeyongError, UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.observability import NotServingError, ask
from federation.policy import dataset_iri
from federation.statements import instant_text
from federation.wire import messages as m
from federation.wire.dataspace import DataspaceDesk
from federation.wire.dial import REDIAL_SECONDS, keep_attached
from federation.wire.member import connect, greet
from federation.wire.peer import Incoming, Outgoing, Peer
from keyong.client import Client

T = TypeVar("T")


class NoSuchOfferError(UsageError):
    """A catalog holds no such offer, or several."""

    code = "no-such-offer"


def party_of(client: Client) -> Party:
    """This home as a party of the protocol, speaking through the coordinator's gateway."""
    home = client.home
    told = m.DataspaceGateway.from_bytes(client.call("dataspace.gateway", m.Empty()).header)
    courier = HttpsCourier(home, told.url)

    def changed() -> None:
        with suppress(NotServingError):
            ask(home.path, "node", "/uphold")

    store = DataspaceStore(open_engine(home.path / "store.db"))
    return Party(home, client.holdings, client.ledger, store, courier, changed=changed)


def store_of(home: Home) -> DataspaceStore:
    """What this home keeps of the protocol; no link is needed to read it."""
    return DataspaceStore(open_engine(home.path / "store.db"))


# -- our catalog ------------------------------------------------------------------------------------------------------


def publish(home: Home, dataset: str, terms: Terms, *, automatic: bool) -> OfferRow:
    """Put an offer into our catalog, on record.

    Args:
        automatic: whoever asks for it as it stands gets the agreement signed, without a person.
    """
    row = OfferRow(
        id=f"urn:uuid:{uuid.uuid4()}",
        dataset=dataset,
        terms=write_terms(terms),
        automatic=automatic,
        created=instant_text(now()),
    )
    with home.open_ledger() as ledger:
        ledger.append(
            "catalog-offer",
            {"event": "published", "offer": row.id, "dataset": dataset, "terms": terms.digest, "automatic": automatic},
        )
    store_of(home).publish(row)
    return row


def withdraw(home: Home, name: str) -> OfferRow:
    """Take an offer out of our catalog, on record; negotiations under way go on."""
    store = store_of(home)
    row = _one(name, {row.id: row for row in store.offers()})
    store.withdraw(row.id)
    with home.open_ledger() as ledger:
        ledger.append("catalog-offer", {"event": "withdrawn", "offer": row.id, "dataset": row.dataset})
    return row


# -- others' catalogs -------------------------------------------------------------------------------------------------


def catalog(party: Party, member: str) -> dict[str, Any]:
    """A member's catalog, as it tells it."""
    body = json.dumps({"@context": [CONTEXT], "@type": "CatalogRequestMessage"}).encode()
    return _document(party, member, "POST", "/catalog/request", body)


def offers(party: Party, member: str, dataset: str) -> dict[str, tuple[dict[str, Any], Terms]]:
    """The offers for one dataset in a member's catalog, by id; each raw and read."""
    target = dataset_iri(member, dataset)
    found = _document(party, member, "GET", f"/catalog/datasets/{target}", b"").get("hasPolicy")
    told: dict[str, tuple[dict[str, Any], Terms]] = {}
    for raw in found if isinstance(found, list) else []:
        if isinstance(raw, dict) and isinstance(raw.get("@id"), str):
            told[raw["@id"]] = raw, read_offer({**raw, "target": target}, member, party.me, party.clock())
    return told


def offer_named(party: Party, member: str, dataset: str, name: str) -> tuple[str, Terms]:
    """The id and the terms of one offer in a member's catalog; with no name, of the only one."""
    found = {identity: terms for identity, (_, terms) in offers(party, member, dataset).items()}
    if not name and len(found) == 1:
        return next(iter(found.items()))
    if not name:
        raise NoSuchOfferError(
            "{count} offers stand for this dataset",
            hint="choose one with --offer, as `keyong dataspace catalog MEMBER` shows them, or say your own clauses",
            count=len(found),
        )
    identity, terms = _one(name, {identity: (identity, terms) for identity, terms in found.items()})
    return identity, terms


def _one(name: str, found: dict[str, T]) -> T:
    bare = name.removeprefix("urn:uuid:")
    hits = [value for identity, value in found.items() if identity.removeprefix("urn:uuid:").startswith(bare)]
    if len(hits) != 1 or len(bare) < 4:
        raise NoSuchOfferError(
            "{count} offers are called {name}",
            hint="give at least the first four characters of its id",
            count=len(hits) if len(bare) >= 4 else 0,
            name=name[:60],
        )
    return hits[0]


def _document(party: Party, member: str, method: str, path: str, body: bytes) -> dict[str, Any]:
    answered = party.courier.ask(member, method, path, body)
    document = json.loads(answered.body) if answered.body else {}
    if answered.status != 200 or not isinstance(document, dict):
        reasons = document.get("reason") if isinstance(document, dict) else None
        reason = "; ".join(str(one) for one in reasons) if isinstance(reasons, list) else answered.status
        raise CounterpartyRefusedError("{member} refused: {reason}", member=member, reason=str(reason)[:300])
    return document


def retitled(terms: Terms, title: str | None) -> Terms:
    """The terms under another title, where one is given."""
    return replace(terms, title=title) if title else terms


# -- serving without a node -------------------------------------------------------------------------------------------


async def serve(home: Home, on_state: Callable[[str], None]) -> None:
    """Answer the protocol for a member that runs no node, over a link of its own, until cancelled."""
    claim = home.claim("dataspace")
    ledger = home.open_ledger()
    engine = open_engine(home.path / "store.db")

    async def nothing() -> None:
        return None

    desk = DataspaceDesk(home, Holdings(engine), ledger, DataspaceStore(engine), nothing, tuple)

    async def handle(peer: Peer, message: Incoming) -> Outgoing:
        if message.method != "dataspace.ask":
            raise UsageError("this party answers the Dataspace Protocol alone", code="no-such-method")
        return await desk.answer(peer, message)

    async def session(peer: Peer) -> None:
        await greet(peer, home, ledger, serves="dataspace")
        on_state("attached")
        await desk.run(peer)

    def down(error: KeyongError) -> None:
        on_state(f"detached {error}")

    try:
        await keep_attached(
            lambda: connect(home, handle, timeout=REDIAL_SECONDS),
            session,
            on_down=down,
            jitter=random.Random(),  # noqa: S311  # spreads reconnects; nothing secret
        )
    finally:
        await asyncio.to_thread(ledger.close)
        engine.dispose()
        claim.release()
