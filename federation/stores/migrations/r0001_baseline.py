"""The tables of release 0.1.0.

That release made the tables of whatever modules a process had imported, so a store of its has some or all of these,
and empty ones of the other store.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STRAY = ("invitation", "mail", "mailbox", "catalog", "job", "party", "event")


def upgrade() -> None:
    """Make what is missing; drop what belongs to the other store and holds nothing."""
    text = sa.String()
    op.create_table(
        "holding",
        sa.Column("digest", text, nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("id", "type", "state", "provider", "consumer", "dataset")),
        sa.Column("title", text, nullable=False),
        sa.Column("arrived", text, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        if_not_exists=True,
    )
    for name in ("consumer", "dataset", "id", "provider", "state"):
        op.create_index(f"ix_holding_{name}", "holding", [name], if_not_exists=True)
    op.create_table(
        "seen",
        sa.Column("box", text, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("box"),
        if_not_exists=True,
    )
    op.create_table(
        "dataset",
        *(sa.Column(name, text, nullable=False) for name in ("id", "path", "reading", "fingerprint", "data_version")),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("columns", text, nullable=False),
        sa.Column("description", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    op.create_table(
        "accepted_entity",
        sa.Column("entity", text, nullable=False),
        sa.Column("accepted", text, nullable=False),
        sa.PrimaryKeyConstraint("entity"),
        if_not_exists=True,
    )
    _drop_strays()


def _drop_strays() -> None:
    connection = op.get_bind()
    there = set(sa.inspect(connection).get_table_names())
    for name in _STRAY:
        if name in there and connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() == 0:
            op.drop_table(name)
