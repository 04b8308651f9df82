"""Where a job stands in a trace.

A process of the version before writes jobs without it: they have no trace.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("trace_context", TEXT, nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "trace_context")
