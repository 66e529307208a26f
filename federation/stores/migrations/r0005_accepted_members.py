"""Members as the owner accepted them, each with its entity and key; names accepted before are bound to members later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "accepted_member",
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("accepted", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("member"),
    )
