"""Alembic's entry: run the migrations on the connection, and inside the transaction, that we were handed."""

from alembic import context

from fa_core.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
