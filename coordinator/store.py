"""What the coordinator keeps: invitations, mail, the catalog, jobs and their events.

An attacker who can modify this store can delay, withhold and forget, and invite whom the root's holder did not; not
forge: whatever else it holds was signed elsewhere, and whoever receives it verifies it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine, delete, func, insert, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, Session, SQLModel, col, select

from federation.errors import UsageError
from federation.holdings import StoreUnavailableError


class InvitationRow(SQLModel, table=True):
    """An outstanding or used invitation; ``certificate`` is its ticket's."""

    __tablename__ = "invitation"

    fingerprint: str = Field(primary_key=True)
    member: str
    entity: str
    roles: str
    certificate: str
    expires: str
    used: bool = False


class MailRow(SQLModel, table=True):
    """A statement on its way to a member."""

    __tablename__ = "mail"

    number: int | None = Field(default=None, primary_key=True)
    receiver: str = Field(index=True)
    sender: str
    arrived: str
    digest: str
    envelope: bytes


class MailboxRow(SQLModel, table=True):
    """How far a member has said that it read its mail."""

    __tablename__ = "mailbox"

    receiver: str = Field(primary_key=True)
    read: int


class CatalogRow(SQLModel, table=True):
    """A published dataset."""

    __tablename__ = "catalog"

    node: str = Field(primary_key=True)
    dataset: str = Field(primary_key=True)
    runtime: str
    envelope: bytes


class JobRow(SQLModel, table=True):
    """A job as submitted, and how it stands."""

    __tablename__ = "job"

    id: str = Field(primary_key=True)
    plan_digest: str = Field(index=True)
    requester: str = Field(index=True)
    purpose: str
    status: str
    rounds: int
    rounds_done: int = 0
    participants: int
    protection: str
    submitted: str
    envelope: bytes


class PartyRow(SQLModel, table=True):
    """A member that asked for a job or is in its cohort."""

    __tablename__ = "party"

    member: str = Field(primary_key=True)
    job: str = Field(primary_key=True)


class EventRow(SQLModel, table=True):
    """Something that happened in a job."""

    __tablename__ = "event"

    job: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    time: str
    kind: str
    data: str


class ToldEvent(NamedTuple):
    """An event as it is read: every follower has all of them, so no row object is made of each."""

    number: int
    time: str
    kind: str
    data: str


@dataclass(frozen=True)
class NewEvent:
    """An event of a job that has no number yet."""

    job: str
    time: str
    kind: str
    data: dict[str, Any]


class NoSuchJobError(UsageError):
    """No job of that name."""

    code = "no-such-job"


MAIL_PER_MEMBER = 10_000
MAIL_BYTES_PER_MEMBER = 256 * 1024 * 1024
OPEN_STATUSES = ("submitted", "running")
_JOB_NAME = re.compile(r"[0-9a-f-]{4,36}\Z")


