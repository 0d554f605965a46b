"""The history of a gateway's tables."""

from pathlib import Path
from typing import Final

from fa_core.database.migration import Lineage

LINEAGE: Final = Lineage("gateway", Path(__file__).parent, ("0001", "0002"), "gateway_version")
