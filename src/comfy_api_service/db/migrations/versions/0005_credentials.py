"""Accounts of people, with their keys and sessions; how long a job's results are kept; who did what; what operators
look for in the jobs and the use of all.

All of it is new: processes of the version before write rows that have none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_UNSUCCESSFUL = sa.text("state IN ('failed', 'canceled')")
OF_PEOPLE = ("email", "username")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # in the order of those who submit meanwhile
        op.execute("LOCK TABLE jobs, accounts IN ACCESS EXCLUSIVE MODE")
    for name in (*OF_PEOPLE, "password_hash", "overrides"):
        op.add_column("accounts", sa.Column(name, TEXT, nullable=True))
    for name in OF_PEOPLE:
        op.create_index(f"ix_accounts_{name}", "accounts", [name], unique=True)
    op.add_column("jobs", sa.Column("retention", sa.Double(), nullable=True))
    op.create_table(
        "api_keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id_accounts"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_table(
        "sessions",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_sessions_account_id_accounts"),
    )
    op.create_index("ix_sessions_account_id", "sessions", ["account_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_refresh_tokens"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name="fk_refresh_tokens_session_id_sessions",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"])
    op.create_table(
        "tickets",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("credential_kind", TEXT, nullable=False),
        sa.Column("credential_id", TEXT, nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_tickets"),
    )
    op.create_index("ix_tickets_expires_at", "tickets", ["expires_at"])
    op.create_table(
        "audit",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("actor_id", TEXT, nullable=True),
        sa.Column("target", TEXT, nullable=True),
        sa.Column("address", TEXT, nullable=True),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("data", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_usage_days_day", "usage_days", ["day", "account_id"])
    op.create_index(
        "ix_jobs_unsuccessful_of_all",
        "jobs",
        ["state", "id"],
        sqlite_where=_UNSUCCESSFUL,
        postgresql_where=_UNSUCCESSFUL,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_unsuccessful_of_all", "jobs")
    op.drop_index("ix_usage_days_day", "usage_days")
    for table in ("audit", "tickets", "refresh_tokens", "sessions", "api_keys"):
        op.drop_table(table)
    op.drop_column("jobs", "retention")
    for name in OF_PEOPLE:
        op.drop_index(f"ix_accounts_{name}", "accounts")
    for name in (*OF_PEOPLE, "password_hash", "overrides"):
        op.drop_column("accounts", name)
