"""What the coordinator keeps: invitations, mail, the catalog, jobs and their events.

An attacker who can modify this store can delay, withhold and forget; not forge: whatever it holds was signed elsewhere, and
whoever receives it verifies it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, func
from sqlmodel import Field, Session, SQLModel, col, select

from federation.errors import UsageError


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


class EventRow(SQLModel, table=True):
    """Something that happened in a job."""

    __tablename__ = "event"

    job: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    time: str
    kind: str
    data: str


class NoSuchJobError(UsageError):
    """No job of that name."""

    code = "no-such-job"


MAIL_PER_MEMBER = 10_000


class CoordinatorStore:
    """Named transactions over the tables above."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        SQLModel.metadata.create_all(engine)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session:
            yield session
            session.commit()

    # -- invitations --------------------------------------------------------------------------------------------------

    def put_invitation(self, row: InvitationRow) -> None:
        """Keep an outstanding invitation; an earlier one for the same member is void from now on."""
        with self._session() as session:
            for old in session.exec(select(InvitationRow).where(InvitationRow.member == row.member)).all():
                session.delete(old)
            session.flush()
            session.add(row)

    def invitation(self, fingerprint: str) -> InvitationRow | None:
        """The invitation whose ticket has that certificate."""
        with self._session() as session:
            return session.get(InvitationRow, fingerprint)

    def outstanding(self) -> Sequence[InvitationRow]:
        """Invitations that can still be used."""
        with self._session() as session:
            return session.exec(select(InvitationRow).where(col(InvitationRow.used).is_(False))).all()

    def use_invitation(self, fingerprint: str) -> bool:
        """Mark an invitation used; False where it was used before."""
        with self._session() as session:
            row = session.get(InvitationRow, fingerprint)
            if row is None or row.used:
                return False
            row.used = True
            session.add(row)
            return True

    # -- mail ---------------------------------------------------------------------------------------------------------

    def put_mail(self, receiver: str, sender: str, arrived: str, digest: str, envelope: bytes) -> int:
        """Keep a statement for a member; returns its number."""
        with self._session() as session:
            held = session.exec(select(func.count()).select_from(MailRow).where(MailRow.receiver == receiver)).one()
            if held >= MAIL_PER_MEMBER:
                raise UsageError("the mailbox of {member} is full", member=receiver, code="mailbox-full")
            row = MailRow(receiver=receiver, sender=sender, arrived=arrived, digest=digest, envelope=envelope)
            session.add(row)
            session.flush()
            assert row.number is not None
            return row.number

    def mail(self, receiver: str, after: int, limit: int = 50) -> Sequence[MailRow]:
        """Mail of a member after a number, in order."""
        with self._session() as session:
            query = (
                select(MailRow)
                .where(MailRow.receiver == receiver, col(MailRow.number) > after)
                .order_by(col(MailRow.number))
                .limit(limit)
            )
            return session.exec(query).all()

    # -- catalog ------------------------------------------------------------------------------------------------------

    def publish(self, node: str, runtime: str, entries: dict[str, bytes]) -> None:
        """Replace what a node publishes."""
        with self._session() as session:
            for old in session.exec(select(CatalogRow).where(CatalogRow.node == node)).all():
                session.delete(old)
            session.flush()
            for dataset, envelope in entries.items():
                session.add(CatalogRow(node=node, dataset=dataset, runtime=runtime, envelope=envelope))

    def catalog(self) -> Sequence[CatalogRow]:
        """Everything published."""
        with self._session() as session:
            return session.exec(select(CatalogRow).order_by(CatalogRow.node, CatalogRow.dataset)).all()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def put_job(self, row: JobRow) -> bool:
        """Keep a new job; False where its plan was submitted before."""
        with self._session() as session:
            if session.get(JobRow, row.id) is not None:
                return False
            session.add(row)
            return True

    def job(self, job: str) -> JobRow:
        """The one job whose id is, or begins with, ``job``."""
        bare = job.removeprefix("urn:uuid:")
        with self._session() as session:
            rows = session.exec(select(JobRow)).all()
        hits = [row for row in rows if row.id.removeprefix("urn:uuid:").startswith(bare)]
        if len(hits) != 1 or len(bare) < 4:
            raise NoSuchJobError("no job is called {job}", hint="see `keyong job list`", job=job[:64])
        return hits[0]

    def jobs(self) -> Sequence[JobRow]:
        """All jobs, newest first."""
        with self._session() as session:
            return session.exec(select(JobRow).order_by(col(JobRow.submitted).desc())).all()

    def move_job(self, job: str, *, status: str | None = None, rounds_done: int | None = None) -> None:
        """Set how a job stands."""
        with self._session() as session:
            row = session.get(JobRow, job)
            assert row is not None
            row.status = status or row.status
            row.rounds_done = row.rounds_done if rounds_done is None else rounds_done
            session.add(row)

    def interrupt_running(self) -> list[str]:
        """After a restart: whatever was running is interrupted; returns the jobs."""
        with self._session() as session:
            rows = session.exec(select(JobRow).where(col(JobRow.status).in_(("submitted", "running")))).all()
            for row in rows:
                row.status = "interrupted"
                session.add(row)
            return [row.id for row in rows]

    def add_event(self, job: str, time: str, kind: str, data: dict[str, Any]) -> int:
        """Append an event to a job; returns its number."""
        with self._session() as session:
            last = session.exec(select(func.max(EventRow.number)).where(EventRow.job == job)).one()
            number = (last or 0) + 1
            session.add(EventRow(job=job, number=number, time=time, kind=kind, data=json.dumps(data, ensure_ascii=False)))
            return number

    def events(self, job: str, after: int, limit: int = 500) -> Sequence[EventRow]:
        """Events of a job after a number."""
        with self._session() as session:
            query = (
                select(EventRow)
                .where(EventRow.job == job, EventRow.number > after)
                .order_by(col(EventRow.number))
                .limit(limit)
            )
            return session.exec(query).all()
