"""Worlds whose truth is known exactly, made without the estimators' assumptions: the second simulator.

A world is some groups of devices. Each group is a population of some thousand devices with events of their
own, drawn once; a fleet of any size is drawn from the populations with replacement, so what is expected of a
device is the mean over its population, in plain arithmetic and without error. A device's vector comes from the
tables through `device_vectors`, once for every device of the populations; a fleet's sum is the sum of the
vectors of whom it drew. So nothing here knows how a kind counts, and 4,000 fleets of 200,000 devices take
seconds.

Devices differ as in a beta, a two-point or a lognormal distribution; busier devices fare worse; some are
broken. Scores shift and switch modes, an utterance fails as a whole, false wakes come in bursts. No device has
more events than the plan counts: which ones are drawn of more is no matter of the estimates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from clients.evaluate import Cohort, cohort_of_fleet
from fa_core.tables import ARROW_TYPES, SOURCES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spread = Literal["beta", "two_point", "lognormal"]
Columns = dict[str, NDArray[Any]]

UNTIL: Final = datetime(2026, 11, 22, tzinfo=UTC)
START_US: Final = (int(UNTIL.timestamp()) - 7 * 86_400) * 1_000_000
MINUTE_US: Final = 60_000_000

BROKEN_RATE: Final = 0.97
"""How often a broken device misses."""

NOISE_LEVELS: Final = ("noisy", "moderate", "quiet")
SNR_DB: Final = np.array([2.0, 12.0, 25.0])
INTENTS: Final = ("on", "off", "up", "down", "other")
BINS: Final = 10


@dataclass(frozen=True)
class Group:
    """How the devices of one group are.

    Attributes:
        share: of the fleet's devices; 0 where `devices` says how many there are.
        p: mean of the devices' own rates, before busier ones weigh more.
        kappa: two events of a device are as alike as in a beta distribution of a + b = kappa, by their
            correlation 1/(kappa + 1), whatever the distribution is.
        spread: the distribution of the devices' own rates.
        broken: share of the devices whose rate is `BROKEN_RATE`.
        busy: correlation of a device's own rate with its number of events, on the normal scale.
        devices: expected number in a fleet of any size, for a group that is small everywhere.
    """

    share: float
    p: float
    kappa: float = 20.0
    spread: Spread = "beta"
    broken: float = 0.0
    busy: float = 0.5
    devices: int = 0


@dataclass(frozen=True)
class World:
    """Groups by name, and the epsilon of a release there. The last group is the segment's `other`."""

    name: str
    groups: Mapping[str, Group]
    sizes: tuple[int, ...] = (5_000, 50_000, 200_000)
    epsilon: int = 2

    def shares(self, devices: int) -> Floats:
        """Return the share of each group in a fleet of `devices`; the last takes up what is left."""
        found = [group.devices / devices or group.share for group in self.groups.values()]
        return np.array([*found[:-1], 1.0 - sum(found[:-1])])


