"""How the speakers felt, utterance by utterance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "emotions",
        sa.Column("utterance_id", sa.Text(), nullable=False),
        sa.Column(
            "call_id",
            sa.Text(),
            sa.ForeignKey("calls.call_id", name="fk_emotions_call_id_calls"),
            nullable=False,
        ),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("media_start_ms", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("utterance_id", name="pk_emotions"),
    )
    op.create_index("ix_emotions_call_id_media_start_ms", "emotions", ["call_id", "media_start_ms"])


def downgrade() -> None:
    op.drop_table("emotions")
