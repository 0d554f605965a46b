"""Draw the events of a fleet from the bank, and say what was to be expected of them.

Everything a device records comes from an utterance of the bank, with the scores it really got. What is drawn
is who speaks when, in which noise, which take of it, and whether the device judged rightly what was meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.fleet.bank import MODEL_VERSIONS, SNR_LEVELS, thresholds
from clients.fleet.habits import (
    CLASSES,
    HABITS,
    RHYTHM,
    Devices,
    Hours,
    draw_devices,
    draw_hours,
    draw_speaker,
    share_of_week,
)
from clients.fleet.voices import ACCENTS, VARIANTS
from fa_core.errors import BadInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEAR_MISSES_AN_HOUR = 0.4
"""Sentences like the wake word said at home, in an average hour."""
HUMAN_SEGMENTS_AN_HOUR = 4.0
"""Stretches of 8 s of other speech captured in an hour."""
TELEVISION_LINES_AN_HOUR = 5.0
"""Lines of the game show that begin with "Okay"."""
NEAR_MISS_SHARE = 0.7
"""Speech that was not meant is recorded where a detector gives this share of its threshold, or more."""

WAKE_MISJUDGED = 0.02
"""How often a device takes speech that was meant for speech that was not,"""
OTHER_MISJUDGED = 0.01
"""and the other way round. Both models' rows of an utterance share the judgement."""

COMMAND_AFTER_WAKE = 0.8
CORRECTED = (0.60, 0.01)
"""How often people correct a command that was misunderstood, and one that was not."""
SUCCEEDED = (0.05, 0.98)
CANCELLED = (0.25, 0.02)
RETRIES = (0.80, 0.03)
"""Mean number of retries."""
ASKED_INTENTS = ("lock_door", "turn_off")
"""Commands that a policy has the device ask about before it carries them out."""
DENIED = (0.70, 0.03)
"""How often people deny a command that was misunderstood when asked about it, and one that was not."""
UNANSWERED = 0.10
DICTATION_CORRECTED = (0.50, 0.01)
"""How often people correct a dictation with errors, and one without."""


class Cells:
    """Rows of the bank by the categories they were scored in; draws and means by category."""

    def __init__(self, coordinates: Sequence[Ints], shape: tuple[int, ...], rows: Ints) -> None:
        cell = np.ravel_multi_index(tuple(coordinates), shape) if rows.size else rows
        self._shape = shape
        self._rows = rows[np.argsort(cell, kind="stable")]
        self._cell = np.sort(cell)
        self._count = np.bincount(cell, minlength=int(np.prod(shape)))
        self._start = np.cumsum(self._count) - self._count

    def pick(self, coordinates: Sequence[Ints], randomness: np.random.Generator) -> Ints:
        """Draw a bank row from each of these cells, none of which may be empty."""
        cell = np.ravel_multi_index(tuple(coordinates), self._shape)
        picked: Ints = self._rows[self._start[cell] + randomness.integers(self._count[cell])]
        return picked

    def mean(self, values: Floats | Bools) -> Floats:
        """Return the mean over each cell of a bank column, shaped as the cells; 0 where a cell is empty."""
        total = np.bincount(self._cell, values[self._rows], self._count.size)
        return (total / np.maximum(self._count, 1)).reshape(self._shape)

    @property
    def complete(self) -> bool:
        """Whether no cell is empty."""
        return bool(self._count.all())


@dataclass(frozen=True)
class Judged:
    """Two other models on the bank's rows, in place of A and B; the first is live.

    Attributes:
        versions, thresholds: two of each.
        scores: float64 (2, R, accents): of each row of the bank, as devices of each accent score it.
    """

    versions: tuple[str, str]
    thresholds: tuple[float, float]
    scores: Floats


