"""What rules found, to be counted: shadow hits, and the rule of each marker."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BATCH = 1000


def upgrade() -> None:
    op.create_table(
        "shadow_hits",
        sa.Column("hit_id", sa.Text(), nullable=False),
        sa.Column(
            "call_id",
            sa.Text(),
            sa.ForeignKey("calls.call_id", name="fk_shadow_hits_call_id_calls"),
            nullable=False,
        ),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hit_id", name="pk_shadow_hits"),
    )
    op.create_index("ix_shadow_hits_call_id", "shadow_hits", ["call_id"])
    op.create_index("ix_shadow_hits_rule_id_rule_version", "shadow_hits", ["rule_id", "rule_version"])
    op.create_index("ix_alerts_rule_id_rule_version_state", "alerts", ["rule_id", "rule_version", "state"])
    for name in ("rule_id", "rule_version", "alert_id"):
        op.add_column("markers", sa.Column(name, sa.Text()))
    _fill()
    op.create_index(
        "ix_markers_alert_id_rule_id_rule_version", "markers", ["alert_id", "rule_id", "rule_version"]
    )


def _fill() -> None:
    """The markers that are there already name their rule and their alert in their body."""
    markers = sa.table(
        "markers", *(sa.column(name, sa.Text()) for name in ("marker_id", "body", "rule_id", "alert_id"))
    )
    connection = op.get_bind()
    last = ""
    while True:
        page = sa.select(markers.c.marker_id, markers.c.body).where(markers.c.marker_id > last)
        rows = connection.execute(page.order_by(markers.c.marker_id).limit(BATCH)).all()
        if not rows:
            return
        last = rows[-1].marker_id
        connection.execute(
            sa.update(markers)
            .where(markers.c.marker_id == sa.bindparam("marker"))
            .values(rule_id=sa.bindparam("rule"), alert_id=sa.bindparam("alert")),
            [
                {"marker": row.marker_id, "rule": body["rule_id"], "alert": body.get("alert_id")}
                for row in rows
                for body in (json.loads(row.body),)
            ],
        )


def downgrade() -> None:
    op.drop_index("ix_markers_alert_id_rule_id_rule_version", "markers")
    for name in ("alert_id", "rule_version", "rule_id"):
        op.drop_column("markers", name)
    op.drop_index("ix_alerts_rule_id_rule_version_state", "alerts")
    op.drop_table("shadow_hits")
