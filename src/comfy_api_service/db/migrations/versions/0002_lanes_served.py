"""Lanes remember that a job of theirs was ever claimed; counters cannot tell after a job was queued again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lanes", sa.Column("served", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE lanes SET served = 1 WHERE entered > queued")


def downgrade() -> None:
    op.drop_column("lanes", "served")
