"""What became of the appeal against an alert: a column of its own, so that open ones can be listed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alerts", sa.Column("appeal", sa.Text()))
    op.create_index("ix_alerts_appeal_cursor", "alerts", ["appeal", "cursor"])
    alerts = sa.table("alerts", sa.column("appeal", sa.Text()), sa.column("body", sa.Text()))
    for appeal in ("open", "accepted", "rejected"):
        # Inside of a text of the JSON every quote has a backslash before it: this is the field itself.
        field = alerts.c.body.like(f'%"appeal":"{appeal}"%')
        op.execute(sa.update(alerts).where(field).values(appeal=appeal))


def downgrade() -> None:
    op.drop_index("ix_alerts_appeal_cursor", "alerts")
    op.drop_column("alerts", "appeal")
