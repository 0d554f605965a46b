"""What scores say: misses and false wakes by condition with exact intervals, one model against another. Pure.

A share of clips has the interval of Clopper and Pearson (1934), a rate of events that of the Poisson
distribution (Garwood 1936). Two models on the same clips are compared by those that only one of them misses:
McNemar's exact test (1947), and for the difference of the two shares the difference of exact bounds on each,
at half the level, which holds whatever the two depend on each other. Each clip counts for itself: the
intervals are about clips like these, from these voices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binomtest, chi2

from clients.runtime.detectors import SAMPLE_RATE
from clients.testset.clips import Clip, ControlledSet
from clients.testset.score import Scored, wakes
from fa_core.rollout.controlled import Condition, ControlledResult

TWO_SIDED = 0.95
"""Level of every interval that is shown."""

THRESHOLDS = tuple(float(each) for each in np.round(np.linspace(0.02, 0.98, 49), 2))

EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Rate:
    """A count of what it is out of (clips, or hours), and the interval of the rate."""

    count: int
    out_of: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A candidate against a baseline on the same clips: what only one of the two missed, and the difference
    of the shares of clips that are missed, with its interval and McNemar's exact p-value."""

    baseline_alone: int
    candidate_alone: int
    estimate: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Misses:
    """The clips with the wake word under one condition: each model's misses, the second against the first."""

    condition: str
    models: tuple[Rate, ...]
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class FalseWakes:
    """A programme, or all of them: each model's false wakes an hour."""

    condition: str
    models: tuple[Rate, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A phrase that must not wake a device: of how many clips each model woke."""

    kind: str
    phrase: str
    clips: int
    models: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a model's DET curve: the share of wake clips missed and the false wakes an hour."""

    threshold: float
    missed: float
    per_hour: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is said of one or two models on a set; tuples by model are in their order."""

    misses: tuple[Misses, ...]
    false_wakes: tuple[FalseWakes, ...]
    accepted: tuple[Accepted, ...]
    det: tuple[tuple[Point, ...], ...]


def share(count: int, total: int, level: float = TWO_SIDED) -> tuple[float, float]:
    """Return the exact interval of a share, each bound one-sided at (1 + level) / 2 (Clopper and Pearson)."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return low, high


def per_hour(count: int, hours: float, level: float = TWO_SIDED) -> tuple[float, float]:
    """Return the exact interval of a rate, each bound one-sided at (1 + level) / 2 (Garwood)."""
    tail = (1 - level) / 2
    low = float(chi2.ppf(tail, 2 * count)) / 2 if count else 0.0
    return low / hours, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2 / hours


def more_misses(baseline_alone: int, candidate_alone: int, clips: int, level: float) -> float:
    """Return an upper bound, one-sided at `level`, of how much larger the candidate's share of misses is."""
    return _upper(share(candidate_alone, clips, level), share(baseline_alone, clips, level))


def more_wakes(baseline: int, candidate: int, hours: float, level: float) -> float:
    """Return an upper bound, one-sided at `level`, of how many more false wakes an hour the candidate has."""
    return _upper(per_hour(candidate, hours, level), per_hour(baseline, hours, level))


def _upper(candidate: tuple[float, float], baseline: tuple[float, float]) -> float:
    # Each bound fails with (1 − level) / 2 at most, so both hold with `level` at least.
    return candidate[1] - baseline[0]


def report(tested: ControlledSet, scored: Sequence[Scored]) -> Report:
    """Return what one or two models did on a set, by condition."""
    return Report(
        tuple(_misses(name, clips, scored) for name, clips in conditions(tested)),
        tuple(_false_wakes(name, parts, scored) for name, parts in streams(scored)),
        tuple(_accepted(tested, scored)),
        tuple(_det(tested, each) for each in scored),
    )


def result(tested: ControlledSet, baseline: Scored, candidate: Scored) -> ControlledResult:
    """Return the record that a rollout names: everything, each accent and each programme against the margins.

    All of them must be passed, so each is judged at the recipe's level.
    """
    margins = tested.recipe.margins
    found = [
        _missed_condition(name, clips, baseline, candidate, margins.level)
        for name, clips in conditions(tested)
        if name == EVERYTHING or name.startswith("accent ")
    ]
    found += [
        _stream_condition(name, parts, baseline, candidate, margins.level)
        for name, parts in streams((baseline, candidate))
    ]
    return ControlledResult(
        tested.hash,
        tested.recipe.wake_word,
        baseline.sha256,
        candidate.sha256,
        margins.level,
        margins.misses_below,
        margins.false_wakes_below,
        tuple(found),
        baseline.bases,
        candidate.bases,
    )


def conditions(tested: ControlledSet) -> Iterator[tuple[str, tuple[Clip, ...]]]:
    """Yield each condition's name and its clips with the wake word: everything, accents, rooms and so on."""
    clips = tuple(each for each in tested.clips if each.kind == "wake")
    if not clips:
        return
    yield EVERYTHING, clips
    kinds = (
        ("accent", lambda clip: clip.accent),
        ("room", lambda clip: clip.room),
        ("noise", lambda clip: clip.noise),
        ("SNR", lambda clip: f"{clip.snr_db:g} dB"),
        ("phrase", lambda clip: clip.text),
    )
    for kind, of in kinds:
        names = dict.fromkeys(of(each) for each in clips)
        if kind == "accent" or len(names) > 1:
            yield from ((f"{kind} {name}", tuple(e for e in clips if of(e) == name)) for name in names)


def streams(scored: Sequence[Scored]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each programme's name and the streams that belong to it; of several, everything first."""
    names = tuple(scored[0].streams)
    if len(names) > 1:
        yield "every programme", names
    yield from ((f"programme {name}", (name,)) for name in names)


def _misses(name: str, clips: Sequence[Clip], scored: Sequence[Scored]) -> Misses:
    missed = [sum(not each.accepts(clip) for clip in clips) for each in scored]
    rates = tuple(Rate(count, len(clips), *share(count, len(clips))) for count in missed)
    return Misses(name, rates, _difference(clips, *scored) if len(scored) == 2 else None)


def _difference(clips: Sequence[Clip], baseline: Scored, candidate: Scored) -> Difference:
    old, new = _alone(clips, baseline, candidate)
    n, level = len(clips), (1 + TWO_SIDED) / 2
    p = float(binomtest(new, old + new, 0.5).pvalue) if old + new else 1.0
    low, high = -more_misses(new, old, n, level), more_misses(old, new, n, level)
    return Difference(old, new, (new - old) / n, low, high, p)


def _alone(clips: Sequence[Clip], baseline: Scored, candidate: Scored) -> tuple[int, int]:
    """Return how many clips only the baseline missed, and how many only the candidate."""
    heard = [(baseline.accepts(clip), candidate.accepts(clip)) for clip in clips]
    return sum(new and not old for old, new in heard), sum(old and not new for old, new in heard)


def _hours(parts: Sequence[str], scored: Scored) -> float:
    return sum(scored.streams[part].size for part in parts) * scored.hop / SAMPLE_RATE / 3_600


def _wakes(parts: Sequence[str], scored: Scored, threshold: float | None = None) -> int:
    limit = scored.threshold if threshold is None else threshold
    return sum(wakes(scored.streams[part], scored.hop, limit) for part in parts)


def _false_wakes(name: str, parts: Sequence[str], scored: Sequence[Scored]) -> FalseWakes:
    rates = []
    for each in scored:
        count, hours = _wakes(parts, each), _hours(parts, each)
        rates.append(Rate(count, hours, *per_hour(count, hours)))
    return FalseWakes(name, tuple(rates))


def _accepted(tested: ControlledSet, scored: Sequence[Scored]) -> Iterator[Accepted]:
    for kind in ("near_miss", "phrase"):
        clips = [each for each in tested.clips if each.kind == kind]
        for text in dict.fromkeys(each.text for each in clips):
            said = [each for each in clips if each.text == text]
            woke = tuple(sum(model.accepts(clip) for clip in said) for model in scored)
            yield Accepted(kind.replace("_", " "), text, len(said), woke)


def _det(tested: ControlledSet, scored: Scored) -> tuple[Point, ...]:
    """Return the DET points at fixed thresholds; none where the set has no wake word or no programme."""
    peaks = np.array([scored.peaks[each.file] for each in tested.clips if each.kind == "wake"])
    parts = tuple(scored.streams)
    if not (peaks.size and parts):
        return ()
    hours = _hours(parts, scored)
    return tuple(
        Point(each, float((peaks <= each).mean()), _wakes(parts, scored, each) / hours) for each in THRESHOLDS
    )


def _missed_condition(
    name: str, clips: Sequence[Clip], baseline: Scored, candidate: Scored, level: float
) -> Condition:
    old, new = _alone(clips, baseline, candidate)
    bound = more_misses(old, new, len(clips), level)
    return Condition(name, len(clips), old, new, 0.0, 0, 0, bound, None)


def _stream_condition(
    name: str, parts: Sequence[str], baseline: Scored, candidate: Scored, level: float
) -> Condition:
    old, new = _wakes(parts, baseline), _wakes(parts, candidate)
    hours = min(_hours(parts, baseline), _hours(parts, candidate))
    return Condition(name, 0, 0, 0, hours, old, new, None, more_wakes(old, new, hours, level))
