"""The statements a party holds: agreements and what became of them, by digest. Bytes are kept as they were signed.

An attacker who can modify this store can withhold or forget agreements, not make one: each is verified anew, signatures
and all, whenever it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine, select

from federation.errors import UsageError
from federation.statements import Envelope, instant_text

State = Literal["requested", "offered", "in-force", "declined", "revoked"]


class Holding(SQLModel, table=True):
    """One agreement, offer or request, with its state here."""

    __tablename__ = "holding"

    digest: str = Field(primary_key=True)
    id: str = Field(index=True)
    type: str
    state: str = Field(index=True)
    provider: str = Field(index=True)
    consumer: str = Field(index=True)
    dataset: str = Field(index=True)
    title: str = ""
    arrived: str
    envelope: bytes


class Seen(SQLModel, table=True):
    """How far this party has read its mail."""

    __tablename__ = "seen"

    box: str = Field(primary_key=True)
    number: int


class NoSuchAgreementError(UsageError):
    """Nothing by that name is held here."""

    code = "no-such-agreement"


def open_engine(path: Path) -> Engine:
    """An SQLite engine with WAL, full sync and foreign keys, tables made where missing."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    SQLModel.metadata.create_all(engine)
    path.chmod(0o600)
    return engine


class Holdings:
    """Agreements held by one party."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session:
            yield session
            session.commit()

    def put(
        self,
        envelope: Envelope,
        state: State,
        *,
        id: str,
        provider: str,
        consumer: str,
        dataset: str,
        title: str,
        arrived: datetime,
    ) -> None:
        """Keep a statement in a state; the same bytes again only move the state."""
        with self._session() as session:
            held = session.get(Holding, envelope.digest)
            if held is None:
                held = Holding(
                    digest=envelope.digest,
                    id=id,
                    type=envelope.payload_type,
                    state=state,
                    provider=provider,
                    consumer=consumer,
                    dataset=dataset,
                    title=title,
                    arrived=instant_text(arrived),
                    envelope=envelope.to_bytes(),
                )
            else:
                held.state = state
                held.envelope = envelope.to_bytes()
            session.add(held)

    def move(self, digest: str, state: State) -> None:
        """Set the state of a held statement."""
        with self._session() as session:
            held = session.get(Holding, digest)
            if held is None:
                raise NoSuchAgreementError("no agreement {name} is held here", hint="see `keyong agreement list`", name=digest)
            held.state = state
            session.add(held)

    def get(self, digest: str) -> Holding | None:
        """The holding of that digest, or None."""
        with self._session() as session:
            return session.get(Holding, digest)

    def find(self, name: str) -> Holding:
        """The one holding whose id or digest is, or begins with, ``name``."""
        with self._session() as session:
            rows = session.exec(select(Holding)).all()
        bare = name.removeprefix("urn:uuid:").removeprefix("sha256:")
        hits = [row for row in rows if row.id.removeprefix("urn:uuid:").startswith(bare) or row.digest[7:].startswith(bare)]
        if len(hits) != 1 or len(bare) < 4:
            raise NoSuchAgreementError(
                "{count} agreements held here are called {name}",
                hint="see `keyong agreement list`; give at least the first four characters of an id",
                count=len(hits) if len(bare) >= 4 else 0,
                name=name,
            )
        return hits[0]

    def list(self, *states: State) -> Sequence[Holding]:
        """All holdings in the given states (all states where none is given), oldest first."""
        with self._session() as session:
            query = select(Holding).order_by(Holding.arrived, Holding.digest)
            rows = session.exec(query).all()
        return [row for row in rows if not states or row.state in states]

    def mail_read(self) -> int:
        """Number of the last mail read."""
        with self._session() as session:
            row = session.get(Seen, "mail")
            return row.number if row else 0

    def set_mail_read(self, number: int) -> None:
        """Remember how far mail was read."""
        with self._session() as session:
            row = session.get(Seen, "mail") or Seen(box="mail", number=0)
            row.number = max(row.number, number)
            session.add(row)
