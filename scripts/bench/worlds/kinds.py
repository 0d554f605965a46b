"""How each kind's devices are drawn, and what is expected of each of them: the numerators and denominators.

The estimand is what the documentation says: of at most so many events or hours of a device, drawn at random,
at most so many false wakes an hour, values inside the clip; an utterance over a cap shrinks as a whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from scripts.bench.worlds.groups import (
    BROKEN_RATE,
    START_US,
    Columns,
    Floats,
    Group,
    Ints,
    Population,
    Traits,
    clock,
    population,
    traits,
)

NOISE_LEVELS: Final = ("noisy", "moderate", "quiet")
SNR_DB: Final = np.array([2.0, 12.0, 25.0])
CLASSES: Final = ("phone", "speaker", "watch")
INTENTS: Final = ("on", "off", "up", "down", "other")
BINS: Final = 10


Draw = Callable[[np.random.Generator, Group, int], Population]


@dataclass(frozen=True)
class Case:
    """A metric kind in a plan, and how its devices are drawn.

    Attributes:
        metric: as a plan writes it.
        draw: returns a population of so many devices.
        total: whether the number shown is the fleet's sum of numerators, not a ratio.
        segments: the segments of the plan beside `accent`; one at most, the second axis of a population.
        group_by: the groupings that are shown.
        privacy: what the plan's section says beside epsilon.
    """

    name: str
    source: str
    metric: Mapping[str, Any]
    draw: Draw
    segments: Mapping[str, Any] = field(default_factory=dict)
    group_by: tuple[tuple[str, ...], ...] = ((), ("accent",))
    total: bool = False
    privacy: Mapping[str, Any] = field(default_factory=dict)


EVENTS: Final = 24
"""Most events of a device, as the plan's `max_events`."""


def draw_rate(rng: np.random.Generator, group: Group, devices: int, most: int = EVENTS) -> Population:
    found = traits(rng, group, devices, most, most / 2.0)
    missed = rng.random(len(found.owner)) < found.rate[found.owner]
    table = "wake_events", {"accepted": ~missed}
    return population(found, table, found.summed(missed), found.summed(np.ones(missed.shape)))


def draw_rate_by_class(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Kinds of device fare alike but for their numbers."""
    found = draw_rate(rng, group, devices)
    kind = rng.choice(3, devices, p=(0.7, 0.25, 0.05))
    mine = (kind[:, None] == np.arange(4))[:, :, None]  # the last is the segment's `other`
    classes = [CLASSES[each] for each in kind]
    return Population(devices, found.tables, mine * found.top, mine * found.bottom, classes)


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
    """Utterances of 30 words, of which a plan counts 10; errors come in threes, so that all stay whole."""
    found = traits(rng, group, devices, 6, 4.0)
    words = np.full(len(found.owner), 30)
    return _utterances(found, words, 3 * rng.binomial(10, found.rate[found.owner]), 10)


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


def draw_weekly(rng: np.random.Generator, group: Group, devices: int) -> Population:
    """Wake events as the weekly plan asks for them, and an hour of listening in which nothing happens."""
    found = draw_rate(rng, group, devices)
    one = found.tables["wake_events"]
    same = {"wake_word": "okay_nabu", "model_version": "micro-1", "playback": False}
    events = {"outcome": np.where(one["accepted"], "true_accept", "false_reject"), **one}
    hours = {"device": np.arange(devices), "time": np.full(devices, START_US)}
    hours["minutes"] = np.full(devices, 60)
    tables = {
        name: {**rows, **{key: np.full(len(rows["time"]), value) for key, value in same.items()}}
        for name, rows in (("wake_events", events), ("listening", hours))
    }
    classes = [CLASSES[each] for each in rng.choice(3, devices, p=(0.7, 0.25, 0.05))]
    return Population(devices, tables, found.top, found.bottom, classes)


BY_NOISE: Final = {"noise": {"event": "snr_db", "edges": [8, 18], "labels": list(NOISE_LEVELS)}}
MISSED: Final = {"kind": "rate", "of": {"accepted": False}, "over": {}, "expect": 0.05}
WORD_ERRORS: Final = {"kind": "ratio", "of": "word_errors", "over": "words", "expect": 0.1}
SCORE_BINS: Final = {"from": 0, "to": 1, "bins": BINS}
CASES: Final = {
    case.name: case
    for case in (
        Case("rate", "wake_events", MISSED, draw_rate),
        Case(
            "rate, 64 events", "wake_events", MISSED, partial(draw_rate, most=64), privacy={"max_events": 64}
        ),
        Case("rate, pure", "wake_events", MISSED, draw_rate, privacy={"accounting": "pure", "delta": 0}),
        Case(
            "rate by class",
            "wake_events",
            MISSED,
            draw_rate_by_class,
            {"device_class": {"device": "device_class", "values": list(CLASSES)}},
            ((), ("accent",), ("accent", "device_class")),
        ),
        Case("rate by noise", "wake_events", MISSED, draw_rate_by_noise, BY_NOISE, ((), ("noise",))),
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
            {**WORD_ERRORS, "max_of": 10, "max_over": 10},
            draw_long_ratio,
            privacy={"max_events": 6},
        ),
        Case(
            "mean",
            "command_events",
            {"kind": "mean", "field": "latency_ms", "clip": {"from": 0, "to": 2000}, "expect": 200},
            draw_mean,
        ),
        Case(
            "count", "command_events", {"kind": "count", "of": {"succeeded": False}}, draw_count, total=True
        ),
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

WEEKLY: Final = Case("weekly", "wake_events", {**MISSED, "expect": 0.3}, draw_weekly)
"""The miss rate of the weekly plan, by itself."""
