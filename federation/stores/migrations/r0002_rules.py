"""A registered dataset holds the owner's desensitisation rules; none so far."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("dataset", sa.Column("rules", sa.String(), nullable=False, server_default=""))
