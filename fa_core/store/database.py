"""Where a store's database is: a file in a folder, or a PostgreSQL."""

from pathlib import Path

from fa_core.database import connection
from fa_core.database.connection import Database
from fa_core.store.migrations import LINEAGE

FILE = "store.db"


def connect_folder(folder: Path) -> Database:
    """Return the SQLite database in `folder`, whose tables may not be there yet."""
    return connection.connect_file(folder / FILE, LINEAGE)


def connect_server(url: str) -> Database:
    """Return the PostgreSQL database at `url`. Raises BadInput for any other address."""
    return connection.connect_server(url, LINEAGE)
