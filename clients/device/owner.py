"""What the owner of a device sees and takes away: its state in one value, and its data in plain files."""

import csv
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from clients.device import database, reports
from clients.device.admission import Terms
from clients.device.config import CONFIG, KEY, STORE, DeviceConfig, read_config
from clients.device.consent import PURPOSES, Grant
from clients.device.contribution import Clock, StoredDevice
from clients.device.journal import Entry, Json, sentence
from clients.device.keys import create_key, load_key
from clients.device.odometer import Moment, frees_up, settles, spent
from clients.device.personal import PersonalRecords
from clients.device.policy import ConditionReader, FileReader, nothing_known
from clients.device.records import Records
from clients.device.rows import EPOCH, moment
from clients.device.store import Store
from fa_core.errors import BadInput
from fa_core.privacy.ledger import show
from fa_core.tables import STORED


@dataclass(frozen=True, slots=True)
class DeviceHome:
    """One device's folder, opened: its configuration and its store."""

    folder: Path
    config: DeviceConfig
    store: Store

    @classmethod
    def open(cls, folder: Path, now: datetime) -> Self:
        """Open the device in `folder`. Raises BadInput or Refused, and changes nothing, where it is none."""
        config = read_config(folder / CONFIG)
        database.check_file(folder / STORE)
        key = load_key(config.key.source, folder / KEY, config.name)
        return cls(folder, config, Store.open(folder / STORE, key, config.rules(folder), now))

    @classmethod
    def make(cls, folder: Path, now: datetime) -> Self:
        """Make the store of the device that `folder/device.toml` describes, and open it.

        The key is made as well, unless a key file is there. Raises BadInput where there is a store.
        """
        config = read_config(folder / CONFIG)
        if (folder / STORE).exists():
            raise BadInput(f"there is a store at {folder / STORE} already; it is never made anew")
        there = config.key.source == "file" and (folder / KEY).exists()
        key_of = load_key if there else create_key
        database.create(folder / STORE, key_of(config.key.source, folder / KEY, config.name))
        return cls.open(folder, now)

    def device(self, clock: Clock) -> StoredDevice:
        """Return the device that takes part in rounds. Raises BadInput where it was never enrolled."""
        config = self.config
        terms = Terms(config.device_budget(), config.device_policy(), config.pins())
        return StoredDevice(self.store, terms, Records(self.store).identity(), self.conditions(), clock)

    def conditions(self) -> ConditionReader:
        """Return what reads the conditions of the moment."""
        named = self.config.conditions
        return FileReader(self.folder / named) if named else nothing_known


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a device in plain values; what is stored is reported as counts, to the owner alone.

    Attributes:
        helper: the key, in hexadecimal digits, of the one whose collections it answers; None: of no one's.
        min_kappa: what a plan of two aggregators needs.
        reports: of each open collection, by release: until when, and whether its report was taken back.
    """

    name: str
    consents: dict[str, str | None]
    rows: dict[str, dict[str, int]]
    budget: str
    spent: str
    frees_up: str | None
    contributions: int
    takes_part_from: str | None
    training_budget: str
    training_spent: str
    central_noise: bool
    helper: str | None
    min_kappa: str
    reports: dict[str, str]
    key: str
    enrolled: bool
    journal_entries: int
    journal_head: str


def status(home: DeviceHome, now: datetime) -> Status:
    """Return the state of a device at `now`, as its own clock has it."""
    store, records, config = home.store, Records(home.store), home.config
    budget, pins, seen = config.device_budget(), config.pins(), records.seen()
    grants: dict[str, Grant] = {grant.purpose: grant for grant in store.grants()}
    charges, trained = (
        [charge for charge in records.charges(training=training) if charge.rho] for training in (False, True)
    )
    witnessed = seen.latest or now
    instant = Moment(now, witnessed, witnessed, pins.skew)
    free = frees_up(charges, instant.earliest, pins.skew, budget)
    last = store.last_entry()
    assert last is not None
    return Status(
        name=config.name,
        consents={name: _until(grants.get(name)) for name in PURPOSES},
        rows=store.counts(),
        budget=f"rho {float(budget.rho):.6g} in {budget.window.days} days",
        spent=f"rho {float(spent(charges, instant, budget)):.6g}",
        frees_up=free.isoformat() if free else None,
        contributions=len(records.contributions()),
        takes_part_from=settles(seen.first, pins.skew, budget).isoformat() if seen.first else None,
        training_budget=f"rho {float(budget.training_rho):.6g} in {budget.window.days} days",
        training_spent=f"rho {float(spent(trained, instant, budget)):.6g}",
        central_noise=config.policy.central_noise,
        helper=pins.helper.hex() if pins.helper else None,
        min_kappa=show(config.policy.min_kappa),
        reports=_reports(store, now),
        key=records.key().public_key().public_bytes_raw().hex(),
        enrolled=records.enrolled(),
        journal_entries=last.sequence,
        journal_head=last.hash,
    )


def entry_object(entry: Entry) -> dict[str, Json]:
    """Return an entry as the owner reads it: number, time, kind, sentence and everything it says."""
    return {
        "sequence": entry.sequence,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "sentence": sentence(entry),
        "hash": entry.hash,
        "body": dict(entry.body),
    }


def export(home: DeviceHome, out: Path, donations: list[Json]) -> list[Path]:
    """Write everything that is stored into a new folder, readable by this user alone, as CSV and JSON.

    Args:
        donations: what the store holds of them (`clients.donation.held`), which nothing here reads.

    Raises BadInput where the folder is there already.
    """
    try:
        out.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BadInput(f"{out} is there already; name a new folder") from None
    store = home.store
    said: dict[str, Any] = {
        "facts.json": store.facts(),
        "consents.json": {grant.purpose: _until(grant) for grant in store.grants()},
        "journal.json": [entry_object(entry) for entry in store.entries()],
        "personal.json": _personal(PersonalRecords(store)),
        "donations.json": donations,
        "reports.json": _reports(store, EPOCH),
    }
    written = [_write(out / name, json.dumps(value, indent=2)) for name, value in said.items()]
    return written + [_write_table(store, name, out / f"{name}.csv") for name in STORED]


def _personal(records: PersonalRecords) -> dict[str, Any]:
    """Return what is kept for personalisation; features and deltas as hexadecimal digits."""
    return {
        "moments": [
            {**asdict(each), "at": each.at.isoformat(), "windows": each.windows.hex()}
            for each in records.moments()
        ],
        "deltas": [
            {"number": each.number, "at": each.at.isoformat(), "data": each.data.hex()}
            for each in records.deltas()
        ],
        "in_use": [
            {**asdict(each), "since": each.since.isoformat(), "heard": each.heard.hex()}
            for each in records.all_in_use()
        ],
    }


def _reports(store: Store, now: datetime) -> dict[str, str]:
    """Return what was uploaded to collections that are still open, by release."""
    return {
        each.release.hex(): f"{each.family}, {'kept' if each.report else 'taken back'}, "
        f"until {each.closes.isoformat()}"
        for each in reports.still_open(store.connection, now)
    }


def _until(grant: Grant | None) -> str | None:
    return grant.until.isoformat() if grant else None


def _write(path: Path, text: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return path


def _write_table(store: Store, name: str, path: Path) -> Path:
    columns = list(STORED[name].columns)
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline=""
    ) as file:
        writer = csv.writer(file)
        writer.writerow(["purpose", *columns])
        at = columns.index("time") + 1
        for row in store.rows(name):
            writer.writerow([*row[:at], moment(int(str(row[at]))).isoformat(), *row[at + 1 :]])
    return path
