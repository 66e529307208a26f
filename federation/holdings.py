"""The statements a party holds: agreements and what became of them, by digest. Bytes are kept as they were signed.

An attacker who can modify this store can withhold or forget agreements, not make one: each is verified anew, signatures
and all, whenever it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, case, func, update
from sqlalchemy import select as sql_select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, Session, SQLModel, col, select

from federation import stores
from federation.errors import DeniedError, UnavailableError, UsageError
from federation.statements import Envelope, instant_text

State = Literal["requested", "offered", "in-force", "suspended", "declined", "revoked"]

WAITING = 500
"""Offers and requests of one member that may wait here at once: whoever sends more is flooding."""


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


class Pause(SQLModel, table=True):
    """One party's last word on whether an agreement is suspended."""

    __tablename__ = "pause"

    agreement: str = Field(primary_key=True)
    by: str = Field(primary_key=True)
    number: int
    suspended: bool


class Seen(SQLModel, table=True):
    """How far this party has read its mail."""

    __tablename__ = "seen"

    box: str = Field(primary_key=True)
    number: int


class StoreUnavailableError(UnavailableError):
    """The store could not be read or written; nothing may rest on it."""

    code = "store-unavailable"


class TooManyWaitingError(DeniedError):
    """A member has more offers and requests waiting here than anybody could read."""

    code = "too-many-waiting"


class NoSuchAgreementError(UsageError):
    """Nothing by that name is held here."""

    code = "no-such-agreement"


def open_engine(path: Path) -> Engine:
    """The engine of a member's ``store.db``; see :func:`federation.stores.open_engine`."""
    return stores.open_engine(path, stores.HOME_STORE)


@contextmanager
def store_session(engine: Engine) -> Iterator[Session]:
    """One transaction on a party's store, committed where the block ends well.

    Raises:
        StoreUnavailableError: the disk or the database refuses.
    """
    try:
        with Session(engine, expire_on_commit=False) as session:
            yield session
            session.commit()
    except SQLAlchemyError as error:
        raise StoreUnavailableError(
            "the store of agreements cannot be used ({kind})",
            hint="free the disk or mend the folder's permissions, then try again",
            kind=type(error).__name__,
        ) from None


class Holdings:
    """Agreements held by one party."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = stores.KeptAnswers(engine)

    def _session(self) -> AbstractContextManager[Session]:
        return store_session(self._engine)

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
        """Keep a statement in a state; the same bytes again only move the state. What was revoked stays revoked,
        and what is suspended, suspended.

        One SQL statement: a command and the node of one home may take the same mail at the same time.
        """
        row = {
            "digest": envelope.digest,
            "id": id,
            "type": envelope.payload_type,
            "state": state,
            "provider": provider,
            "consumer": consumer,
            "dataset": dataset,
            "title": title,
            "arrived": instant_text(arrived),
            "envelope": envelope.to_bytes(),
        }
        table = SQLModel.metadata.tables["holding"]
        insert = sqlite_insert(table).values(**row)
        upsert = insert.on_conflict_do_update(
            index_elements=["digest"],
            set_={"state": state, "envelope": row["envelope"]},
            where=table.c.state.not_in(("revoked", "suspended")),
        )
        with self._session() as session:
            session.execute(upsert)

    def move(self, digest: str, state: State) -> None:
        """Set the state of a held statement; ``revoked`` is final."""
        table = SQLModel.metadata.tables["holding"]
        change = update(table).where(table.c.digest == digest, table.c.state != "revoked").values(state=state)
        with self._session() as session:
            session.execute(change)
            if session.get(Holding, digest) is None:
                raise NoSuchAgreementError(
                    "no agreement {name} is held here", hint="see `keyong agreement list`", name=digest
                )

    def pause(self, agreement: str, by: str, number: int, *, suspended: bool) -> bool:
        """Take one party's word on whether an agreement is suspended; whether it is newer than the one before.

        It is suspended while any party says so; what was revoked stays revoked.
        """
        table, held = SQLModel.metadata.tables["pause"], SQLModel.metadata.tables["holding"]
        insert = sqlite_insert(table).values(agreement=agreement, by=by, number=number, suspended=suspended)
        upsert = insert.on_conflict_do_update(
            index_elements=["agreement", "by"],
            set_={"number": number, "suspended": suspended},
            where=table.c.number < number,
        )
        with self._session() as session:
            taken = bool(session.execute(upsert).rowcount)  # type: ignore[attr-defined]  # a result of DML has it
            anybody = sql_select(table.c.by).where(table.c.agreement == agreement, table.c.suspended)
            paused = session.execute(anybody).first() is not None
            before, after = ("in-force", "suspended") if paused else ("suspended", "in-force")
            change = update(held).where(held.c.digest == agreement, held.c.state == before).values(state=after)
            session.execute(change)
        return taken

    def pauses(self, agreement: str) -> Sequence[Pause]:
        """Each party's last word on whether an agreement is suspended."""
        with self._session() as session:
            return session.exec(select(Pause).where(Pause.agreement == agreement).order_by(Pause.by)).all()

    def check_room(self, sender: str) -> None:
        """Raise where a member has too many offers and requests waiting here."""
        table = SQLModel.metadata.tables["holding"]
        author = case((table.c.state == "offered", table.c.provider), else_=table.c.consumer)
        query = (
            sql_select(func.count())
            .select_from(table)
            .where(table.c.state.in_(("offered", "requested")), author == sender)
        )
        with self._session() as session:
            waiting = session.execute(query).scalar_one()
        if waiting >= WAITING:
            raise TooManyWaitingError(
                "{member} has {count} offers and requests waiting here",
                hint="answer or decline some of them (`keyong inbox`)",
                member=sender,
                count=waiting,
            )

    def state(self, digest: str) -> str | None:
        """The state of a held statement, or None where it is not held."""

        def ask() -> str | None:
            with self._session() as session:
                return session.exec(select(Holding.state).where(Holding.digest == digest)).first()

        return self._kept.get(digest, ask)

    def with_id(self, id: str) -> Sequence[Holding]:
        """Everything held under that id."""
        with self._session() as session:
            return session.exec(select(Holding).where(Holding.id == id)).all()

    def get(self, digest: str) -> Holding | None:
        """The holding of that digest, or None."""
        with self._session() as session:
            return session.get(Holding, digest)

    def find(self, name: str) -> Holding:
        """The one holding whose id or digest is, or begins with, ``name``."""
        with self._session() as session:
            rows = session.exec(select(Holding)).all()
        bare = name.removeprefix("urn:uuid:").removeprefix("sha256:")
        hits = [
            row for row in rows if row.id.removeprefix("urn:uuid:").startswith(bare) or row.digest[7:].startswith(bare)
        ]
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
            if states:
                query = query.where(col(Holding.state).in_(states))
            return session.exec(query).all()

    def mail_read(self) -> int:
        """Number of the last mail read."""
        with self._session() as session:
            row = session.get(Seen, "mail")
            return row.number if row else 0

    def set_mail_read(self, number: int) -> None:
        """Remember how far mail was read."""
        table = SQLModel.metadata.tables["seen"]
        insert = sqlite_insert(table).values(box="mail", number=number)
        upsert = insert.on_conflict_do_update(
            index_elements=["box"], set_={"number": number}, where=table.c.number < number
        )
        with self._session() as session:
            session.execute(upsert)
