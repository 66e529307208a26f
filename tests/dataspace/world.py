"""A consortium that speaks the Dataspace Protocol over real HTTPS: three parties, one gateway, and the test kit's side.

The kit is no implementation of ours: it writes each message out, signs its calls as any member must, and records what
is sent to it. Every message in either direction is held against the protocol's own schemas, where these are at hand.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from coordinator.gateway import Gateway
from federation.dataspace import (
    Connector,
    DataspaceStore,
    Grantor,
    HttpsCourier,
    NegotiationRow,
    Negotiator,
    OfferRow,
    Party,
    Request,
    Response,
    Terms,
    TransferRow,
    write_terms,
)
from federation.dataspace.calls import open_call, sign_answer
from federation.dataspace.messages import unpack
from federation.dataspace.terms import CONTEXT, STATEMENT
from federation.errors import UnavailableError
from federation.holdings import Holdings, open_engine
from federation.home import Home, Identity, NewKeys
from federation.ledger import Ledger
from federation.policy import agreement_policy, dataset_iri
from federation.statements import (
    Agreement,
    Column,
    DatasetDescription,
    Envelope,
    Member,
    Root,
    Roster,
    Suspension,
    add_signature,
    root_fingerprint,
)
from federation.wire import messages as m
from tests.shared import SHARED

SCHEMAS = SHARED / "vectors" / "dsp"
NAMES = ("inst", "lab", "mill", "rival")
PROVIDER, CONSUMER = "mill", "lab"
DATASET = dataset_iri(PROVIDER, "passes")
OFFER = {"@type": "Offer", "@id": "urn:uuid:" + "1" * 8 + "-1111-4111-8111-111111111111", "target": DATASET}
USE = [{"action": "use"}]


@cache
def _registry() -> Any:
    from referencing import Registry, Resource

    found = []
    for path in SCHEMAS.glob("*/*-schema.json"):
        # Three references of the published schemas lack their slash.
        schema = json.loads(path.read_text().replace("#definitions", "#/definitions"))
        found.append((schema["$id"], Resource.from_contents(schema)))
    return Registry().with_resources(found)


_NAMED = {
    "ContractNegotiationError": "negotiation/contract-negotiation-error",
    "ContractNegotiation": "negotiation/contract-negotiation",
    "ContractRequestMessage": "negotiation/contract-request-message",
    "ContractOfferMessage": "negotiation/contract-offer-message",
    "ContractAgreementMessage": "negotiation/contract-agreement-message",
    "ContractAgreementVerificationMessage": "negotiation/contract-agreement-verification-message",
    "ContractNegotiationEventMessage": "negotiation/contract-negotiation-event-message",
    "ContractNegotiationTerminationMessage": "negotiation/contract-negotiation-termination-message",
    "TransferError": "transfer/transfer-error",
    "TransferProcess": "transfer/transfer-process",
    "TransferRequestMessage": "transfer/transfer-request-message",
    "TransferStartMessage": "transfer/transfer-start-message",
    "TransferSuspensionMessage": "transfer/transfer-suspension-message",
    "TransferCompletionMessage": "transfer/transfer-completion-message",
    "TransferTerminationMessage": "transfer/transfer-termination-message",
    "CatalogRequestMessage": "catalog/catalog-request-message",
    "DatasetRequestMessage": "catalog/dataset-request-message",
    "Catalog": "catalog/catalog",
    "Dataset": "catalog/dataset",
    "CatalogError": "catalog/catalog-error",
}


def check_schema(document: dict[str, Any], name: str = "") -> None:
    """Hold a document against the schema of its type; where the schemas are not at hand, nothing is said."""
    if not SCHEMAS.is_dir():
        return
    from jsonschema import Draft201909Validator

    name = name or _NAMED[document["@type"]]
    schema = _registry().contents(f"https://w3id.org/dspace/2025/1/{name}-schema.json")
    Draft201909Validator(schema, registry=_registry()).validate(document)


def said(kind: str, **fields: Any) -> dict[str, Any]:
    """A message of the protocol, written out."""
    return {"@context": [CONTEXT], "@type": kind, **fields}


@dataclass
class Side:
    """One of our own parties."""

    party: Party
    endpoint: Connector
    negotiator: Negotiator
    grantor: Grantor
    keys: NewKeys

    @property
    def name(self) -> str:
        return self.party.me

    def negotiation(self, pid: str) -> NegotiationRow:
        return self.party.store.find(NegotiationRow, pid)

    def transfer(self, pid: str) -> TransferRow:
        return self.party.store.find(TransferRow, pid)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [self.party.ledger.fields(entry.index) for entry in self.party.ledger.find(kind=kind)]


@dataclass
class Heard:
    """A message that reached the kit."""

    path: str
    document: dict[str, Any]


@dataclass
class Kit:
    """The test kit in the place of one member: says what a scenario says, and records what it hears."""

    home: Home
    courier: HttpsCourier
    cut: str
    heard: list[Heard] = field(default_factory=list)
    acknowledges: Callable[[str], bool] = lambda path: True
    answers: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda path, document: {}

    @property
    def name(self) -> str:
        return self.home.identity.member

    def say(self, path: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send a message; the status and what came back."""
        check_schema(document)
        return self.post(path, json.dumps(document).encode())

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes as they are."""
        answered = self.courier.ask(self.cut, "POST", path, body)
        document = json.loads(answered.body)
        check_schema(document)
        return answered.status, document

    def get(self, path: str, name: str = "") -> tuple[int, dict[str, Any]]:
        """Ask; the status and what came back."""
        answered = self.courier.ask(self.cut, "GET", path, b"")
        document = json.loads(answered.body)
        check_schema(document, name)
        return answered.status, document

    def answer(self, request: Request) -> Response:
        """Take what the connector under test sends."""
        body, now = request.body, datetime.now(UTC)
        call = open_call(request.token, self.name, request.method, request.path, body, self.home.public_key, now)
        document = json.loads(body) if body else {}
        if request.method == "POST":
            check_schema(document)
            self.heard.append(Heard(request.path, document))
        if not self.acknowledges(request.path):
            return Response(404, b"{}")
        reply = json.dumps(self.answers(request.path, document)).encode()
        token = sign_answer(self.home.key("statement"), self.name, call.envelope, 200, reply, now)
        return Response(200, reply, token)

    @property
    def last(self) -> dict[str, Any]:
        return self.heard[-1].document


class _Links:
    """Members' links, as the gateway knows them, without a network of their own."""

    def __init__(self) -> None:
        self.of: dict[str, Callable[[Request], Response]] = {}

    async def ask_dataspace(self, member: str, header: bytes, body: Sequence[bytes], *, timeout: float) -> Any:
        if member not in self.of:
            raise UnavailableError("{node} is not connected", code="node-offline", node=member)
        ask = m.DataspaceAsk.from_bytes(header)
        request = Request(ask.method, ask.path, ask.token, b"".join(bytes(one) for one in body))
        answer = await asyncio.to_thread(self.of[member], request)
        carried = m.DataspaceReply(status=answer.status, token=answer.token).to_bytes()
        return Carried(carried, answer.body)


