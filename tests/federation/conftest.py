"""Homes of a small consortium, made without a coordinator."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.holdings import Holdings, open_engine
from federation.home import Home, Identity, NewKeys
from federation.ledger import Ledger
from federation.policy import agreement_policy
from federation.statements import Agreement, Envelope, Member, Revocation, Root, Roster, root_fingerprint

NAMES = ("inst", "lab", "mill")


@dataclass
class Party:
    """One member's home, with what it holds open."""

    home: Home
    keys: NewKeys
    ledger: Ledger
    holdings: Holdings

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Fields of the ledger's entries of a kind."""
        return [self.ledger.fields(entry.index) for entry in self.ledger.find(kind=kind)]


@dataclass
class Parties:
    """All of them, and the root."""

    root: SigningKey
    members: dict[str, Member]
    consortium: str
    pinned: Root
    of: dict[str, Party]

    def roster(self, *members: Member, **changes: Any) -> Envelope:
        """The next roster after what the mill holds."""
        held = self.of["mill"].home.history
        at = datetime.now(UTC)
        values: dict[str, Any] = {
            "issued": at,
            "expires": at + timedelta(days=30),
            "consortium": self.consortium,
            "name": "Test",
            "version": held.latest.version + 1,
            "previous": held.digest,
            "root": self.pinned,
            "members": members or tuple(self.members.values()),
        }
        return Roster(**values | changes).seal(self.root)

    def agreement(self, *signers: str, **changes: Any) -> Envelope:
        """An agreement between mill and lab, signed by those named."""
        at = datetime.now(UTC)
        expires = changes.pop("expires", at + timedelta(days=1))
        number = changes.pop("id", f"urn:uuid:{uuid.uuid4()}")
        policy = agreement_policy(
            provider="mill",
            consumer="lab",
            dataset="passes",
            actions=["fed:train"],
            purposes=[],
            count=changes.pop("count", 3),
            expires=expires,
            agreement_id=number,
            now=at,
        )
        return Agreement(
            issued=at,
            expires=expires,
            id=number,
            provider="mill",
            consumer="lab",
            dataset="passes",
            title="Passes",
            roster=self.of["mill"].home.history.digest,
            policy=policy,
        ).seal(*(self.of[name].keys.statement for name in signers))

    def revocation(self, agreement: Envelope, by: str, *, signer: str | None = None, age: int = 0) -> Envelope:
        """A revocation."""
        at = datetime.now(UTC) - timedelta(days=age)
        revocation = Revocation(issued=at, expires=at + timedelta(days=1), agreement=agreement.digest, by=by)
        return revocation.seal(self.of[signer or by].keys.statement)


def entry(name: str, keys: NewKeys) -> Member:
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


@pytest.fixture
def newcomer() -> tuple[NewKeys, Member]:
    """Keys and roster entry of somebody who is not in the roster yet."""
    keys = NewKeys("new", root=False)
    return keys, entry("new", keys)


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    keys = {name: NewKeys(name, root=name == "inst") for name in NAMES}
    root = keys["inst"].root
    assert root is not None
    consortium, pinned = f"urn:uuid:{uuid.uuid4()}", Root(threshold=1, keys=(root.public.text,))
    members = {name: entry(name, keys[name]) for name in NAMES}
    at = datetime.now(UTC)
    roster = Roster(
        issued=at,
        expires=at + timedelta(days=30),
        consortium=consortium,
        name="Test",
        version=1,
        root=pinned,
        members=tuple(members.values()),
    ).seal(root)
    of = {}
    for name in NAMES:
        identity = Identity(
            consortium=consortium,
            name="Test",
            fingerprint=root_fingerprint(consortium, pinned),
            member=name,
            entity=f"{name} Ltd",
            roles=members[name].roles,
            coordinator="inst",
            address="127.0.0.1:1",
        )
        home = Home.create(tmp_path / name, identity, keys[name], [roster])
        of[name] = Party(home, keys[name], home.open_ledger(), Holdings(open_engine(home.path / "store.db")))
    yield Parties(root, members, consortium, pinned, of)
    for party in of.values():
        party.ledger.close()
        party.holdings._engine.dispose()
