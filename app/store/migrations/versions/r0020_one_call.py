"""Sealed originals of masked texts; notes on calls; take-overs that were asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _of_a_call(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=f"fk_{name}_call_id_calls")


def upgrade() -> None:
    op.create_table(
        "originals",
        sa.Column("utterance_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("box", sa.Text(), nullable=False),
        _of_a_call("originals"),
        sa.PrimaryKeyConstraint("utterance_id", name="pk_originals"),
    )
    op.create_index("ix_originals_call_id", "originals", ["call_id"])
    op.create_table(
        "notes",
        sa.Column("note_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        _of_a_call("notes"),
        sa.PrimaryKeyConstraint("note_id", name="pk_notes"),
    )
    op.create_index("ix_notes_call_id", "notes", ["call_id"])
    op.create_table(
        "takeovers",
        sa.Column("takeover_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        _of_a_call("takeovers"),
        sa.PrimaryKeyConstraint("takeover_id", name="pk_takeovers"),
    )
    op.create_index("ix_takeovers_call_id", "takeovers", ["call_id"])


def downgrade() -> None:
    for name in ("takeovers", "notes", "originals"):
        op.drop_table(name)
