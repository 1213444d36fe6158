"""The agent's desk: answers to hints, whispers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # What was shown before this was never answered: it is not counted.
    op.add_column("hints", sa.Column("rule_id", sa.Text()))
    op.create_index("ix_hints_rule_id", "hints", ["rule_id"])
    op.create_table(
        "hint_answers",
        sa.Column(
            "hint_id",
            sa.Text(),
            sa.ForeignKey("hints.hint_id", name="fk_hint_answers_hint_id_hints"),
            nullable=False,
        ),
        sa.Column(
            "call_id",
            sa.Text(),
            sa.ForeignKey("calls.call_id", name="fk_hint_answers_call_id_calls"),
            nullable=False,
        ),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hint_id", name="pk_hint_answers"),
    )
    op.create_index("ix_hint_answers_call_id", "hint_answers", ["call_id"])
    op.create_index("ix_hint_answers_rule_id_answer", "hint_answers", ["rule_id", "answer"])
    op.create_table(
        "whispers",
        sa.Column("whisper_id", sa.Text(), nullable=False),
        sa.Column(
            "call_id",
            sa.Text(),
            sa.ForeignKey("calls.call_id", name="fk_whispers_call_id_calls"),
            nullable=False,
        ),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("whisper_id", name="pk_whispers"),
    )
    op.create_index("ix_whispers_call_id_cursor", "whispers", ["call_id", "cursor"])


def downgrade() -> None:
    op.drop_table("whispers")
    op.drop_table("hint_answers")
    op.drop_index("ix_hints_rule_id", "hints")
    op.drop_column("hints", "rule_id")
