"""Wake events in the logs of ESPHome devices, as tables to import: detections, and the hours of listening.

One file is one device's log, as `esphome logs` prints it (`[07:31:04][D][micro_wake_word:370]: Detected
…`), or as Home Assistant and other programs pass it on, with the day in front. A log says when a device
woke, and not whether it should have: so there are no outcomes. A device is taken to listen from the first
line of its log to the last.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Final

from clients.fleet.make import require_empty
from fa_core import labels
from fa_core.errors import BadInput
from fa_core.tables import DETECTIONS, FACTS, LISTENING

UNKNOWN: Final = "unknown"
SUFFIXES: Final = (".log", ".txt")

_HOUR: Final = timedelta(hours=1)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_DAY: Final = re.compile(r"^\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6})\d*)?(Z|[+-]\d\d:?\d\d)?")
_CLOCK: Final = re.compile(r"^\[(\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?\]")
_DETECTED: Final = re.compile(r"Detected '([^']+)' with sliding average probability is (\d+\.?\d*)")
_SCORED: Final = re.compile(r"The '([^']+)' model sliding average probability is (\d+\.?\d*)")
_WOKE: Final = re.compile(r"Wake Word '([^']+)' Detected")


@dataclass(frozen=True, slots=True)
class Detection:
    """One time that a device woke. `score` is the mean probability in the log, None where it has none."""

    time: datetime
    wake_word: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Log:
    """What one device's log says: the times of its first and last line, UTC, and its detections."""

    first: datetime
    last: datetime
    detections: tuple[Detection, ...]

    def hours(self) -> Iterator[tuple[datetime, int]]:
        """Yield the start of each hour that the log covers, with the minutes that it covers, 1 to 60."""
        start = self.first.replace(minute=0, second=0, microsecond=0)
        while start <= self.last:
            covered = min(self.last, start + _HOUR) - max(self.first, start)
            yield start, max(1, covered // timedelta(minutes=1))
            start += _HOUR


def read_log(lines: Iterable[str], name: str, zone: tzinfo | None, day: date | None) -> Log | None:
    """Return what a log says, None where no line has a time.

    Args:
        lines: the log. name: what it is called in messages.
        zone: of times that have none of their own.
        day: of the first line, where lines have the time of day alone; a time that falls back by more than an
            hour begins the next day.

    Raises BadInput, by name and line, where a time cannot be known.
    """
    at = first = None
    found: list[Detection] = []
    scores: dict[str, float] = {}
    for number, raw in enumerate(lines, start=1):
        line = _COLOUR.sub("", raw)
        at = _time_of(line, f"{name}:{number}", zone, day, at) or at
        first = first or at
        if match := _SCORED.search(line):
            scores[match[1]] = float(match[2])
        match = _DETECTED.search(line)
        woke = match or _WOKE.search(line)
        if woke:
            if at is None:
                raise BadInput(f"{name}:{number}: a detection before any line has a time")
            word = labels.normal(woke[1])
            if (what := labels.wrong(word)) is not None:
                raise BadInput(f"{name}:{number}: the wake word {what}")
            found.append(Detection(at, word, float(match[2]) if match else scores.pop(woke[1], None)))
    return None if first is None or at is None else Log(first, at, tuple(found))


def _time_of(
    line: str, place: str, zone: tzinfo | None, day: date | None, before: datetime | None
) -> datetime | None:
    """Return the time that a line begins with, UTC; None where it begins with none."""
    if match := _DAY.match(line):
        at = _parsed(match[1], match[2], match[3], place)
        if match[4]:
            return at.replace(tzinfo=datetime.strptime(match[4], "%z").tzinfo).astimezone(UTC)
        if zone is None:
            raise BadInput(
                f"{place}: this time has no zone; say which with --zone, such as Europe/Berlin or UTC"
            )
        return at.replace(tzinfo=zone).astimezone(UTC)
    if match := _CLOCK.match(line):
        if zone is None or day is None:
            raise BadInput(
                f"{place}: this line has the time of day alone; say the first day with --date, and --zone"
            )
        today = day if before is None else before.astimezone(zone).date()
        at = _parsed(today.isoformat(), match[1], match[2], place).replace(tzinfo=zone)
        if before is not None and at < before.astimezone(zone) - _HOUR:
            at += timedelta(days=1)
        return at.astimezone(UTC)
    return None


def _parsed(day: str, clock: str, fraction: str | None, place: str) -> datetime:
    try:
        whole = datetime.combine(date.fromisoformat(day), time.fromisoformat(clock))
    except ValueError:
        raise BadInput(f"{place}: there is no such day or hour") from None
    return whole.replace(microsecond=int((fraction or "0").ljust(6, "0")))


def logs_to_tables(
    source: Path, out: Path, zone: tzinfo | None, day: date | None, model_version: str
) -> dict[str, int]:
    """Write the tables devices, detections and listening of a log, or of a directory of logs, as CSV.

    Each file is a device, named as the file; its facts are `unknown`, to be written over. Returns the rows of
    each table. Raises BadInput where nothing can be read, and writes nothing then.
    """
    require_empty(out)
    files = _files(source)
    logs = {}
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            log = read_log(lines, file.name, zone, day)
        if log is not None:
            logs[file.stem] = log
    if not any(log.detections for log in logs.values()):
        raise BadInput(
            f"{source}: no line says that micro_wake_word detected a wake word; is its log at level DEBUG?"
        )
    same: dict[str, object] = {"model_version": model_version, "snr_db": "", "playback": "false"}
    detections = [
        same
        | {"device_id": name, "time": each.time.isoformat(), "wake_word": each.wake_word}
        | {"score": "" if each.score is None else min(1.0, each.score)}
        for name, log in logs.items()
        for each in log.detections
    ]
    words = sorted({each.wake_word for log in logs.values() for each in log.detections})
    listening = [
        same | {"device_id": name, "time": start.isoformat(), "wake_word": word, "minutes": minutes}
        for name, log in logs.items()
        for word in words
        for start, minutes in log.hours()
    ]
    facts = [name for name, column in FACTS.items() if not column.optional]
    devices = [{"device_id": name} | dict.fromkeys(facts, UNKNOWN) for name in logs]
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "devices.csv", ("device_id", *facts), devices)
    _write(out / "detections.csv", ("device_id", *DETECTIONS.columns), detections)
    _write(out / "listening.csv", ("device_id", *LISTENING.columns), listening)
    return {"devices": len(devices), "detections": len(detections), "listening": len(listening)}


def _files(source: Path) -> Sequence[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise BadInput(f"{source}: no such file or directory")
    files = sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise BadInput(f"{source}: holds no log, {' or '.join(SUFFIXES)}")
    return files


def _write(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
