"""Drafts of rule packs, what was published of them, trials over stored calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rule_drafts",
        sa.Column("draft_id", BIG, nullable=False),
        sa.Column("pack_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("draft_id", name="pk_rule_drafts"),
    )
    op.create_index("ix_rule_drafts_state_draft_id", "rule_drafts", ["state", "draft_id"])
    op.create_table(
        "rule_publications",
        sa.Column("publication_id", BIG, nullable=False),
        sa.Column("pack_id", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("publication_id", name="pk_rule_publications"),
    )
    op.create_index(
        "ix_rule_publications_pack_id_publication_id", "rule_publications", ["pack_id", "publication_id"]
    )
    op.create_table(
        "rule_trials",
        sa.Column("trial_id", BIG, nullable=False),
        sa.Column("draft_id", BIG, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.PrimaryKeyConstraint("trial_id", name="pk_rule_trials"),
    )
    op.create_index("ix_rule_trials_state", "rule_trials", ["state"])


def downgrade() -> None:
    op.drop_table("rule_trials")
    op.drop_table("rule_publications")
    op.drop_table("rule_drafts")
