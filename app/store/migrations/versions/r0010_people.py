"""Teams and places of calls, disabled accounts, identity providers, API tokens, the chain of the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store.chain import BEGINNING, Entry, chained

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
AT_ONCE = 1000


def upgrade() -> None:
    op.add_column("calls", sa.Column("team", sa.Text()))
    op.create_index("ix_calls_team_cursor", "calls", ["team", "cursor"])
    op.create_index("ix_calls_agent_cursor", "calls", ["agent", "cursor"])
    op.add_column("users", sa.Column("teams", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("users", sa.Column("disabled_at", sa.Text()))
    op.add_column("users", sa.Column("subject", sa.Text()))
    # An index, no constraint: for that SQLite would make the table anew, and dropping the old one would log
    # everybody out.
    op.create_index("ix_users_subject", "users", ["subject"], unique=True)
    # Whoever saw all calls until now goes on seeing them.
    op.execute("""UPDATE users SET teams = '["*"]' WHERE role IN ('supervisor', 'administrator')""")
    op.create_table(
        "tokens",
        sa.Column("token_id", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("begins", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("teams", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Text()),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
        sa.UniqueConstraint("token_hash", name="uq_tokens_token_hash"),
    )
    op.add_column("audit", sa.Column("detail", sa.Text()))
    op.add_column("audit", sa.Column("hash", sa.Text(), nullable=False, server_default=""))
    _chain(op.get_bind())


def _chain(connection: sa.Connection) -> None:
    """What was written before the chain becomes its beginning."""
    head, last = BEGINNING, -1
    page = sa.text(
        "SELECT audit_id, at, username, action, subject, address FROM audit "
        "WHERE audit_id > :last ORDER BY audit_id LIMIT :most"
    )
    while rows := connection.execute(page, {"last": last, "most": AT_ONCE}).all():
        hashes = []
        for last, at, username, action, subject, address in rows:
            head = chained(head, Entry(at, username, action, subject, address, None))
            hashes.append({"id": last, "hash": head})
        connection.execute(sa.text("UPDATE audit SET hash = :hash WHERE audit_id = :id"), hashes)


def downgrade() -> None:
    op.drop_column("audit", "hash")
    op.drop_column("audit", "detail")
    op.drop_table("tokens")
    op.drop_index("ix_users_subject", "users")
    for name in ("subject", "disabled_at", "teams"):
        op.drop_column("users", name)
    op.drop_index("ix_calls_agent_cursor", "calls")
    op.drop_index("ix_calls_team_cursor", "calls")
    op.drop_column("calls", "team")