CALM: Final = {name: Group(0.18, 0.05, 40.0) for name in ("calm-1", "calm-2", "calm-3", "calm-4", "calm-5")}
MIXED: Final = {
    "beta": Group(0.25, 0.04, 20.0),
    "lognormal": Group(0.25, 0.07, 10.0, "lognormal"),
    "two-point": Group(0.20, 0.05, 40.0, "two_point"),
    "small": Group(0.0, 0.12, 8.0, devices=150),
    "wild": Group(0.15, 0.34, 5.0),
    "other": Group(0.0, 0.02, 5.0, "lognormal"),
}
MICROPHONES: Final = {
    "calm-1": Group(0.35, 0.02, 40.0),
    "calm-2": Group(0.30, 0.02, 40.0, "two_point"),
    "broken": Group(0.20, 0.02, 40.0, broken=0.03, busy=0.0),
    "other": Group(0.0, 0.02, 40.0),
}
RARE: Final = {
    "beta": Group(0.45, 0.005, 10.0),
    "lognormal": Group(0.25, 0.005, 20.0, "lognormal"),
    "two-point": Group(0.20, 0.008, 40.0, "two_point"),
    "wild": Group(0.01, 0.10, 3.0),
    "other": Group(0.0, 0.02, 40.0),
}
COMMON: Final = {
    "beta": Group(0.40, 0.45, 3.0),
    "lognormal": Group(0.25, 0.30, 10.0, "lognormal"),
    "two-point": Group(0.15, 0.45, 1.0, "two_point"),
    "small": Group(0.0, 0.45, 3.0, devices=150),
    "other": Group(0.0, 0.20, 40.0),
}
WORLDS: Final = {
    world.name: world
    for world in (
        World("mixed", MIXED),
        World("microphones", MICROPHONES),
        World("rare", RARE),
        World("common", COMMON),
        World("wild-5", {**CALM, "wild": Group(0.04, 0.25, 5.0), "other": Group(0.0, 0.05)}, (10_000,), 4),
        World("wild-1", {**CALM, "wild": Group(0.02, 0.30, 1.0), "other": Group(0.0, 0.05)}, (10_000,), 8),
    )
}
"""Every world by name."""


@dataclass(frozen=True, eq=False)
class Population:
    """Devices of one group: their rows, and what each is expected to add to the numbers that are shown.

    Attributes:
        devices: how many there are, D.
        tables: source name to its columns; `device` is the owner of each row, nondecreasing.
        top, bottom: numerators and denominators, float64 (D, E, C): E event-level groups, C numbers a group.
    """

    devices: int
    tables: Mapping[str, Columns]
    top: Floats
    bottom: Floats

    def cohort(self, accent: str) -> Cohort:
        """Return the devices as the device code sees them, all of one accent."""
        ids = pa.array([f"{accent}/{index}" for index in range(self.devices)])
        facts = pa.table({"device_id": ids, "accent": pa.array([accent] * self.devices)})
        tables = {}
        for source, columns in self.tables.items():
            owner = pa.DictionaryArray.from_arrays(pa.array(columns["device"], pa.int32()), ids)
            arrays = {"device_id": owner}
            for name, values in columns.items():
                if name != "device":
                    arrays[name] = pa.array(values).cast(ARROW_TYPES[SOURCES[source].columns[name].type])
            tables[source] = pa.table(arrays)
        return cohort_of_fleet(facts, tables)


def own_rates(group: Group, score: Floats) -> Floats:
    """Return the devices' own rates at standard normal scores, (D,)."""
    p, variance = group.p, group.p * (1.0 - group.p) / (group.kappa + 1.0)
    if group.spread == "beta":
        a, b = group.kappa * p, group.kappa * (1.0 - p)
        return np.asarray(betaincinv(a, b, ndtr(score)))
    if group.spread == "two_point":
        low = p / 5.0
        high = p + variance / (p - low)
        return np.where(ndtr(score) > 1.0 - (p - low) / (high - low), high, low)
    sigma = np.sqrt(np.log1p(variance / p**2))
    return np.minimum(p * np.exp(sigma * score - sigma**2 / 2.0), 0.98)


@dataclass(frozen=True, eq=False)
class Traits:
    """What each device is like: its own rate and its number of units, and whose each unit is."""

    rate: Floats
    units: Ints
    owner: Ints = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", np.repeat(np.arange(len(self.units)), self.units))

    def summed(self, values: NDArray[Any]) -> Floats:
        """Return Σ of a unit's values (M,) or (M, C) by device, (D, 1) or (D, C)."""
        columns = values.reshape(len(self.owner), -1).astype(np.float64)
        sums = [np.bincount(self.owner, column, len(self.units)) for column in columns.T]
        return np.stack(sums, axis=1)


