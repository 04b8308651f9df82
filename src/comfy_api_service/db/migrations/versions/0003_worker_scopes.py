"""Workers tell which backends they may drive, so that all of them share the pool out alike."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("workers", sa.Column("scope", TEXT, nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "scope")
