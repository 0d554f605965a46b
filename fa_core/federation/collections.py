"""The sums by two aggregators that a federation is collecting."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fa_core.collection.leader import Tally
from fa_core.federation.directory import Federation
from fa_core.federation.runs import Run, charge_in, drain, entry_of, failure_of, launched, settled
from fa_core.rounds.drain import leading
from fa_core.store import open_store
from fa_core.trust.enrolment import read_hex, read_key


@dataclass(frozen=True, slots=True)
class OpenCollection:
    """A release that is being collected: charged, and without an end.

    Attributes:
        closes: when its window is over, UTC. tally: as the leader's database has it, None where the helper
            has not opened it yet.
    """

    run: Run
    closes: datetime
    tally: Tally | None


def open_collections(federation: Federation) -> list[OpenCollection]:
    """Return the collections that are open, oldest first. Raises BadInput or Unavailable."""
    runs = [run for run in launched(federation) if run.collects and not settled(federation, run).exists()]
    found = []
    if runs:
        with open_store(federation.store) as store:
            for run in runs:
                charge = charge_in(store, run)
                if charge is not None and entry_of(store, run) is None and failure_of(store, run) is None:
                    closes = charge.at.replace(microsecond=0) + timedelta(hours=run.hours)
                    found.append(OpenCollection(run, closes, _tally(federation, run)))
    return found


def _tally(federation: Federation, run: Run) -> Tally | None:
    where, key = federation.leader, federation.leader_key
    if "://" not in where and not Path(where).exists():
        return None
    authority = read_hex(federation.folder / "authority" / "authority.pub")
    with leading(where, read_key(key), authority) as leader:
        signed = leader.opened(bytes.fromhex(run.release))
        return None if signed is None else leader.tally(signed.task.id)


def drain_late(federation: Federation, now: datetime, besides: str = "") -> list[Run]:
    """Have every collection closed whose window is over, by a drain of its own; return their runs.

    So whoever comes first closes it, whatever they came for. One release may be left out, `besides`.

    Raises Unanswered where the SuperLink does not answer.
    """
    late = [each.run for each in open_collections(federation) if each.closes <= now]
    return [drain(federation, run) for run in late if run.release != besides]