def traits(rng: np.random.Generator, group: Group, devices: int, most: int, median: float) -> Traits:
    """Draw devices with at most `most` units each, log-normal in number."""
    busy = rng.normal(size=devices)
    score = group.busy * busy + np.sqrt(1.0 - group.busy**2) * rng.normal(size=devices)
    rate = own_rates(group, score)
    rate[: round(group.broken * devices)] = BROKEN_RATE
    units = np.clip(np.exp(np.log(median) + busy), 1, most).astype(np.int64)
    return Traits(rate, units)


def population(found: Traits, table: tuple[str, Columns], top: Floats, bottom: Floats) -> Population:
    """Return a population of one table with no event-level groups."""
    shape = (len(found.units), 1, -1)
    source, columns = table
    return Population(
        len(found.units),
        {source: {**clock(found), **columns}},
        top.reshape(shape),
        np.broadcast_to(bottom, top.shape).reshape(shape),
    )


def clock(found: Traits) -> Columns:
    """Return whose each row is and when it was: a device's rows are a minute apart."""
    first = np.cumsum(found.units) - found.units
    ordinal = np.arange(len(found.owner)) - first[found.owner]
    return {"device": found.owner, "time": START_US + ordinal * MINUTE_US}


Draw = Callable[[np.random.Generator, Group, int], Population]


@dataclass(frozen=True)
class Case:
    """A metric kind in a plan, and how its devices are drawn.

    Attributes:
        metric: as a plan writes it.
        draw: returns a population of so many devices.
        total: whether the number shown is the fleet's sum of numerators, not a ratio.
        privacy: what the plan's section says beside epsilon.
    """

    name: str
    source: str
    metric: Mapping[str, Any]
    draw: Draw
    segments: Mapping[str, Any] = field(default_factory=dict)
    total: bool = False
    privacy: Mapping[str, Any] = field(default_factory=dict)


EVENTS: Final = 24
"""Most events of a device, as the plan's `max_events`."""


def draw_rate(rng: np.random.Generator, group: Group, devices: int) -> Population:
    found = traits(rng, group, devices, EVENTS, 12.0)
    missed = rng.random(len(found.owner)) < found.rate[found.owner]
    table = "wake_events", {"accepted": ~missed}
    return population(found, table, found.summed(missed), found.summed(np.ones(missed.shape)))


