"""Input files that callers bring, the jobs that need them, and workflow templates with their versions.

All of it is new: processes of the version before write jobs that have none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_OF_TEMPLATE = sa.text("workflow_id IS NOT NULL")
_PUBLISHED = sa.text("published_at IS NOT NULL")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # in the order of those who submit meanwhile
        op.execute("LOCK TABLE jobs, accounts IN ACCESS EXCLUSIVE MODE")
    op.add_column("jobs", sa.Column("inputs", TEXT, nullable=True))
    op.add_column("jobs", sa.Column("workflow_id", TEXT, nullable=True))
    op.add_column("jobs", sa.Column("workflow_version", sa.Integer(), nullable=True))
    op.create_index(
        "ix_jobs_workflow",
        "jobs",
        ["account_id", "workflow_id", "id"],
        sqlite_where=_OF_TEMPLATE,
        postgresql_where=_OF_TEMPLATE,
    )
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("account_id", "sha256", name="uq_uploads_account_id_sha256"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_uploads_account_id_accounts"),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_table(
        "job_uploads",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("upload_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "job_id", name="pk_job_uploads"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_job_uploads_job_id_jobs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_job_uploads_job_id", "job_uploads", ["job_id"])
    op.create_table(
        "workflows",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_workflows_account_id_accounts"),
    )
    op.create_index("ix_workflows_account_id", "workflows", ["account_id", "id"])
    op.create_index(
        "ix_workflows_published", "workflows", ["id"], sqlite_where=_PUBLISHED, postgresql_where=_PUBLISHED
    )
    op.create_table(
        "workflow_versions",
        sa.Column("workflow_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "number", name="pk_workflow_versions"),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["workflows.id"],
            name="fk_workflow_versions_workflow_id_workflows",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    for table in ("workflow_versions", "workflows", "job_uploads", "uploads"):
        op.drop_table(table)
    op.drop_index("ix_jobs_workflow", "jobs")
    for name in ("workflow_version", "workflow_id", "inputs"):
        op.drop_column("jobs", name)
