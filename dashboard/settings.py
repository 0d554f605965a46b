"""What the dashboard was started with. One value, set before the first page is served, never changed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fa_core.store import DEFAULT, Entry, Store

FOLDER: Final = "dashboard"
"""Beside the store: the audit trail, and the plans and outcomes of runs launched here."""


Report = Callable[[Store, Entry], str]
"""Returns a release as one HTML page."""


Operate = Callable[[str, str, str], str]
"""Holds, resumes, takes back or decides a rollout: (store, its hash, action) -> what came of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    store: a folder or postgresql://….
    folder: where the dashboard writes its own files.
    plans: folder of plans to start from, None where there is none.
    fleets: fleet directories that a run may be launched over.
    base: the path under which a proxy serves the dashboard, "" for none.
    report: writes a release as a page to file, None where this dashboard offers none.
    operate: does what an operator says with a rollout, None where this dashboard does not.
    log_key, witness_key: raw Ed25519 public keys that the log's signatures are checked against, 32 bytes each.
    """

    store: str
    folder: Path
    plans: Path | None = None
    fleets: tuple[Path, ...] = ()
    base: str = ""
    report: Report | None = None
    operate: Operate | None = None
    log_key: bytes | None = None
    witness_key: bytes | None = None

    def plan_files(self) -> dict[str, Path]:
        """Return the plan files of the folder of plans to start from, by name."""
        return {} if self.plans is None else {path.stem: path for path in sorted(self.plans.glob("*.yaml"))}


def folder_of(store: str) -> Path:
    """Return the folder that the dashboard of a store writes its own files to."""
    return Path(DEFAULT if "://" in store else store) / FOLDER


_active: list[Settings] = []


def use(settings: Settings) -> None:
    """Make these the settings of this process."""
    _active[:] = [settings]


def active() -> Settings:
    """Return the settings of this process. Raises RuntimeError before `use`."""
    if not _active:
        raise RuntimeError("the dashboard has no settings; start it with `fa dashboard`")
    return _active[0]
