"""The history of a database's tables, run by alembic when the database is opened.

Alembic takes a second to import, so the usual case, tables that are up to date, is found without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config


@dataclass(frozen=True, slots=True)
class Lineage:
    """The migrations of one kind of database.

    Attributes:
        kind: what an error calls such a database: "store", "gateway".
        folder: with `env.py` and `versions/`.
        known: every revision, oldest first.
        table: where the database keeps its revision.
    """

    kind: str
    folder: Path
    known: tuple[str, ...]
    table: str = "alembic_version"

    @property
    def head(self) -> str:
        """The newest revision."""
        return self.known[-1]

    def current(self, connection: Connection) -> str | None:
        """Return the revision of the tables, or None where there are none of ours."""
        if not inspect(connection).has_table(self.table):
            return None
        found = connection.execute(text(f"SELECT version_num FROM {self.table}")).scalar()  # noqa: S608 - ours
        return None if found is None else str(found)

    def upgrade(self, connection: Connection, revision: str | None = None) -> None:
        """Bring the tables up to `revision` (the newest) within the connection's own transaction."""
        from alembic import command

        command.upgrade(self._config(connection), revision or self.head)

    def downgrade(self, connection: Connection, revision: str) -> None:
        """Take the tables back to `revision`, or "base"; what only newer tables hold is lost."""
        from alembic import command

        command.downgrade(self._config(connection), revision)

    def _config(self, connection: Connection) -> "Config":
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(self.folder))
        config.attributes["connection"] = connection
        config.attributes["version_table"] = self.table
        return config
