"""Calls, what happened in them, the event log, accounts, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("cursor", BIG, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text()),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cursor", name="pk_events"),
    )
    op.create_table(
        "calls",
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text()),
        sa.Column("queue", sa.Text()),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("media_ms", BIG, nullable=False),
        sa.Column("gap_ms", BIG, nullable=False),
        sa.Column("last_text", sa.Text()),
        sa.PrimaryKeyConstraint("call_id", name="pk_calls"),
    )
    op.create_index("ix_calls_cursor", "calls", ["cursor"], unique=True)
    op.create_index("ix_calls_state_cursor", "calls", ["state", "cursor"])
    op.create_table(
        "utterances",
        sa.Column("utterance_id", sa.Text(), nullable=False),
        _call("utterances"),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("start_ms", BIG, nullable=False),
        sa.Column("end_ms", BIG, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double()),
        sa.Column("rejected", sa.Text()),
        sa.Column("words", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("utterance_id", name="pk_utterances"),
    )
    op.create_index("ix_utterances_call_id_start_ms", "utterances", ["call_id", "start_ms"])
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.Text(), nullable=False),
        _call("alerts"),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_call_id", "alerts", ["call_id"])
    op.create_index("ix_alerts_cursor", "alerts", ["cursor"])
    op.create_table(
        "markers",
        sa.Column("marker_id", sa.Text(), nullable=False),
        _call("markers"),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("media_start_ms", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("marker_id", name="pk_markers"),
    )
    op.create_index("ix_markers_call_id_media_start_ms", "markers", ["call_id", "media_start_ms"])
    op.create_table(
        "hints",
        sa.Column("hint_id", sa.Text(), nullable=False),
        _call("hints"),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hint_id", name="pk_hints"),
    )
    op.create_index("ix_hints_call_id", "hints", ["call_id"])
    op.create_table(
        "users",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column(
            "user_id",
            BIG,
            sa.ForeignKey("users.user_id", name="fk_sessions_user_id_users", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("address", sa.Text()),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "audit",
        sa.Column("audit_id", BIG, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit"),
    )
    op.create_index("ix_audit_subject", "audit", ["subject"])
    op.create_index("ix_audit_at", "audit", ["at"])


def downgrade() -> None:
    for table in (
        "audit",
        "sessions",
        "users",
        "hints",
        "markers",
        "alerts",
        "utterances",
        "calls",
        "events",
    ):
        op.drop_table(table)


def _call(table: str) -> sa.Column[str]:
    """What belongs to a call cannot outlive it."""
    reference = sa.ForeignKey("calls.call_id", name=f"fk_{table}_call_id_calls")
    return sa.Column("call_id", sa.Text(), reference, nullable=False)