class Bank:
    """The bank's columns as arrays, and its rows by cell for every kind of utterance.

    `scores` and `accepts` are (2, R, accents): of model, row, and the accent of the device that hears it.
    """

    def __init__(self, table: pa.Table, judged: Judged | None = None) -> None:
        two = judged or _detectors(table)
        self.versions, self.thresholds, self.scores = two.versions, two.thresholds, two.scores
        limits = np.array(self.thresholds)[:, None, None]
        self.accepts: Bools = np.asarray(self.scores > limits)
        self.recorded: Bools = np.any(self.scores >= NEAR_MISS_SHARE * limits, axis=(0, 2))
        self.intents = tuple(sorted(set(table["intent_actual"].drop_null().to_pylist())))
        self.predicted = tuple(sorted(set(table["intent_predicted"].drop_null().to_pylist())))
        self.intent_actual = _codes(table["intent_actual"], self.intents)
        self.intent_predicted = _codes(table["intent_predicted"], self.predicted)
        self.understood = table["intent_actual"].to_numpy() == table["intent_predicted"].to_numpy()
        self.decode_ms = table["decode_ms"].to_numpy()
        self.words = table["words"].fill_null(0).to_numpy().astype(np.int64)
        self.word_errors = table["word_errors"].fill_null(0).to_numpy().astype(np.int64)
        kind = table["kind"].to_numpy()
        accent = _codes(table["accent"], tuple(a.label for a in ACCENTS))
        speaker = table["speaker"].to_numpy().astype(np.int64)
        device = _codes(table["device_class"], CLASSES)
        noise = np.array([SNR_LEVELS.index(snr) for snr in table["snr_db"].to_pylist()], np.int64)
        accents, speakers, devices, noises = len(ACCENTS), len(VARIANTS), len(CLASSES), len(SNR_LEVELS)

        def cells(wanted: Bools, *axes: tuple[Ints, int]) -> Cells:
            rows = np.flatnonzero(wanted)
            return Cells([codes[rows] for codes, _ in axes], tuple(size for _, size in axes), rows)

        by_accent, by_noise, by_device = (accent, accents), (noise, noises), (device, devices)
        self.wakes = cells(kind == "wake", by_accent, (speaker, speakers), by_device, by_noise)
        self.commands = cells(kind == "command", by_accent, by_device, by_noise)
        self.dictations = cells(kind == "dictation", by_accent, by_device, by_noise)
        self.others = {
            name: (cells(kind == name, *axes), cells((kind == name) & self.recorded, *axes))
            for name, axes in {
                "near_miss": (by_accent, by_noise),
                "human": (by_noise,),
                "television": (by_noise,),
            }.items()
        }
        whole = (self.wakes, self.commands, self.dictations, *(every for every, _ in self.others.values()))
        if not all(found.complete for found in whole):
            raise BadInput(
                "this bank lacks utterances that a fleet is drawn from; remove it to have it built again"
            )


def _detectors(table: pa.Table) -> Judged:
    """Return the detectors that the bank was scored by: every device has the same."""
    limits = [thresholds(table)[model] for model in MODEL_VERSIONS]
    scores = np.stack([table[name].to_numpy() for name in ("score_a", "score_b")])
    shape = (*scores.shape, len(ACCENTS))
    whole = np.broadcast_to(scores[:, :, None], shape)
    return Judged((MODEL_VERSIONS[0], MODEL_VERSIONS[1]), (limits[0], limits[1]), whole)


def _codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> Ints:
    """Return each value's place in `names`; -1 for a value that is missing or not there."""
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(value, -1) for value in column.to_pylist()], np.int64)


@dataclass(frozen=True)
class Events:
    """What was recorded: E utterances, ordered by device and time."""

    row: Ints
    """The listening hour it fell into, as a place in `Hours`."""
    microsecond: Ints
    """Since the start of that hour."""
    bank: Ints
    meant: Bools
    """Whether somebody meant to wake the device."""
    judged_meant: Bools


@dataclass(frozen=True)
class Expected:
    """What the model A or B was expected to give in each listening hour: counts by outcome, (R,) each."""

    true_accept: Floats
    false_reject: Floats
    false_accept: Floats
    true_reject: Floats


@dataclass(frozen=True)
class Drawn:
    """One draw: the owners, their hours, what happened, and what was expected."""

    devices: Devices
    hours: Hours
    wakes: Ints
    """How often somebody meant to wake the device in each listening hour, (R,)."""
    events: Events
    expected: tuple[Expected, Expected]
    """For A and for B, given `wakes`; the exposure to other speech is Poisson."""
    command_events: Events
    dictation_events: Events


def draw(
    bank: Bank, count: int, weeks: int, randomness: np.random.Generator, television_weeks: int = 1
) -> Drawn:
    """Draw `count` devices and their weeks. The same bank and seed give the same draw."""
    devices = draw_devices(count, randomness)
    hours = draw_hours(devices, weeks, randomness, television_weeks)
    week = share_of_week(devices, hours)
    wakes = randomness.poisson(devices.wakes_a_week[hours.device] * week)
    exposures = _exposures(devices, hours)
    events = _draw_events(bank, devices, hours, wakes, exposures, randomness)
    dictations = randomness.poisson(devices.dictations_a_week[hours.device] * week)
    expected = tuple(_expect(bank, model, devices, hours, wakes, exposures) for model in (0, 1))
    return Drawn(
        devices=devices,
        hours=hours,
        wakes=wakes,
        events=events,
        expected=(expected[0], expected[1]),
        command_events=_draw_commands(bank, devices, hours, events, randomness),
        dictation_events=_draw_dictations(bank, devices, hours, dictations, randomness),
    )


def place(devices: Devices, hours: Hours, row: Ints) -> tuple[Ints, Ints, Ints]:
    """Return (accent, device class, noise) of listening hours: the cells of commands and dictation."""
    device = hours.device[row]
    return devices.accent[device], devices.device_class[device], hours.environment[row]