@dataclass
class Carried:
    header: bytes
    body: bytes


class World:
    """All parties behind one gateway."""

    def __init__(self, folder: Path) -> None:
        keys = {name: NewKeys(name, root=name == "inst") for name in NAMES}
        root = keys["inst"].root
        assert root is not None
        self.root = root
        consortium, pinned = f"urn:uuid:{uuid.uuid4()}", Root(threshold=1, keys=(root.public.text,))
        at = datetime.now(UTC)
        roster = Roster(
            issued=at,
            expires=at + timedelta(days=30),
            consortium=consortium,
            name="Test",
            version=1,
            root=pinned,
            members=tuple(member_entry(name, keys[name]) for name in NAMES),
        ).seal(root)
        self.links = _Links()
        self.sides: dict[str, Side] = {}
        for name in NAMES:
            identity = Identity(
                consortium=consortium,
                name="Test",
                fingerprint=root_fingerprint(consortium, pinned),
                member=name,
                entity=f"{name} Ltd",
                roles=("member", "coordinator") if name == "inst" else ("member",),
                coordinator="inst",
                address="127.0.0.1:1",
            )
            home = Home.create(folder / name, identity, keys[name], [roster])
            self.sides[name] = self._side(home, keys[name])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._gateway = Gateway(self["inst"].party.home, self.links, self["inst"].endpoint)  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Side:
        return self.sides[name]

    def _side(self, home: Home, keys: NewKeys) -> Side:
        engine = open_engine(home.path / "store.db")
        ledger: Ledger = home.open_ledger()
        owned = [description(home)] if home.identity.member == PROVIDER else []
        courier = HttpsCourier(home)
        party = Party(home, Holdings(engine), ledger, DataspaceStore(engine), courier, datasets=lambda: owned)
        side = Side(party, Connector(party), Negotiator(party), Grantor(party), keys)
        self.links.of[home.identity.member] = side.endpoint.answer
        return side

    @contextmanager
    def serving(self) -> Iterator[World]:
        """Serve the gateway for the block."""
        self._thread.start()
        serving = self._gateway.serving("127.0.0.1", 0)
        port = asyncio.run_coroutine_threadsafe(serving.__aenter__(), self._loop).result(20)
        self.port = port
        for side in self.sides.values():
            side.party.courier.learn(f"https://127.0.0.1:{port}")  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), self._loop).result(20)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            for side in self.sides.values():
                side.party.ledger.close()
                side.party.store._engine.dispose()

    def kit(self, name: str, cut: str) -> Kit:
        """The kit in the place of a member, facing another."""
        side = self[name]
        kit = Kit(side.party.home, side.party.courier, cut)  # type: ignore[arg-type]
        self.links.of[name] = kit.answer
        return kit

    def ours(self, name: str) -> Side:
        """Put our own endpoints of a member back."""
        self.links.of[name] = self[name].endpoint.answer
        return self[name]


