"""Where each call stands in its script."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "progress",
        sa.Column("progress_id", sa.Text(), nullable=False),
        sa.Column(
            "call_id",
            sa.Text(),
            sa.ForeignKey("calls.call_id", name="fk_progress_call_id_calls"),
            nullable=False,
        ),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("media_ms", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("progress_id", name="pk_progress"),
    )
    op.create_index("ix_progress_call_id", "progress", ["call_id"])


def downgrade() -> None:
    op.drop_table("progress")
