"""Releases of the engine `local` that a process was collecting when it was killed.

While a process collects, a file says what the release is, and is locked: one that is not locked is of a
process that is gone. It is written before the release is charged, and removed once the store has its end.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

from fa_core.errors import BadInput, RoundFailed
from fa_core.plan import SignedPlan, canonical, from_canonical
from fa_core.rounds.drain import ended
from fa_core.rounds.run import Job
from fa_core.store import Store


@contextmanager
def noted(folder: Path, job: Job, store: Store) -> Iterator[None]:
    """Keep what a release is, in a folder that is made where it is not there, as long as it has no end."""
    folder.mkdir(mode=0o700, exist_ok=True)
    new, file = folder / f"{job.release.hex()}.new", folder / f"{job.release.hex()}.json"
    with new.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(_text(job))
        lock.flush()
        new.replace(file)
        try:
            yield
        finally:
            if _is_over(job, store):
                file.unlink()


def killed(folder: Path, store: Store) -> Iterator[Job]:
    """Yield what processes that are gone were collecting, and forget each once it has its end."""
    for file in sorted(folder.glob("*.json")):
        with file.open("r+", encoding="utf-8") as lock:
            if not _locks(lock):
                continue
            job = _job(file.stem, lock.read())
            if job is not None and not _is_over(job, store):
                yield job
            if job is None or _is_over(job, store):
                file.unlink(missing_ok=True)


def _is_over(job: Job, store: Store) -> bool:
    """Whether a release was not charged, or has its end."""
    if not store.published("ledger", job.release.hex()):
        return True
    try:
        return ended(store, job.release) is not None
    except RoundFailed:
        return True


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(job: Job) -> str:
    said = {
        "plan": canonical(job.plan).decode(),
        "signed": job.signed.text(),
        "population": job.population,
        "until": job.until.isoformat(),
        "engine": job.engine,
        "simulated": job.simulated,
        "synthetic": job.synthetic,
        "nodes": job.nodes,
        "devices": job.devices,
    }
    return json.dumps(said) + "\n"


def _job(release: str, text: str) -> Job | None:
    """Return the job in a file's text, None for one that is not whole: nothing was charged then."""
    try:
        said = json.loads(text)
        job = Job(**said, release=bytes.fromhex(release))
        plan, signed = from_canonical(said["plan"].encode()), SignedPlan.from_text(said["signed"], release)
        return replace(job, plan=plan, signed=signed, until=datetime.fromisoformat(said["until"]))
    except (ValueError, TypeError, KeyError, BadInput):
        return None