def member_entry(name: str, keys: NewKeys) -> Member:
    return Member(
        id=name,
        entity=f"{name} Ltd",
        roles=("member", "coordinator") if name == "inst" else ("member",),
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address="127.0.0.1:1" if name == "inst" else "",
    )


def description(home: Home) -> DatasetDescription:
    """What the mill publishes."""
    at = datetime.now(UTC)
    return DatasetDescription(
        issued=at,
        expires=at + timedelta(days=30),
        provider=home.identity.member,
        dataset="passes",
        title="Passes",
        data_version="sha256:" + "b" * 64,
        columns=(Column(name="force", type="number"),),
        rows_at_least=100,
        rows_at_most=110,
    )


def terms(days: int = 30, **changes: Any) -> Terms:
    """What our own parties negotiate about."""
    at = datetime.now(UTC)
    values: dict[str, Any] = {
        "provider": PROVIDER,
        "consumer": CONSUMER,
        "dataset": "passes",
        "actions": ["fed:train"],
        "purposes": ["fed:ProcessOptimization"],
        "count": 3,
        "expires": at + timedelta(days=days),
        "agreement_id": f"urn:uuid:{uuid.uuid4()}",
        "now": at,
    }
    return Terms(agreement_policy(**values | changes), "Passes")


def publish(side: Side, what: Terms, *, automatic: bool = False) -> str:
    """Put an offer into a party's catalog."""
    row = OfferRow(
        id=f"urn:uuid:{uuid.uuid4()}",
        dataset="passes",
        terms=write_terms(what),
        automatic=automatic,
        created="2026-01-01T00:00:00Z",
    )
    side.party.store.publish(row)
    return row.id


def countersigned(side: Side, agreement: dict[str, Any]) -> str:
    """The statement beside an agreement message, with this member's signature added."""
    from federation.dataspace.messages import pack

    return pack(add_signature(unpack(agreement[STATEMENT]), side.keys.statement))


def in_force(world: World) -> Envelope:
    """An agreement in force between lab and mill at both, suspended as a negotiation leaves it."""
    from federation.dataspace.revoking import suspend, word

    what = terms()
    at = datetime.now(UTC)
    mill, lab = world[PROVIDER], world[CONSUMER]
    statement = Agreement(
        issued=at,
        expires=at + timedelta(days=30),
        id=what.policy["@id"],
        provider=PROVIDER,
        consumer=CONSUMER,
        dataset="passes",
        title="Passes",
        roster=mill.party.home.history.digest,
        policy=what.policy,
    ).seal(mill.keys.statement, lab.keys.statement)
    suspension, envelope = word(mill.party, statement.digest, "no transfer is started", suspended=True)
    for side in (mill, lab):
        side.party.take(statement)
    suspend(mill.party, suspension, envelope)
    lab.party.take(envelope)
    assert Suspension.read(envelope).suspended
    return statement
