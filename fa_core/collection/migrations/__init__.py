"""The history of the tables of a leader and of a helper."""

from pathlib import Path
from typing import Final

from fa_core.database.migration import Lineage

LINEAGE: Final = Lineage("collection", Path(__file__).parent, ("0001", "0002"), "collection_version")
