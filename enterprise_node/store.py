"""The node's own registry: datasets the owner registered, members the owner accepted.

An attacker who can modify this store can point a dataset at another file of the owner's: the line then refuses, because
the registered fingerprint no longer fits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy import Engine, delete
from sqlmodel import Field, Session, SQLModel, col, select

from enterprise_node.rules import Drop, read_rules
from federation.errors import UsageError
from federation.statements import Column, DatasetDescription, Envelope, Member
from federation.stores import KeptAnswers


class RegisteredDataset(SQLModel, table=True):
    """A dataset the owner registered; ``description`` is the signed catalog entry."""

    __tablename__ = "dataset"

    id: str = Field(primary_key=True)
    path: str
    reading: str
    """JSON of how the file is read."""
    fingerprint: str
    data_version: str
    rows: int
    columns: str
    """JSON list of columns as they are in the source, before the rules."""
    rules: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """The desensitisation rules as canonical JSON; empty where there are none."""
    description: bytes

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns as they are in the source."""
        return tuple(Column.model_validate(item) for item in json.loads(self.columns))

    @property
    def simulated(self) -> bool:
        """Whether the owner's signed description says that the records are made up."""
        return DatasetDescription.read(Envelope.from_bytes(self.description)).simulated

    @property
    def privacy_unit(self) -> tuple[str, int] | None:
        """Column of the privacy unit (empty: each row is one) and the most rows of one; None where none is declared."""
        described = DatasetDescription.read(Envelope.from_bytes(self.description))
        return (described.privacy_unit, described.unit_rows) if described.unit_rows else None

    @property
    def shown_names(self) -> tuple[str, ...]:
        """Names of the columns that the rules leave: what agreements can grant."""
        return _shown_names(self.columns, self.rules)


@lru_cache(maxsize=64)
def _shown_names(columns: str, rules: str) -> tuple[str, ...]:
    read = read_rules(rules)
    names = (str(column["name"]) for column in json.loads(columns))
    return tuple(name for name in names if not isinstance(read.column(name), Drop))


class AcceptedEntity(SQLModel, table=True):
    """A legal entity that a release of before accepted by its name; it counts once it is bound to members."""

    __tablename__ = "accepted_entity"

    entity: str = Field(primary_key=True)
    accepted: str


class AcceptedMember(SQLModel, table=True):
    """A member that counts toward this node's minimum of companies, as it was when the owner said so."""

    __tablename__ = "accepted_member"

    member: str = Field(primary_key=True)
    entity: str
    key: str
    """Its statement key."""
    accepted: str


class NoSuchDatasetError(UsageError):
    """No dataset of that name is registered here."""

    code = "no-such-dataset"


class NodeStore:
    """Datasets and accepted members."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = KeptAnswers(engine)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session:
            yield session
            session.commit()

    def put_dataset(self, dataset: RegisteredDataset) -> None:
        """Register a dataset, or its next version."""
        with self._session() as session:
            session.merge(dataset)

    def remove_dataset(self, dataset_id: str) -> None:
        """Forget a dataset; the owner's file is not touched."""
        self.dataset(dataset_id)
        with self._session() as session:
            session.exec(delete(RegisteredDataset).where(col(RegisteredDataset.id) == dataset_id))

    def dataset(self, dataset_id: str) -> RegisteredDataset:
        """The dataset of that id, for reading; raises :class:`NoSuchDatasetError`."""

        def ask() -> RegisteredDataset | None:
            with self._session() as session:
                return session.get(RegisteredDataset, dataset_id)

        row = self._kept.get(("dataset", dataset_id), ask)
        if row is None:
            raise NoSuchDatasetError(
                "no dataset {name} is registered here", hint="see `keyong node dataset list`", name=dataset_id[:64]
            )
        return row

    def datasets(self) -> Sequence[RegisteredDataset]:
        """All registered datasets, for reading."""

        def ask() -> Sequence[RegisteredDataset]:
            with self._session() as session:
                return session.exec(select(RegisteredDataset).order_by(RegisteredDataset.id)).all()

        return self._kept.get("datasets", ask)

    def accept(self, member: Member, at: str) -> None:
        """Accept a member as it is now: its entity, its statement key."""
        with self._session() as session:
            session.merge(AcceptedMember(member=member.id, entity=member.entity, key=member.statement_key, accepted=at))

    def accepted(self) -> Mapping[str, AcceptedMember]:
        """Every accepted member by its id, for reading; `enterprise_node.acceptance` says which of them count."""

        def ask() -> Mapping[str, AcceptedMember]:
            with self._session() as session:
                return {row.member: row for row in session.exec(select(AcceptedMember)).all()}

        return self._kept.get("accepted", ask)

    def named(self) -> frozenset[str]:
        """Legal entities that were accepted by name alone."""
        with self._session() as session:
            return frozenset(row.entity for row in session.exec(select(AcceptedEntity)).all())

    def forget_named(self, entities: Collection[str]) -> None:
        """These names have been bound to members."""
        with self._session() as session:
            session.exec(delete(AcceptedEntity).where(col(AcceptedEntity.entity).in_(entities)))
