"""From a candidate to an adapter that acts, and back: each step is one transaction with the journal's entry.

    candidate → shadow → active → reset
    any of them → nothing: taken back, retired or forgotten, and the delta deleted

Every load checks the delta again. One that is damaged, of another device, or not the one that the journal
names is deleted, and the model acts as it came.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from clients.device.personal import InUse, PersonalRecords
from clients.device.store import Store
from clients.personal import watch
from clients.personal.delta import Delta, decode
from clients.personal.watch import Heard, Verdict
from fa_core.errors import BadInput

ACTS_FOR: Final = timedelta(days=90)
"""After so long an adapter is put aside: the model acts as it came until another is learned and tried out."""

_WANTED, _BASE, _ADAPTED = 1, 2, 4

_DAMAGED: Final = "it was damaged or is not this device's"
_WORSE: Final = "it did not do as well as the model as it came"


@dataclass(frozen=True)
class Adapter:
    """A delta that passed every check, and the stage that it is in."""

    used: InUse
    delta: Delta


def load(store: Store, wake_word: str, now: datetime) -> Adapter | None:
    """Return the adapter in use for a wake word, checked; None where there is none.

    One that does not pass is deleted, and the journal says why.
    """
    used = PersonalRecords(store).in_use(wake_word)
    if used is None:
        return None
    found = checked(PersonalRecords(store), used)
    if isinstance(found, Delta):
        return Adapter(used, found)
    _take_back(store, used, found, now)
    return None


def checked(records: PersonalRecords, used: InUse) -> Delta | str:
    """Return the delta in use, or what is wrong with it."""
    kept = records.delta(used.number)
    if kept is None or not kept.intact:
        return _DAMAGED
    if records.said_in_use(used.wake_word) != (used.number, used.stage):
        return "it is not the one that the journal names"
    try:
        found = decode(kept.data)
    except BadInput:
        return _DAMAGED
    if (found.number, found.wake_word) != (used.number, used.wake_word):
        return "it is of another number or wake word"
    return found


def move_on(store: Store, adapter: Adapter, now: datetime) -> Adapter | None:
    """Have a candidate be heard in shadow from now on, and put aside what acted for its time.

    Returns the adapter in its stage, None where it went meanwhile.
    """
    records, used = PersonalRecords(store), adapter.used
    over = used.stage == "active" and now - used.since >= ACTS_FOR
    if used.stage != "candidate" and not over:
        return adapter
    with store.transaction(now):
        if records.in_use(used.wake_word) != used:
            return None
        records.use(used.wake_word, used.number, "reset" if over else "shadow", now)
        records.say("reset" if over else "shadow", used.wake_word, used.number, "", now)
    moved = records.in_use(used.wake_word)
    return None if moved is None else Adapter(moved, adapter.delta)


def hear(store: Store, wake_word: str, number: int, heard: Heard, now: datetime) -> None:
    """Take in a moment that both heard, and do what follows: wait, activate, keep, or take back.

    To be called in a transaction. A delta that is no longer in use hears nothing.
    """
    records = PersonalRecords(store)
    used = records.in_use(wake_word)
    if used is None or used.number != number or used.stage not in ("shadow", "active"):
        return
    flags = _WANTED * heard.wanted | _BASE * heard.base | _ADAPTED * heard.adapted
    kept = (used.heard + bytes([flags]))[-watch.REMEMBERED :]
    verdict = (watch.shadow if used.stage == "shadow" else watch.active)(heard_of(kept))
    if verdict is Verdict.REVERT:
        records.drop("revert", used, _WORSE, now)
    elif verdict is Verdict.ACTIVATE:
        records.use(wake_word, number, "active", now)
        records.say("activate", wake_word, number, "", now)
    else:
        records.hear(wake_word, kept)


def heard_of(kept: bytes) -> list[Heard]:
    """Return the moments in the bytes that are kept of a stage."""
    return [Heard(bool(each & _WANTED), bool(each & _BASE), bool(each & _ADAPTED)) for each in kept]


def revert(store: Store, wake_word: str, why: str, now: datetime) -> bool:
    """Take back the adapter in use, whatever its bytes are; return whether there was one."""
    used = PersonalRecords(store).in_use(wake_word)
    return used is not None and _take_back(store, used, why, now)


def retire(store: Store, adapter: Adapter, now: datetime) -> bool:
    """Delete an adapter whose base was replaced, with the moments that have the old base's features."""
    records = PersonalRecords(store)
    with store.transaction(now):
        if records.in_use(adapter.used.wake_word) != adapter.used:
            return False
        records.drop("retire", adapter.used, "the model that it changed was replaced", now)
    return True


def _take_back(store: Store, used: InUse, why: str, now: datetime) -> bool:
    records = PersonalRecords(store)
    with store.transaction(now):
        if records.in_use(used.wake_word) != used:
            return False
        records.drop("revert", used, why, now)
    return True
