"""The history of a store's tables."""

from pathlib import Path
from typing import Final

from fa_core.database.migration import Lineage

LINEAGE: Final = Lineage("store", Path(__file__).parent, ("0001", "0002"))
