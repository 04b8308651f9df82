"""Operators find jobs that succeeded without a walk over all that have come since and wait."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SUCCEEDED = sa.text("state = 'succeeded'")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_succeeded", "jobs", ["state", "id"], sqlite_where=_SUCCEEDED, postgresql_where=_SUCCEEDED
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_succeeded", table_name="jobs")
