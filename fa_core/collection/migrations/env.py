"""Alembic's entry: run the migrations on the connection, and inside the transaction, that we were handed."""

from alembic import context

from fa_core.collection.schema import metadata

given = context.config.attributes
context.configure(
    connection=given["connection"], target_metadata=metadata, version_table=given["version_table"]
)
context.run_migrations()
