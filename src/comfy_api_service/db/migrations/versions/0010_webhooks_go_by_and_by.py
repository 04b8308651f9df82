"""Webhooks are marked when they are deleted, and go after their deliveries; what was sent again has its own backoff.

A process of the version before takes a marked webhook for a disabled one, and one that was sent again for one that was
tried that often.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_WAITING = sa.text("state = 'waiting'")
_DISABLED = sa.text("disabled_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.add_column(
        "webhook_deliveries",
        sa.Column("replayed_attempts", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.create_index(
        "ix_webhooks_disabled",
        "webhooks",
        ["disabled_at"],
        sqlite_where=_DISABLED,
        postgresql_where=_DISABLED,
    )
    op.create_index(
        "ix_webhook_deliveries_undelivered",
        "webhook_deliveries",
        ["account_id", "id"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_undelivered", "webhook_deliveries")
    op.drop_index("ix_webhooks_disabled", "webhooks")
    op.drop_column("webhook_deliveries", "replayed_attempts")
    op.drop_column("webhooks", "deleted_at")
