"""Jobs that failed or were canceled are found without a walk over all of an account's."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_RARE = sa.text("state IN ('failed', 'canceled')")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_unsuccessful",
        "jobs",
        ["account_id", "state", "id"],
        sqlite_where=_RARE,
        postgresql_where=_RARE,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_unsuccessful", table_name="jobs")
