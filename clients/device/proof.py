"""Does the store still say what its journal says? The check behind `fa device verify`.

What it can show: nobody edited, dropped or inserted an entry; what was forgotten is not there; nothing
that was left at the last deletion was changed or removed since without an entry; every contribution has
its receipt and every receipt its charge; the consents in force are those that were given; what was learned
on the device is whole, signed by it and in the stage that the journal names. Anyone with the key could
rewrite the whole journal: a head that the owner wrote down shows that.
"""

from collections.abc import Mapping, Sequence

from clients.device import personal
from clients.device.journal import Entry, Json, broken_at
from clients.device.records import Records
from clients.device.store import Store


def problems(store: Store, head: str | None) -> list[str]:
    """Return what does not hold, as sentences; empty where all does.

    Args:
        head: an entry's hash that the owner wrote down, which must still be in the journal.
    """
    entries = store.entries()
    broken = broken_at(entries)
    if broken is not None:
        return [f"the journal is broken at entry {broken}: it was changed, or entries are missing"]
    found = []
    if head is not None and head not in {entry.hash for entry in entries}:
        found.append("the journal does not hold the entry with this head: its end was cut off or rewritten")
    found += _deleted_rows(store, entries)
    found += _receipts(store, entries)
    found += _consents(store, entries)
    found += personal.problems(store, entries)
    return found


def _deleted_rows(store: Store, entries: Sequence[Entry]) -> list[str]:
    """Check the rows that were left at the last deletion against the root that it wrote down."""
    last = next((entry for entry in reversed(entries) if "root" in entry.body), None)
    if last is None or store.root(_numbers(last.body["upto"])) == last.body["root"]:
        return []
    return [
        f"the rows are not those that entry {last.sequence} left: some were changed, removed or put back "
        "without an entry"
    ]


def _receipts(store: Store, entries: Sequence[Entry]) -> list[str]:
    """Check that contributions and receipts are the same releases at the same cost."""
    receipts = {e.body["release"]: e.body["rho"] for e in entries if e.kind == "contributed"}
    charged = {each.release.hex(): str(each.rho) for each in Records(store).contributions()}
    return [
        f"release {release} has {'no receipt' if release not in receipts else 'a receipt of another charge'}"
        for release in sorted(charged)
        if receipts.get(release) != charged[release]
    ] + [f"release {release} has a receipt and no charge" for release in receipts if release not in charged]


def _consents(store: Store, entries: Sequence[Entry]) -> list[str]:
    """Check that the consents in force are those that the journal says were given and not ended."""
    said: dict[str, Json] = {}
    for entry in entries:
        if entry.kind == "granted":
            said[str(entry.body["purpose"])] = entry.body["until"]
        elif entry.kind == "revoked":
            said.pop(str(entry.body["purpose"]), None)
    held: dict[str, Json] = {grant.purpose: grant.until.isoformat() for grant in store.grants()}
    wrong = sorted(name for name in said.keys() | held.keys() if said.get(name) != held.get(name))
    return [f"the consent to {name} is not as the journal says it was given" for name in wrong]


def _numbers(value: Json) -> Mapping[str, int]:
    assert isinstance(value, dict)
    return {name: number for name, number in value.items() if isinstance(number, int)}
