"""The history of a store's tables, run by alembic when a store is opened.

Alembic takes a second to import, so the usual case, tables that are up to date, is found without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

KNOWN: Final = ("0001",)
HEAD: Final = KNOWN[-1]


def current(connection: Connection) -> str | None:
    """Return the revision of the tables, or None where there are none of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Bring the tables up to `revision` within the connection's own transaction."""
    from alembic import command

    command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Take the tables back to `revision`, or "base"; what only newer tables hold is lost."""
    from alembic import command

    command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
