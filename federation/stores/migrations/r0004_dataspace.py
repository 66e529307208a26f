"""Offers in the catalog, negotiations and transfers of the Dataspace Protocol, and the calls that were answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "dataspace_offer",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("terms", sa.String(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_dataspace_offer_dataset", "dataspace_offer", ["dataset"])
    op.create_table(
        "negotiation",
        sa.Column("pid", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("peer_pid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("sending", sa.String(), nullable=False),
        sa.Column("sending_since", sa.String(), nullable=False),
        sa.Column("terms", sa.String(), nullable=False),
        sa.Column("consent", sa.String(), nullable=False),
        sa.Column("agreement", sa.String(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("updated", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pid"),
    )
    op.create_index("ix_negotiation_peer", "negotiation", ["peer"])
    op.create_table(
        "transfer",
        sa.Column("pid", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("peer_pid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("sending", sa.String(), nullable=False),
        sa.Column("sending_since", sa.String(), nullable=False),
        sa.Column("agreement", sa.String(), nullable=False),
        sa.Column("held_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("updated", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pid"),
    )
    op.create_index("ix_transfer_peer", "transfer", ["peer"])
    op.create_table(
        "dataspace_call",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("expires", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
