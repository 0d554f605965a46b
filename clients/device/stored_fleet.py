"""A simulated fleet behind real stores: every device of a fleet directory with its own encrypted file.

Slower than counting straight from the fleet's tables, and the same in every number: this is how the
simulation shows that the path of a deployment (store, consent, policy, budget, receipts) changes nothing.
"""

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa

from clients.device import database
from clients.device.admission import Terms
from clients.device.consent import Purpose
from clients.device.contribution import Clock, StoredDevice
from clients.device.keys import StoreKey, new_key
from clients.device.policy import Conditions
from clients.device.records import Records
from clients.device.store import Rules, Store
from clients.evaluate import Cohort
from fa_core.tables import STORED
from fa_core.trust.enrolment import Authority

READY = Conditions(unmetered_network=True, charging=True, idle=True, speaking=False)


class StoredFleet:
    """The devices of `cohort`, numbered in its order; each is made, filled and enrolled when first asked for.

    Args:
        folder: takes one folder a device; keys stay in memory, so the stores end with the simulation.
        terms: budget, policy and trusted keys of every device.
        authority: enrols them in `population`.
        clock: of every device.
        purpose: what their owners consented to.
    """

    def __init__(
        self,
        folder: Path,
        cohort: Cohort,
        terms: Terms,
        authority: Authority,
        population: str,
        clock: Clock,
        purpose: Purpose = "quality_metrics",
    ) -> None:
        self._folder = folder
        self._cohort = cohort
        self._terms = terms
        self._authority = authority
        self._population = population
        self._clock = clock
        self._purpose: Purpose = purpose
        self._rules = Rules(dict.fromkeys(STORED, timedelta(days=3650)), _labels(cohort))
        self._devices: dict[int, StoredDevice] = {}

    def __len__(self) -> int:
        return len(self._cohort)

    def device(self, number: int) -> StoredDevice:
        """Return device `number`, the same each time."""
        if number not in self._devices:
            self._devices[number] = self._make(number, self._clock.now())
        return self._devices[number]

    def _make(self, number: int, now: datetime) -> StoredDevice:
        folder, key = self._folder / str(number), new_key()
        folder.mkdir(mode=0o700, parents=True)
        store = self._fill(folder / "store.db", key, self._cohort.part(number, number + 1), now)
        records = Records(store)
        with store.transaction(now):
            public = records.key().public_key().public_bytes_raw()
            records.certify(self._authority.certify(public, self._population))
        return StoredDevice(store, self._terms, records.identity(), lambda _: READY, self._clock)

    def _fill(self, path: Path, key: StoreKey, one: Cohort, now: datetime) -> Store:
        """Make a store and insert one device's facts and rows, as a device inserts its own."""
        database.create(path, key)
        store = Store.open(path, key, self._rules, now)
        facts = {name: labels[codes[0]] for name, (codes, labels) in one.facts.items() if codes[0] >= 0}
        store.set_facts(facts, now)
        store.grant(self._purpose, now + timedelta(days=365), now)
        for name, table in one.tables.items():
            store.record(name, table.to_pylist(), self._purpose, now)
        return store


def _labels(cohort: Cohort) -> dict[str, frozenset[str]]:
    """Return for each open label column the labels that the fleet has: a simulation's allow-list."""
    found: dict[str, frozenset[str]] = {}
    for name, table in cohort.tables.items():
        for column, facts in STORED[name].columns.items():
            if facts.type == "label" and facts.domain is None:
                values = pa.chunked_array(table.column(column)).unique().cast(pa.string()).to_pylist()
                found[column] = found.get(column, frozenset()) | {each for each in values if each}
    return found
