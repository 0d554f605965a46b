"""The history of a store's tables."""

from pathlib import Path
from typing import Final

from fa_core.lineage import Lineage

LINEAGE: Final = Lineage("store", Path(__file__).parent, ("0001",))
