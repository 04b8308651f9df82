"""Alembic's environment: the connection is handed over by `db.migrate`, nothing is read from files."""

from alembic import context

from comfy_api_service.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
