"""Which earlier releases a plan could be subtracted from: the store's side of `fa plan preview`."""

import json
from collections.abc import Iterable
from datetime import datetime

from fa_core.plan import Plan, canonical
from fa_core.privacy.differencing import Overlap, Scalar, overlaps, questions
from fa_core.store import Entry, Query, Store

MOST = 500
"""Releases looked at, newest first."""


def earlier(store: Store, plan: Plan, until: datetime, devices: int) -> tuple[Overlap, ...]:
    """Return the earlier releases that count rows which `plan`, run about the window that ends at `until`,
    would count too; the smallest group that such a pair isolates comes first.

    Shares of devices by accent, class and so on are taken from the noised device counts of those releases.
    """
    start = until - plan.window
    entries = store.releases(Query(since=start), MOST)
    documents = {entry.plan_hash: json.loads(store.plan(entry.plan_hash)) for entry in entries}
    old = [
        question
        for entry in entries
        for question in questions(documents[entry.plan_hash], entry.id, entry.window_start, entry.window_end)
    ]
    shares = _shares(store, entries)
    found: list[Overlap] = []
    for new in questions(json.loads(canonical(plan)), "", start, until):
        found += overlaps(new, old, devices, shares)
    return tuple(sorted(found, key=_devices))


def _devices(overlap: Overlap) -> float:
    isolated = overlap.isolated
    return float("inf") if isolated is None or isolated.devices is None else isolated.devices


def _shares(store: Store, entries: Iterable[Entry]) -> dict[tuple[str, Scalar], float]:
    """Return the share of devices with a fact, by the newest release of each plan."""
    shares: dict[tuple[str, Scalar], float] = {}
    newest = {entry.plan: entry for entry in reversed(list(entries))}
    for entry in newest.values():
        segments = json.loads(store.plan(entry.plan_hash))["segments"]
        for result in store.estimates(entry.id).results:
            if len(result.group) != 1 or result.devices is None or not entry.counted:
                continue
            ((name, label),) = result.group
            column = segments[name].get("device")
            if column is not None and label != "other":
                shares.setdefault((column, label), min(1.0, max(0.0, result.devices / entry.counted)))
    return shares