def _exposures(devices: Devices, hours: Hours) -> dict[str, tuple[Floats, tuple[Ints, ...]]]:
    """Return, for each kind of speech not meant, its mean number in each hour and the cells it comes from."""
    listened = hours.minutes / 60.0
    near = NEAR_MISSES_AN_HOUR * listened * RHYTHM[hours.hour % 24] / RHYTHM.mean()
    return {
        "near_miss": (near, (devices.accent[hours.device], hours.environment)),
        "human": (HUMAN_SEGMENTS_AN_HOUR * listened, (hours.environment,)),
        "television": (TELEVISION_LINES_AN_HOUR * hours.television, (hours.environment,)),
    }


def _draw_events(
    bank: Bank,
    devices: Devices,
    hours: Hours,
    wakes: Ints,
    exposures: dict[str, tuple[Floats, tuple[Ints, ...]]],
    randomness: np.random.Generator,
) -> Events:
    row = np.repeat(np.arange(wakes.size), wakes)
    device = hours.device[row]
    speaker = draw_speaker(devices, device, randomness)
    cell = (devices.accent[device], speaker, devices.device_class[device], hours.environment[row])
    rows, picks, meant = [row], [bank.wakes.pick(cell, randomness)], [np.ones(row.size, np.bool_)]
    for name, (mean, axes) in exposures.items():
        every, recorded = bank.others[name]
        extra = np.repeat(np.arange(mean.size), randomness.poisson(mean * every.mean(bank.recorded)[axes]))
        rows.append(extra)
        picks.append(recorded.pick([axis[extra] for axis in axes], randomness))
        meant.append(np.zeros(extra.size, np.bool_))
    return _in_order(hours, np.concatenate(rows), np.concatenate(picks), np.concatenate(meant), randomness)


def _in_order(hours: Hours, row: Ints, picked: Ints, meant: Bools, randomness: np.random.Generator) -> Events:
    """Give every event its moment within the listened minutes and its judgement; sort by device and time."""
    moment = (randomness.random(row.size) * (hours.minutes[row] * 60_000_000 - 5_000_000)).astype(np.int64)
    wrong = randomness.random(row.size) < np.where(meant, WAKE_MISJUDGED, OTHER_MISJUDGED)
    order = np.lexsort((moment, row))
    return Events(row[order], moment[order], picked[order], meant[order], (meant ^ wrong)[order])


def _expect(
    bank: Bank,
    model: int,
    devices: Devices,
    hours: Hours,
    wakes: Ints,
    exposures: dict[str, tuple[Floats, tuple[Ints, ...]]],
) -> Expected:
    heard, everywhere = bank.accepts[model], range(len(ACCENTS))
    said = np.stack([bank.wakes.mean(heard[:, accent])[accent] for accent in everywhere])
    rate = said[devices.accent, :, devices.device_class]
    accepts = np.einsum("ds,dsn->dn", devices.speakers, rate)[hours.device, hours.environment]
    own = devices.accent[hours.device]
    hit, missed = wakes * accepts, wakes * (1.0 - accepts)
    fired, near = np.zeros(wakes.size), np.zeros(wakes.size)
    for name, (mean, axes) in exposures.items():
        every, _ = bank.others[name]
        woken = np.stack([every.mean(heard[:, accent]) for accent in everywhere])
        short = np.stack([every.mean(bank.recorded & ~heard[:, accent]) for accent in everywhere])
        fired += mean * woken[(own, *axes)]
        near += mean * short[(own, *axes)]
    return Expected(
        true_accept=(1 - WAKE_MISJUDGED) * hit + OTHER_MISJUDGED * fired,
        false_reject=(1 - WAKE_MISJUDGED) * missed + OTHER_MISJUDGED * near,
        false_accept=WAKE_MISJUDGED * hit + (1 - OTHER_MISJUDGED) * fired,
        true_reject=WAKE_MISJUDGED * missed + (1 - OTHER_MISJUDGED) * near,
    )


def _draw_commands(
    bank: Bank, devices: Devices, hours: Hours, events: Events, randomness: np.random.Generator
) -> Events:
    """A command follows, two seconds later, most intended wakes that A, the live model, accepted."""
    follows = events.meant & bank.accepts[0, events.bank, devices.accent[hours.device[events.row]]]
    follows &= randomness.random(follows.size) < COMMAND_AFTER_WAKE
    row = events.row[follows]
    picked = bank.commands.pick(place(devices, hours, row), randomness)
    moment = events.microsecond[follows] + 2_000_000
    return Events(row, moment, picked, events.meant[follows], events.judged_meant[follows])


def _draw_dictations(
    bank: Bank, devices: Devices, hours: Hours, counts: Ints, randomness: np.random.Generator
) -> Events:
    row = np.repeat(np.arange(counts.size), counts)
    picked = bank.dictations.pick(place(devices, hours, row), randomness)
    return _in_order(hours, row, picked, np.ones(row.size, np.bool_), randomness)


def slowness(devices: Devices, device: Ints) -> Floats:
    """Return how much longer than on the bank's machine the recogniser takes on each of these devices."""
    return np.array([HABITS[name].slowness for name in CLASSES])[devices.device_class[device]]
