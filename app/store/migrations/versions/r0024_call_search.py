"""Calls are looked for by their queue and by when they began."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_calls_queue_cursor", "calls", ["queue", "cursor"])
    op.create_index("ix_calls_started_at", "calls", ["started_at"])


def downgrade() -> None:
    op.drop_index("ix_calls_started_at", "calls")
    op.drop_index("ix_calls_queue_cursor", "calls")
