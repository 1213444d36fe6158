"""The life of alerts: when they escalate, and what became of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Alerts from before this have no deadline: nobody is called for what was left open long ago.
    op.add_column("alerts", sa.Column("escalates_at", sa.Text()))
    op.create_index("ix_alerts_escalates_at", "alerts", ["escalates_at"])
    op.create_table(
        "alert_changes",
        sa.Column("change_id", sa.Text(), nullable=False),
        sa.Column(
            "alert_id",
            sa.Text(),
            sa.ForeignKey("alerts.alert_id", name="fk_alert_changes_alert_id_alerts"),
            nullable=False,
        ),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("username", sa.Text()),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("change_id", name="pk_alert_changes"),
    )
    op.create_index("ix_alert_changes_alert_id_cursor", "alert_changes", ["alert_id", "cursor"])


def downgrade() -> None:
    op.drop_table("alert_changes")
    op.drop_index("ix_alerts_escalates_at", "alerts")
    op.drop_column("alerts", "escalates_at")
