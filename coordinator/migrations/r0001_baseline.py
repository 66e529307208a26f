"""The tables of release 0.1.0.

That release made the tables of whatever modules a process had imported, so a store of its may hold empty ones of the
other store.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STRAY = ("holding", "seen", "dataset", "accepted_entity")


def upgrade() -> None:
    """Make what is missing; drop what belongs to the other store and holds nothing."""
    text, blob, number = sa.String(), sa.LargeBinary(), sa.Integer()
    op.create_table(
        "invitation",
        *(_filled(name, text) for name in ("fingerprint", "member", "entity", "roles", "certificate", "expires")),
        _filled("used", sa.Boolean()),
        sa.PrimaryKeyConstraint("fingerprint"),
        if_not_exists=True,
    )
    op.create_table(
        "mail",
        _filled("number", number),
        *(_filled(name, text) for name in ("receiver", "sender", "arrived", "digest")),
        _filled("envelope", blob),
        sa.PrimaryKeyConstraint("number"),
        if_not_exists=True,
    )
    op.create_index("ix_mail_receiver", "mail", ["receiver"], if_not_exists=True)
    op.create_table(
        "mailbox",
        _filled("receiver", text),
        _filled("read", number),
        sa.PrimaryKeyConstraint("receiver"),
        if_not_exists=True,
    )
    op.create_table(
        "catalog",
        *(_filled(name, text) for name in ("node", "dataset", "runtime")),
        _filled("envelope", blob),
        sa.PrimaryKeyConstraint("node", "dataset"),
        if_not_exists=True,
    )
    op.create_table(
        "job",
        *(_filled(name, text) for name in ("id", "plan_digest", "requester", "purpose", "status")),
        *(_filled(name, number) for name in ("rounds", "rounds_done", "participants")),
        *(_filled(name, text) for name in ("protection", "submitted")),
        _filled("envelope", blob),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    for name in ("plan_digest", "requester"):
        op.create_index(f"ix_job_{name}", "job", [name], if_not_exists=True)
    op.create_table(
        "party",
        _filled("member", text),
        _filled("job", text),
        sa.PrimaryKeyConstraint("member", "job"),
        if_not_exists=True,
    )
    op.create_table(
        "event",
        _filled("job", text),
        _filled("number", number),
        *(_filled(name, text) for name in ("time", "kind", "data")),
        sa.PrimaryKeyConstraint("job", "number"),
        if_not_exists=True,
    )
    _drop_strays()


def _filled(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _drop_strays() -> None:
    connection = op.get_bind()
    there = set(sa.inspect(connection).get_table_names())
    for name in _STRAY:
        if name in there and connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() == 0:
            op.drop_table(name)
