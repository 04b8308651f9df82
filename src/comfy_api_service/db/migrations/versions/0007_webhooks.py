"""Webhooks: who is told of what, what is on its way, and to whom deliveries go one receiver at a time.

All of it is new. What the version before has put into the outbox was for nobody, and is taken out; what it goes on
putting there is told by the processes of this version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SMALL = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500"
LARGE = "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05"
_DUE = sa.text("due_at IS NOT NULL AND failures < 3")
_FAILING = sa.text("due_at IS NOT NULL AND failures >= 3")
_HELD = sa.text("holder IS NOT NULL")
_WAITING = sa.text("state = 'waiting'")
_FAILED = sa.text("state = 'failed'")


def upgrade() -> None:
    _receivers()
    _deliveries()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE webhook_lanes SET ({SMALL})")
        op.execute(f"ALTER TABLE webhook_deliveries SET ({LARGE})")
    op.execute("DELETE FROM outbox")


def _receivers() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("events", TEXT, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.Column("disabled_reason", TEXT, nullable=True),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_webhooks_account_id_accounts"),
    )
    op.create_index("ix_webhooks_account_id", "webhooks", ["account_id", "id"])
    op.create_table(
        "webhook_secrets",
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("shown_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name="pk_webhook_secrets"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_webhook_secrets_account_id_accounts"
        ),
    )
    op.create_table(
        "webhook_lanes",
        sa.Column("receiver", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("webhook_id", TEXT, nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("holder", TEXT, nullable=True),
        sa.Column("failures", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("paused_until", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("receiver", name="pk_webhook_lanes"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_webhook_lanes_webhook_id_webhooks", ondelete="CASCADE"
        ),
    )
    for name, column, where in (
        ("due", "due_at", _DUE),
        ("failing", "due_at", _FAILING),
        ("held", "holder", _HELD),
    ):
        op.create_index(
            f"ix_webhook_lanes_{name}",
            "webhook_lanes",
            [column],
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_index("ix_webhook_lanes_webhook_id", "webhook_lanes", ["webhook_id"])
    op.create_index("ix_webhook_lanes_used_at", "webhook_lanes", ["used_at"])


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("webhook_id", TEXT, nullable=True),
        sa.Column("receiver", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=True),
        sa.Column("job_id", TEXT, nullable=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("event_at", sa.Double(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", TEXT, nullable=True),
        sa.Column("log", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("job_id", "seq", "receiver", name="uq_webhook_deliveries_job_id_seq_receiver"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_webhook_deliveries_account_id_accounts"
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name="fk_webhook_deliveries_webhook_id_webhooks",
            ondelete="CASCADE",
        ),
    )
    for name, columns, where in (
        ("waiting", ["receiver", "next_at"], _WAITING),
        ("ending", ["expires_at"], _WAITING),
        ("failed", ["account_id", "id"], _FAILED),
    ):
        op.create_index(
            f"ix_webhook_deliveries_{name}",
            "webhook_deliveries",
            columns,
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_index("ix_webhook_deliveries_account_id", "webhook_deliveries", ["account_id", "id"])
    op.create_index("ix_webhook_deliveries_webhook_id", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_created_at", "webhook_deliveries", ["created_at"])


def downgrade() -> None:
    for table in ("webhook_deliveries", "webhook_lanes", "webhook_secrets", "webhooks"):
        op.drop_table(table)