def draw_rate_by_noise(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Half of the devices stand in one place for ever; noise makes each worse, its own way."""
    found = traits(rng, group, devices, EVENTS, 12.0)
    place = rng.integers(0, 3, devices)
    moves = rng.random(len(found.owner)) < np.where(rng.random(devices) < 0.5, 0.0, 0.6)[found.owner]
    level = np.where(moves, rng.choice(3, len(found.owner), p=(0.2, 0.5, 0.3)), place[found.owner])
    worse = np.array([1.5, 1.0, 0.6])[level]
    missed = rng.random(len(found.owner)) < np.minimum(found.rate[found.owner] * worse, BROKEN_RATE)
    inside = level[:, None] == np.arange(4)  # the last is the segment's `other`, which nothing falls into
    columns = {**clock(found), "accepted": ~missed, "snr_db": SNR_DB[level]}
    top, bottom = found.summed(missed[:, None] & inside), found.summed(inside)
    return Population(devices, {"wake_events": columns}, top[:, :, None], bottom[:, :, None])


def draw_paired(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """The candidate halves the misses of most devices and doubles those of some; it broke the broken ones."""
    found = traits(rng, group, devices, EVENTS, 12.0)
    broken = found.rate == BROKEN_RATE
    old = np.where(broken, group.p, found.rate)
    new = np.where(rng.random(devices) < 0.7, 0.5 * found.rate, np.minimum(2.0 * found.rate, BROKEN_RATE))
    new[broken] = BROKEN_RATE
    alike = rng.random(len(found.owner)) < 0.6
    first = rng.random(len(found.owner))
    second = np.where(alike, first, rng.random(len(found.owner)))
    missed = np.stack((first < old[found.owner], second < new[found.owner]), axis=1)
    rows = np.repeat(np.arange(len(found.owner)), 2)
    one = clock(found)
    columns = {
        "device": one["device"][rows],
        "time": one["time"][rows],
        "wake_word": np.full(len(rows), "okay_nabu"),
        "model_version": np.tile(np.array(["old", "new"]), len(found.owner)),
        "accepted": ~missed.ravel(),
    }
    top = found.summed(missed[:, 1].astype(np.int64) - missed[:, 0]).reshape(devices, 1, 1)
    bottom = found.summed(np.ones(len(found.owner))).reshape(devices, 1, 1)
    return Population(devices, {"wake_events": columns}, top, bottom)


def draw_ratio(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """An utterance is long or short, log-normal in words, and understood or botched as a whole."""
    found = traits(rng, group, devices, 12, 5.0)
    words = np.clip(np.exp(np.log(7.0) + 0.8 * rng.normal(size=len(found.owner))), 1, 150).astype(np.int64)
    botched = rng.random(len(found.owner)) < found.rate[found.owner]
    errors = rng.binomial(words, np.where(botched, 0.8, 0.3 * found.rate[found.owner]))
    return _utterances(found, words, errors, 32)


def draw_long_ratio(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Utterances of 30 words, of which a plan counts 12."""
    found = traits(rng, group, devices, 6, 4.0)
    words = np.full(len(found.owner), 30)
    return _utterances(found, words, rng.binomial(words, found.rate[found.owner]), 12)


def _utterances(found: Traits, words: Ints, errors: Ints, cap: int) -> Population:
    """An utterance weighs at most `cap` words or errors: both shrink by one factor."""
    factor = np.minimum(1.0, cap / np.maximum(words, errors))
    table = "dictation_events", {"words": words, "word_errors": errors}
    return population(found, table, found.summed(factor * errors), found.summed(factor * words))


def draw_mean(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Latencies, log-normal with a device's own median, one in fifty a time-out far over the clip."""
    found = traits(rng, group, devices, EVENTS, 12.0)
    median = 100.0 + 1_900.0 * found.rate[found.owner]
    value = median * np.exp(0.7 * rng.normal(size=len(found.owner)))
    value = np.where(rng.random(len(value)) < 0.02, 8_000.0, value)
    table = "command_events", {"latency_ms": value}
    return population(
        found, table, found.summed(np.minimum(value, 2_000.0)), found.summed(np.ones(len(value)))
    )


def draw_count(rng: np.random.Generator, group: Group, devices: int) -> Population:
    found = traits(rng, group, devices, EVENTS, 12.0)
    failed = rng.random(len(found.owner)) < found.rate[found.owner]
    table = "command_events", {"succeeded": ~failed}
    return population(found, table, found.summed(failed), np.ones((devices, 1)))


def draw_histogram(rng: np.random.Generator, group: Group, devices: int) -> Population:
    found = traits(rng, group, devices, EVENTS, 12.0)
    score = _scores(rng, found)
    inside = _bins(score)[:, None] == np.arange(BINS)
    table = "wake_events", {"score": score}
    return population(found, table, found.summed(inside), found.summed(np.ones(len(score))))


def _scores(rng: np.random.Generator, found: Traits) -> Floats:
    """Each device switches between a high and a low mode, and all its scores are shifted alike."""
    low = rng.random(len(found.owner)) < found.rate[found.owner]
    shift = 0.08 * rng.standard_t(4, size=len(found.units))[found.owner]
    mode = np.where(low, rng.triangular(0.0, 0.15, 0.5, len(low)), rng.triangular(0.5, 0.85, 1.0, len(low)))
    return np.clip(mode + shift, 0.0, 1.0)


def _bins(score: Floats) -> Ints:
    return np.minimum(np.floor(BINS * score).astype(np.int64), BINS - 1)


def draw_confusion(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Devices use some intents only, and half of them take each for the next, half for none."""
    found = traits(rng, group, devices, EVENTS, 12.0)
    uses = np.array([[0.5, 0.5, 0, 0, 0], [0.2] * 5, [0.05, 0.05, 0.1, 0.1, 0.7], [0, 0, 0.9, 0.1, 0]])
    habit = np.cumsum(uses[rng.integers(0, 4, devices)], axis=1)[found.owner]
    actual = np.minimum((rng.random((len(found.owner), 1)) >= habit).sum(axis=1), len(INTENTS) - 1)
    wrong = rng.random(len(found.owner)) < found.rate[found.owner]
    taken = np.where((rng.random(devices) < 0.5)[found.owner], (actual + 1) % 5, (actual + 4) % 5)
    predicted = np.where(wrong, taken, actual)
    cell = (actual * 5 + predicted)[:, None] == np.arange(25)
    row = np.repeat(actual[:, None] == np.arange(5), 5, axis=1)
    names = np.array(INTENTS)
    table = "command_events", {"intent_actual": names[actual], "intent_predicted": names[predicted]}
    return population(found, table, found.summed(cell), found.summed(row))


HOURS: Final = 24
PER_HOUR: Final = 4


@dataclass(frozen=True, eq=False)
class Listening:
    """Hours of listening and the false wakes in them.

    Attributes:
        found: the devices; a unit is an hour.
        columns: the rows of `listening`.
        minutes: of each hour.
        hour: of each false wake, an index into the hours.
    """

    found: Traits
    columns: Columns
    minutes: Ints
    hour: Ints


def _listening(rng: np.random.Generator, group: Group, devices: int) -> Listening:
    """False wakes at a device's own rate, and bursts: a television that says the word again and again."""
    found = traits(rng, group, devices, HOURS, 14.0)
    minutes = np.where(rng.random(len(found.owner)) < 0.8, 60, rng.integers(5, 60, len(found.owner)))
    rate = np.where(found.rate == BROKEN_RATE, 3.0, found.rate)[found.owner]
    fires = rng.poisson(rate * minutes / 60.0)
    burst = rng.random(len(fires)) < 0.05 * np.minimum(rate, 0.4)
    fires += burst * rng.geometric(0.2, len(fires))
    one = clock(found)
    hour = START_US + (one["time"] - START_US) * 60
    columns = {
        "device": one["device"],
        "time": hour,
        "wake_word": np.full(len(hour), "okay_nabu"),
        "model_version": np.full(len(hour), "1"),
        "playback": np.zeros(len(hour), np.bool_),
        "minutes": minutes,
    }
    return Listening(found, columns, minutes, np.repeat(np.arange(len(fires)), fires))


def _wakes(heard: Listening, outcome: str) -> Columns:
    """Return the false wakes as wake events: a second apart in their hour."""
    ordinal = np.arange(len(heard.hour)) - np.searchsorted(heard.hour, heard.hour)
    rows = {name: heard.columns[name][heard.hour] for name in ("device", "wake_word", "model_version")}
    return {
        **rows,
        "time": heard.columns["time"][heard.hour] + ordinal * 1_000_000,
        "playback": np.zeros(len(heard.hour), np.bool_),
        "outcome": np.full(len(heard.hour), outcome),
    }


def _capped(heard: Listening) -> Floats:
    """Return how much of each false wake counts: an hour has at most `PER_HOUR`, drawn at random."""
    there = np.bincount(heard.hour, minlength=len(heard.minutes))
    return np.minimum(1.0, PER_HOUR / np.maximum(there, 1))[heard.hour]


def draw_rate_per_hour(rng: np.random.Generator, group: Group, devices: int) -> Population:
    heard = _listening(rng, group, devices)
    fires = np.bincount(heard.hour, _capped(heard), len(heard.minutes))
    tables = {"listening": heard.columns, "wake_events": _wakes(heard, "false_accept")}
    top, bottom = heard.found.summed(fires), heard.found.summed(heard.minutes / 60.0)
    return Population(devices, tables, top[:, None], bottom[:, None])


def draw_det(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Scores of what should have fired, and of false wakes: those of one hour all have one score, so that
    it does not matter which of them are drawn."""
    found = traits(rng, group, devices, EVENTS, 12.0)
    score, heard = _scores(rng, found), _listening(rng, group, devices)
    mark = np.clip(rng.beta(1.2, 2.0, len(heard.minutes)), 0.0, 1.0)[heard.hour]
    thresholds = np.arange(1, BINS)
    below = _bins(score)[:, None] < thresholds
    over = (_bins(mark)[:, None] >= thresholds) * _capped(heard)[:, None]
    by_hour = np.stack([np.bincount(heard.hour, each, len(heard.minutes)) for each in over.T], axis=1)
    top = np.concatenate((found.summed(below), heard.found.summed(by_hour)), axis=1)
    ones = np.ones((1, BINS - 1))
    bottom = np.concatenate(
        (found.summed(np.ones(len(score))) * ones, heard.found.summed(heard.minutes / 60.0) * ones), axis=1
    )
    called = {
        **clock(found),
        "wake_word": np.full(len(score), "okay_nabu"),
        "model_version": np.full(len(score), "1"),
        "playback": np.zeros(len(score), np.bool_),
        "outcome": np.full(len(score), "true_accept"),
        "score": score,
    }
    fired = {**_wakes(heard, "false_accept"), "score": mark}
    both = {name: np.concatenate((called[name], fired[name])) for name in called}
    order = np.argsort(both["device"], kind="stable")
    tables = {"listening": heard.columns, "wake_events": {name: both[name][order] for name in both}}
    return Population(devices, tables, top[:, None], bottom[:, None])


BY_NOISE: Final = {"noise": {"event": "snr_db", "edges": [8, 18], "labels": list(NOISE_LEVELS)}}
MISSED: Final = {"kind": "rate", "of": {"accepted": False}, "expect": 0.05}
WORD_ERRORS: Final = {"kind": "ratio", "of": "word_errors", "over": "words", "expect": 0.1}
SCORE_BINS: Final = {"from": 0, "to": 1, "bins": BINS}
CASES: Final = {
    case.name: case
    for case in (
        Case("rate", "wake_events", MISSED, draw_rate),
        Case("rate by noise", "wake_events", MISSED, draw_rate_by_noise, BY_NOISE),
        Case(
            "paired_difference",
            "wake_events",
            {
                "kind": "paired_difference",
                "of": {"accepted": False},
                "compare": {"baseline": "old", "candidate": "new"},
            },
            draw_paired,
        ),
        Case(
            "rate_per_hour",
            "wake_events",
            {"kind": "rate_per_hour", "of": {"outcome": "false_accept"}, "expect": 0.05},
            draw_rate_per_hour,
        ),
        Case("ratio", "dictation_events", WORD_ERRORS, draw_ratio, privacy={"max_events": 12}),
        Case(
            "ratio, 30 words",
            "dictation_events",
            {**WORD_ERRORS, "max_of": 12, "max_over": 12},
            draw_long_ratio,
            privacy={"max_events": 6},
        ),
        Case(
            "mean",
            "command_events",
            {"kind": "mean", "field": "latency_ms", "clip": {"from": 0, "to": 2000}, "expect": 200},
            draw_mean,
        ),
        Case("count", "command_events", {"kind": "count", "of": {"succeeded": False}}, draw_count, total=True),
        Case(
            "histogram",
            "wake_events",
            {"kind": "histogram", "field": "score", "edges": SCORE_BINS},
            draw_histogram,
        ),
        Case(
            "confusion", "command_events", {"kind": "confusion", "labels": list(INTENTS[:-1])}, draw_confusion
        ),
        Case("det", "wake_events", {"kind": "det", "edges": SCORE_BINS}, draw_det),
    )
}
"""Every case by name."""
