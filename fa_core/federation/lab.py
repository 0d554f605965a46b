"""What a lab is: how many nodes and devices, and what its devices' tables are."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from fa_core.errors import BadInput
from fa_core.federation.directory import Federation

FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class Lab:
    """A federation on one machine whose devices were filled from a fleet directory.

    Attributes:
        nodes: SuperNodes. devices: devices behind each.
        population, until, synthetic: of the fleet; `until` is ISO 8601, the end of the window recorded.
    """

    nodes: int
    devices: int
    population: str
    until: str
    synthetic: bool


def write_lab(federation: Federation, lab: Lab) -> None:
    """Keep what the lab is."""
    (federation.folder / FILE).write_text(json.dumps(asdict(lab), indent=1) + "\n", encoding="utf-8")


def read_lab(federation: Federation) -> Lab:
    """Return the lab of a federation. Raises BadInput where it has none."""
    lab = find_lab(federation)
    if lab is None:
        raise BadInput(
            f"{federation.folder} has no lab yet; `fa federation up {federation.folder} --fleet FLEETDIR` "
            "makes its devices"
        )
    return lab


def find_lab(federation: Federation) -> Lab | None:
    """Return the lab of a federation, None where it has none. Raises BadInput where its file is damaged."""
    file = federation.folder / FILE
    if not file.exists():
        return None
    try:
        lab = Lab(**json.loads(file.read_text(encoding="utf-8")))
        datetime.fromisoformat(lab.until)
    except (ValueError, TypeError):
        raise BadInput(f"{file} is damaged; remove it and `hubs/`, and make the lab again") from None
    return lab
