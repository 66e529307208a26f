"""What a party keeps of the protocol: offers in its catalog, negotiations, transfers, and the calls it answered.

An attacker who can modify this store can forget or stall a negotiation, not make an agreement: that takes both
signatures, verified whenever it is used, and it stands among the agreements of the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Engine, delete, func, update
from sqlalchemy import select as sql_select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlmodel import Field, Session, SQLModel, col, select

from federation.dataspace.offers import Terms
from federation.dataspace.states import ENDED, Role
from federation.errors import UsageError
from federation.holdings import store_session
from federation.statements import instant_text

IN_FLIGHT = timedelta(seconds=60)
"""How long a message may be on its way before whoever sent it is taken to have died."""


class NoSuchProcessError(UsageError):
    """No negotiation or transfer by that name is held here, or not with that member."""

    code = "no-such-process"


class BusyError(UsageError):
    """Another message of the same process is on its way."""

    code = "busy"


class OfferRow(SQLModel, table=True):
    """An offer that stands in our catalog; ``automatic`` where whoever takes it as it stands gets it."""

    __tablename__ = "dataspace_offer"

    id: str = Field(primary_key=True)
    dataset: str = Field(index=True)
    terms: str
    automatic: bool
    created: str


class NegotiationRow(SQLModel, table=True):
    """A contract negotiation as this side sees it.

    ``consent`` is the digest of the terms that this side asked for, offered or accepted: what it goes on with by itself.
    ``sending`` is the state that a message on its way leads to.
    """

    __tablename__ = "negotiation"

    pid: str = Field(primary_key=True)
    role: str
    peer: str = Field(index=True)
    peer_pid: str = ""
    state: str
    sending: str = ""
    sending_since: str = ""
    terms: str
    consent: str = ""
    agreement: str = ""
    """Digest of the signed agreement; empty until the provider made it."""
    statement: bytes = b""
    reason: str = ""
    created: str
    updated: str

    @property
    def on_table(self) -> Terms:
        """What is on the table."""
        return read_terms(self.terms)


class TransferRow(SQLModel, table=True):
    """A compute grant as this side sees it; ``held_by`` is who suspended it."""

    __tablename__ = "transfer"

    pid: str = Field(primary_key=True)
    role: str
    peer: str = Field(index=True)
    peer_pid: str = ""
    state: str
    sending: str = ""
    sending_since: str = ""
    agreement: str
    held_by: str = ""
    reason: str = ""
    created: str
    updated: str


class CallRow(SQLModel, table=True):
    """A call that was answered, until it expires; status 0 while it is being answered."""

    __tablename__ = "dataspace_call"

    id: str = Field(primary_key=True)
    by: str
    digest: str
    expires: str
    status: int
    body: bytes


P = TypeVar("P", NegotiationRow, TransferRow)


def write_terms(terms: Terms) -> str:
    """Terms as they are stored."""
    return json.dumps(asdict(terms), ensure_ascii=False, sort_keys=True)


def read_terms(text: str) -> Terms:
    """Read what :func:`write_terms` wrote."""
    return Terms(**json.loads(text))


class DataspaceStore:
    """The protocol's tables of one party's ``store.db``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _session(self) -> AbstractContextManager[Session]:
        return store_session(self._engine)

    # -- offers -------------------------------------------------------------------------------------------------------

    def publish(self, row: OfferRow) -> None:
        """Put an offer into the catalog."""
        with self._session() as session:
            session.add(row)

    def withdraw(self, id: str) -> None:
        """Take an offer out of the catalog; negotiations that began with it go on."""
        with self._session() as session:
            session.execute(delete(OfferRow).where(col(OfferRow.id) == id))

    def offers(self, dataset: str | None = None) -> Sequence[OfferRow]:
        """Offers in the catalog, oldest first."""
        with self._session() as session:
            query = select(OfferRow).order_by(col(OfferRow.created), col(OfferRow.id))
            return session.exec(query if dataset is None else query.where(OfferRow.dataset == dataset)).all()

    # -- processes ----------------------------------------------------------------------------------------------------

    def add(self, row: NegotiationRow | TransferRow) -> None:
        """Keep a new process."""
        with self._session() as session:
            session.add(row)

    def get(self, kind: type[P], pid: str, peer: str) -> P:
        """The process of that id with that member; nobody learns of others'."""
        with self._session() as session:
            row = session.get(kind, pid)
        if row is None or row.peer != peer:
            raise NoSuchProcessError("no such process with this member is held here")
        return row

    def begun_by(self, kind: type[P], role: Role, peer: str, peer_pid: str) -> P | None:
        """The process that a member began under its own id, or None."""
        with self._session() as session:
            query = select(kind).where(kind.role == role, kind.peer == peer, kind.peer_pid == peer_pid)
            return session.exec(query).first()

    def find(self, kind: type[P], name: str) -> P:
        """The one process whose id begins with ``name``."""
        bare = name.removeprefix("urn:uuid:")
        with self._session() as session:
            hits = [row for row in session.exec(select(kind)).all() if row.pid[9:].startswith(bare)]
        if len(hits) != 1 or len(bare) < 4:
            raise NoSuchProcessError(
                "{count} processes held here are called {name}",
                hint="give at least the first four characters of an id, as `keyong negotiation list` or"
                " `keyong transfer list` shows it",
                count=len(hits) if len(bare) >= 4 else 0,
                name=name[:60],
            )
        return hits[0]

    def list(self, kind: type[P], *, open_only: bool = False) -> Sequence[P]:
        """Processes, oldest first."""
        with self._session() as session:
            query = select(kind).order_by(col(kind.created), col(kind.pid))
            return session.exec(query.where(col(kind.state).not_in(ENDED)) if open_only else query).all()

    def open_with(self, kind: type[P], peer: str) -> int:
        """How many processes with a member have not ended."""
        table = SQLModel.metadata.tables[str(kind.__tablename__)]
        query = (
            sql_select(func.count()).select_from(table).where(table.c.peer == peer, table.c.state.not_in(tuple(ENDED)))
        )
        with self._session() as session:
            return int(session.execute(query).scalar_one())

    def change(self, row: NegotiationRow | TransferRow, now: datetime, **values: object) -> bool:
        """Set values of a process that is still in the state it was read in; whether it was."""
        kind = type(row)
        table = SQLModel.metadata.tables[str(kind.__tablename__)]
        change = (
            update(table)
            .where(table.c.pid == row.pid, table.c.state == row.state)
            .values(updated=instant_text(now), **values)
        )
        with self._session() as session:
            return bool(session.execute(change).rowcount)  # type: ignore[attr-defined]  # a result of DML has it

    def begin(self, row: NegotiationRow | TransferRow, target: str, now: datetime) -> None:
        """Note that a message that leads to ``target`` is on its way; refuse where another one is."""
        table = SQLModel.metadata.tables[str(type(row).__tablename__)]
        change = (
            update(table)
            .where(
                table.c.pid == row.pid,
                table.c.state == row.state,
                (table.c.sending == "") | (table.c.sending_since < instant_text(now - IN_FLIGHT)),
            )
            .values(sending=target, sending_since=instant_text(now))
        )
        with self._session() as session:
            taken = bool(session.execute(change).rowcount)  # type: ignore[attr-defined]
        if not taken:
            raise BusyError("another message of {pid} is on its way", hint="try again in a moment", pid=row.pid)

    def again(self, row: P) -> P:
        """The process as it stands now."""
        return self.get(type(row), row.pid, row.peer)

    # -- calls --------------------------------------------------------------------------------------------------------

    def first_time(self, id: str, by: str, digest: str, expires: datetime, now: datetime) -> CallRow | None:
        """Note a call that is to be answered; where it is known already, what was answered."""
        table = SQLModel.metadata.tables["dataspace_call"]
        values = {"id": id, "by": by, "digest": digest, "expires": instant_text(expires), "status": 0, "body": b""}
        with self._session() as session:
            session.execute(delete(table).where(table.c.expires < instant_text(now)))
            insert = sqlite_insert(table).values(**values).on_conflict_do_nothing()
            if session.execute(insert).rowcount:  # type: ignore[attr-defined]
                return None
            return session.get(CallRow, id)

    def answered(self, id: str, status: int, body: bytes) -> None:
        """Keep what was answered."""
        table = SQLModel.metadata.tables["dataspace_call"]
        with self._session() as session:
            session.execute(update(table).where(table.c.id == id).values(status=status, body=body))