class CoordinatorStore:
    """Named transactions over the tables above; every method blocks, and may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # One writer at a time: what a transaction reads before it writes is still so when it writes.
        self._writing = threading.Lock()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine, expire_on_commit=False) as session:
                yield session
        except SQLAlchemyError as error:
            raise StoreUnavailableError(
                "the coordinator's store cannot be used ({kind})",
                hint="its operator must make room on the disk, or mend it",
                kind=type(error).__name__,
            ) from None

    @contextmanager
    def _writer(self) -> Iterator[Session]:
        with self._writing, self._session() as session:
            yield session
            session.commit()

    # -- invitations --------------------------------------------------------------------------------------------------

    def put_invitation(self, row: InvitationRow) -> None:
        """Keep an outstanding invitation; an earlier one for the same member is void from now on."""
        with self._writer() as session:
            session.exec(delete(InvitationRow).where(col(InvitationRow.member) == row.member))
            session.add(row)

    def invitation(self, fingerprint: str) -> InvitationRow | None:
        """The invitation whose ticket has that certificate."""
        with self._session() as session:
            return session.get(InvitationRow, fingerprint)

    def outstanding(self, at: str) -> Sequence[InvitationRow]:
        """Invitations that can still be used at that time."""
        with self._session() as session:
            query = select(InvitationRow).where(col(InvitationRow.used).is_(False), InvitationRow.expires > at)
            return session.exec(query).all()

    def use_invitation(self, fingerprint: str) -> bool:
        """Mark an invitation used; False where it was used before. Of two uses at once, one gets True."""
        with self._writer() as session:
            mine = (col(InvitationRow.fingerprint) == fingerprint, col(InvitationRow.used).is_(False))
            return bool(session.exec(update(InvitationRow).where(*mine).values(used=True)).rowcount == 1)

    # -- mail ---------------------------------------------------------------------------------------------------------

    def put_mail(self, receiver: str, sender: str, arrived: str, digest: str, envelope: bytes) -> int:
        """Keep a statement for a member; returns its number. Where the box is full, what was read makes room."""
        with self._writer() as session:
            if _is_full(session, receiver, len(envelope)):
                box = session.get(MailboxRow, receiver)
                read = (col(MailRow.receiver) == receiver, col(MailRow.number) <= (box.read if box else 0))
                session.exec(delete(MailRow).where(*read))
                if _is_full(session, receiver, len(envelope)):
                    raise UsageError(
                        "the mailbox of {member} is full",
                        hint="its node or command must be connected once to read it",
                        member=receiver,
                        code="mailbox-full",
                    )
            row = MailRow(receiver=receiver, sender=sender, arrived=arrived, digest=digest, envelope=envelope)
            session.add(row)
            session.flush()
            assert row.number is not None
            return row.number

    def mail(self, receiver: str, after: int, limit: int = 50) -> Sequence[MailRow]:
        """Mail of a member after a number, in order; it has thereby said that it read everything before."""
        with self._writer() as session:
            box = session.get(MailboxRow, receiver) or MailboxRow(receiver=receiver, read=0)
            if after > box.read:
                # No further than what is there: a number from the air must not count mail as read that is yet to come.
                last = session.exec(select(func.max(MailRow.number)).where(MailRow.receiver == receiver)).one()
                box.read = max(box.read, min(after, last or 0))
                session.add(box)
            query = (
                select(MailRow)
                .where(MailRow.receiver == receiver, col(MailRow.number) > after)
                .order_by(col(MailRow.number))
                .limit(limit)
            )
            return session.exec(query).all()

    # -- catalog ------------------------------------------------------------------------------------------------------

    def publish(self, node: str, runtime: str, entries: dict[str, bytes], limit: int) -> None:
        """Replace what a node publishes; refused where everyone's entries together would exceed ``limit`` bytes."""
        with self._writer() as session:
            others = select(func.sum(func.length(CatalogRow.envelope))).where(CatalogRow.node != node)
            if (session.exec(others).one() or 0) + sum(map(len, entries.values())) > limit:
                raise UsageError(
                    "the catalog is full: all datasets' descriptions together exceed {size} KiB",
                    hint="shorten the descriptions, or remove datasets that are not offered any more",
                    size=limit // 1024,
                    code="catalog-full",
                )
            session.exec(delete(CatalogRow).where(col(CatalogRow.node) == node))
            for dataset, envelope in entries.items():
                session.add(CatalogRow(node=node, dataset=dataset, runtime=runtime, envelope=envelope))

    def catalog(self) -> Sequence[CatalogRow]:
        """Everything published."""
        with self._session() as session:
            return session.exec(select(CatalogRow).order_by(CatalogRow.node, CatalogRow.dataset)).all()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def put_job(self, row: JobRow, parties: Iterable[str]) -> bool:
        """Keep a new job and who may see it in a list; False where its plan was submitted before."""
        with self._writer() as session:
            connection = session.connection()
            if connection.execute(_STATUS, {"job": row.id}).first() is not None:
                return False
            connection.execute(insert(JobRow), row.model_dump())
            connection.execute(insert(PartyRow), [{"member": member, "job": row.id} for member in set(parties)])
            return True

    def job(self, job: str) -> JobRow:
        """The one job whose id is, or begins with, ``job``."""
        bare = job.removeprefix("urn:uuid:")
        hits: Sequence[JobRow] = ()
        if _JOB_NAME.match(bare):
            with self._session() as session:
                query = select(JobRow).where(col(JobRow.id).startswith(f"urn:uuid:{bare}", autoescape=True))
                hits = session.exec(query.limit(2)).all()
        if len(hits) != 1:
            raise NoSuchJobError("no job is called {job}", hint="see `keyong job list`", job=job[:64])
        return hits[0]

    def jobs(self, member: str, limit: int) -> Sequence[JobRow]:
        """The jobs a member asked for or is in the cohort of, newest first."""
        with self._session() as session:
            query = (
                select(JobRow)
                .join(PartyRow, col(PartyRow.job) == col(JobRow.id))
                .where(PartyRow.member == member)
                .order_by(col(JobRow.submitted).desc(), _LATER)  # to the second, and a job may take less
                .limit(limit)
            )
            return session.exec(query).all()

    def start_job(self, job: str) -> None:
        """Say that a job runs."""
        with self._writer() as session:
            session.connection().execute(_START, {"job": job})

    def reopen_job(self, job: str) -> bool:
        """Say that an interrupted job waits for its turn again; False where it is not interrupted."""
        with self._writer() as session:
            mine = (col(JobRow.id) == job, col(JobRow.status) == "interrupted")
            return bool(session.exec(update(JobRow).where(*mine).values(status="submitted")).rowcount == 1)

    def interrupted(self) -> Sequence[JobRow]:
        """Jobs that can be gone on with."""
        with self._session() as session:
            return session.exec(select(JobRow).where(JobRow.status == "interrupted")).all()

    def end_job(self, job: str, status: str, rounds_done: int, time: str, data: dict[str, Any]) -> None:
        """Set a job's last status together with its last event: who sees the one sees the other."""
        with self._writer() as session:
            session.connection().execute(_END, {"job": job, "status": status, "rounds_done": rounds_done})
            _put_event(session, job, time, status, data)

    def unfinished(self) -> Sequence[JobRow]:
        """Jobs that have not ended: after a start, those that the last run left behind."""
        with self._session() as session:
            return session.exec(select(JobRow).where(col(JobRow.status).in_(OPEN_STATUSES))).all()

    def add_event(self, job: str, time: str, kind: str, data: dict[str, Any]) -> int:
        """Append an event to a job; returns its number."""
        (number,) = self.add_events([NewEvent(job, time, kind, data)])
        return number

    def add_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Append events, all or none; returns the number of each in its job."""
        with self._writer() as session:
            return [_put_event(session, one.job, one.time, one.kind, one.data) for one in events]

    def events(self, job: str, after: int, limit: int = 500) -> tuple[str, Sequence[ToldEvent]]:
        """A job's status and its events after a number; status first, so that an ended job's last event is in sight."""
        with self._session() as session:
            connection = session.connection()
            status = str(connection.execute(_STATUS, {"job": job}).scalar_one())
            rows = connection.execute(_EVENTS, {"job": job, "after": after, "limit": limit})
            return status, [ToldEvent(*row) for row in rows]


def _is_full(session: Session, receiver: str, more: int) -> bool:
    query = select(func.count(), func.sum(func.length(MailRow.envelope))).where(MailRow.receiver == receiver)
    count, size = session.exec(query).one()
    return count >= MAIL_PER_MEMBER or (size or 0) + more > MAIL_BYTES_PER_MEMBER


_LATER = text("job.rowid DESC")
# Asked or said for every job and by every follower: as text, which takes a quarter of what the object mapper does.
_STATUS = text("SELECT status FROM job WHERE id = :job")
_START = text("UPDATE job SET status = 'running' WHERE id = :job")
_END = text("UPDATE job SET status = :status, rounds_done = :rounds_done WHERE id = :job")
_EVENTS = text(
    "SELECT number, time, kind, data FROM event WHERE job = :job AND number > :after ORDER BY number LIMIT :limit"
)
_APPEND = text(
    "INSERT INTO event (job, number, time, kind, data)"
    " SELECT :job, coalesce(max(number), 0) + 1, :time, :kind, :data FROM event WHERE job = :job RETURNING number"
)


def _put_event(session: Session, job: str, time: str, kind: str, data: dict[str, Any]) -> int:
    # Every round has one: written without a row object, in one statement.
    row = {"job": job, "time": time, "kind": kind, "data": json.dumps(data, ensure_ascii=False)}
    return int(session.connection().execute(_APPEND, row).scalar_one())
