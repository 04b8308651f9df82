"""Workers tell which backends they may drive, and operators add some for all: so the pool is shared out.

Start tags stand with the backends. Those of the workers stay for processes of the version before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("workers", sa.Column("scope", TEXT, nullable=True))
    op.add_column(
        "backends", sa.Column("start_tag", sa.Double(), server_default=sa.text("0"), nullable=False)
    )
    op.execute("UPDATE backends SET start_tag = (SELECT coalesce(max(start_tag), 0) FROM workers)")
    op.add_column(
        "backends", sa.Column("manual", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("backends", "manual")
    op.drop_column("backends", "start_tag")
    op.drop_column("workers", "scope")
