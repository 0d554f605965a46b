"""Two models hear one stream: one record a moment, whatever their hops and however the stream is split."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.device import database
from clients.device.store import Store
from clients.evaluate import cohort_of_one, rows_in_window, seeded_randomness
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.events import Detection, Listener
from clients.runtime.labels import Reaction, label
from clients.runtime.session import Session
from clients.runtime.shadow import Moment, ShadowListener, ShadowSession, rows
from fa_core.errors import BadInput
from fa_core.layout import bounds_of
from fa_core.metrics import View
from fa_core.plan import Plan, parse
from tests.device.setup import KEY, NOW, RULES

LONG = SAMPLE_RATE * 13
"""Samples of a stream of 13 s."""

LATER = NOW + timedelta(hours=1)

Scores = Mapping[float, float]
"""Score by the second in which a hop that has it begins; 0 elsewhere."""


class Scripted:
    """A detector whose scores are written down beforehand."""

    wake_word, threshold = "okay_nabu", 0.8

    def __init__(self, model_version: str, hop: int, scores: Scores) -> None:
        self.model_version, self.hop = model_version, hop
        self._scores = {int(second * SAMPLE_RATE) // hop: score for second, score in scores.items()}
        self._samples = 0

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        before, self._samples = self._samples // self.hop, self._samples + pcm.size
        return np.array([self._scores.get(at, 0.0) for at in range(before, self._samples // self.hop)])

    def reset(self) -> None:
        self._samples = 0


def acting(scores: Scores) -> Scripted:
    return Scripted("micro-1", 480, scores)


def candidate(scores: Scores) -> Scripted:
    return Scripted("2.1", 1_280, scores)


def moments(old: Scores, new: Scores, piece: int = 4_000) -> list[Moment]:
    listener = ShadowListener(acting(old), candidate(new), NOW)
    found = [each for samples in pieces(piece) for each in listener.feed(samples)]
    return found + listener.finish()[0]


def pieces(size: int) -> Iterator[Pcm]:
    silence = np.zeros(LONG, np.int16)
    for start in range(0, LONG, size):
        yield silence[start : start + size]


def heard(moment: Moment) -> tuple[float, float, bool, float, bool]:
    """Return (second, the acting model's score, whether it woke, the candidate's score, whether it woke)."""
    second = round((moment.acting.time - NOW).total_seconds(), 2)
    old, new = moment.acting, moment.candidate
    return second, old.score, old.accepted, new.score, new.accepted


def written(folder: Path, old: Scores, new: Scores, reactions: Mapping[float, str], piece: int) -> Store:
    """Return the store of a device that heard a stream in shadow."""
    path = folder / f"{piece}.db"
    database.create(path, KEY)
    store = Store.open(path, KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=1), NOW)
    session = ShadowSession(ShadowListener(acting(old), candidate(new), NOW), store, "quality_metrics")
    for second, kind in sorted(reactions.items()):
        session.react(Reaction(NOW + timedelta(seconds=second), kind))  # type: ignore[arg-type]
    for samples in pieces(piece):
        session.feed(samples, NOW)
    session.finish(NOW)
    return store


# One record a moment.


def test_two_models_with_other_hops_and_lags_have_one_moment() -> None:
    (moment,) = moments({3.0: 0.5, 3.3: 0.9}, {3.9: 0.85, 4.5: 0.95})
    assert heard(moment) == (3.0, 0.9, True, 0.95, True)
    assert moment.acting.time == moment.candidate.time
    assert (moment.acting.model_version, moment.candidate.model_version) == ("micro-1", "2.1")


def test_either_model_opens_a_moment_and_the_others_peak_is_its_score() -> None:
    (first, second) = moments({3.0: 0.9, 10.5: 0.1}, {3.5: 0.3, 10.0: 0.9})
    assert heard(first) == (3.0, 0.9, True, 0.3, False)
    assert heard(second) == (10.0, 0.1, False, 0.9, True)
    assert (first.near, second.near) == (True, False)


def test_a_wake_of_either_prolongs_the_moment_once() -> None:
    (moment,) = moments({3.0: 0.5, 4.9: 0.9, 6.7: 0.9}, {6.6: 0.95})
    assert heard(moment) == (3.0, 0.9, True, 0.95, True)
    assert len(moments({3.0: 0.9, 4.9: 0.9, 5.1: 0.9}, {})) == 2


SCORES = st.dictionaries(
    st.integers(0, 129).map(lambda tenth: tenth / 10), st.sampled_from([0.3, 0.4, 0.6, 0.9, 1.0]), max_size=12
)


@given(SCORES)
@settings(max_examples=20, deadline=None)
def test_a_silent_candidate_leaves_the_acting_models_events_as_they_are(scores: Scores) -> None:
    listener = Listener(acting(scores), NOW)
    alone = [each for samples in pieces(4_000) for each in listener.feed(samples)] + listener.finish()[0]
    assert [each.acting for each in moments(scores, {})] == alone


@given(SCORES, SCORES)
@settings(max_examples=20, deadline=None)
def test_moments_have_times_of_their_own_and_scores_are_peaks(old: Scores, new: Scores) -> None:
    found = moments(old, new)
    times = [each.acting.time for each in found]
    assert times == sorted(set(times))
    for scores, peaks in (
        (old, [each.acting.score for each in found]),
        (new, [each.candidate.score for each in found]),
    ):
        assert max(peaks, default=0.0) >= max((each for each in scores.values() if each >= 0.4), default=0.0)
    for each in found:
        assert each.acting.accepted == (each.acting.score > 0.8)
        assert each.candidate.accepted == (each.candidate.score > 0.8)


@given(SCORES, SCORES, st.integers(1_000, 40_000))
@settings(max_examples=20, deadline=None)
def test_how_a_stream_is_split_changes_no_moment(old: Scores, new: Scores, piece: int) -> None:
    assert moments(old, new, piece) == moments(old, new)


def test_models_of_one_version_or_of_two_wake_words_are_no_shadow() -> None:
    other = candidate({})
    other.wake_word = "alexa"
    for wrong in (other, acting({})):
        with pytest.raises(BadInput, match="two versions"):
            ShadowListener(acting({}), wrong, NOW)


# Labels come from what followed for the acting model.


def outcomes(old: float, new: float, followed: str) -> dict[str, list[tuple[str, str | None]]]:
    """Return (version, outcome) of the rows of a moment with these two peaks, by table.

    `followed`: "again" (the acting model then woke), the kind of a reaction, or "" for nothing.
    """
    heard = [
        Detection(NOW, "okay_nabu", version, score, score > 0.8, None, False)
        for version, score in (("micro-1", old), ("2.1", new))
    ]
    again = Detection(NOW + timedelta(seconds=4), "okay_nabu", "micro-1", 0.9, True, None, False)
    reactions = [Reaction(NOW + timedelta(seconds=2), followed)] if followed not in ("", "again") else []  # type: ignore[arg-type]
    found = label(0, [heard[0], *([again] if followed == "again" else [])], reactions)
    table = rows(Moment(heard[0], heard[1], old >= 0.4), found)
    return {
        name: [(str(row["model_version"]), row.get("outcome")) for row in written]  # type: ignore[misc]
        for name, written in table.items()
        if written
    }


@pytest.mark.parametrize(
    ("old", "new", "followed", "expected"),
    [
        (0.9, 0.9, "follow_up", ("true_accept", "true_accept")),
        (0.9, 0.2, "confirmed", ("true_accept", "false_reject")),
        (0.9, 0.9, "cancel", ("false_accept", "false_accept")),
        (0.9, 0.2, "silence", ("false_accept", "true_reject")),
        (0.9, 0.2, "", (None, None)),
        (0.5, 0.9, "again", ("false_reject", "true_accept")),
        (0.1, 0.9, "again", ("false_reject", "true_accept")),
        (0.1, 0.5, "again", ("false_reject", "false_reject")),
        (0.5, 0.1, "again", ("false_reject", "false_reject")),
        (0.5, 0.1, "", ("true_reject", "true_reject")),
    ],
)
def test_both_rows_are_labelled_by_the_reaction_to_the_acting_model(
    old: float, new: float, followed: str, expected: tuple[str | None, str | None]
) -> None:
    labelled = list(zip(("micro-1", "2.1"), expected, strict=True))
    assert outcomes(old, new, followed) == {"wake_events": labelled}


def test_what_the_candidate_alone_heard_is_unknown() -> None:
    assert outcomes(0.1, 0.9, "") == {"detections": [("2.1", None)]}
    near = {"wake_events": [("micro-1", "true_reject")], "detections": [("2.1", None)]}
    assert outcomes(0.5, 0.9, "") == near
    assert outcomes(0.1, 0.5, "") == {}


# What a gate reads of it.

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: gate, revision: 1, owner: us, question: Does the new model miss more?, expires: 2026-12-31}
source: wake_events
window: 7d
group_by: [[]]
metrics:
  miss_difference:
    kind: paired_difference
    of: {outcome: false_reject}
    over: {outcome: [false_reject, true_accept]}
    compare: {baseline: micro-1, candidate: "2.1"}
  unlabelled: {kind: count, source: detections, where: {model_version: "2.1"}}
privacy: {epsilon: 1.0, delta: 1e-8, noise: central, max_events: 64, min_cohort: 3}
"""

HEARD: dict[str, tuple[Scores, Scores, dict[float, str]]] = {
    "both hear it": ({1.0: 0.9}, {1.4: 0.9}, {2.0: "follow_up"}),
    "only the acting model hears it": ({1.0: 0.9}, {1.4: 0.6}, {2.0: "confirmed"}),
    "both are wrong": ({1.0: 0.9}, {1.4: 0.9}, {1.5: "cancel"}),
    "the acting model misses, it is said again": (
        {1.0: 0.2, 5.0: 0.9},
        {1.4: 0.9, 5.4: 0.9},
        {6.0: "follow_up"},
    ),
    "both miss, it is said again": ({1.0: 0.5, 5.0: 0.9}, {1.4: 0.2, 5.4: 0.9}, {6.0: "follow_up"}),
    "only the candidate hears something": ({1.0: 0.3}, {1.4: 0.9}, {}),
    "only the candidate hears, the other nearly": ({1.0: 0.7}, {1.4: 0.9}, {}),
}
"""A stream's scores by each model, and what the person did: then (T, n, U) is known."""


@pytest.mark.parametrize(
    ("what", "expected"),
    zip(HEARD, [(0, 1, 0), (1, 1, 0), (0, 0, 0), (-1, 2, 0), (0, 2, 0), (0, 0, 1), (0, 0, 1)], strict=True),
)
@pytest.mark.parametrize("piece", [LONG, 1_777])
def test_the_gates_sums_are_those_of_the_stream(
    tmp_path: Path, what: str, expected: tuple[int, int, int], piece: int
) -> None:
    store = written(tmp_path, *HEARD[what], piece)
    assert sums(store) == expected


def sums(store: Store) -> tuple[int, int, int]:
    """Return T, n and U as a round of the gate's plan counts them on this device."""
    plan: Plan = parse(PLAN.encode(), "gate.yaml", today=NOW.date(), policy=None)
    tables = {
        name: store.table(name, "quality_metrics", NOW, LATER) for name in ("wake_events", "detections")
    }
    cohort = cohort_of_one({}, tables)
    read = {name: rows_in_window(cohort, name, plan, LATER) for name in tables}
    view = View(1, read, seeded_randomness(1)(cohort))
    pairs = plan.metrics["miss_difference"].units(view, plan.where, bounds_of(plan))["units"].values
    alone = plan.metrics["unlabelled"].units(view, plan.where, bounds_of(plan))
    return (
        int(pairs["count"].sum()),
        int(pairs["size"].sum()),
        sum(len(each.index) for each in alone.values()),
    )


@given(
    SCORES,
    SCORES,
    st.dictionaries(st.floats(0, 13), st.sampled_from(["follow_up", "cancel"]), max_size=6),
    st.integers(1_000, 40_000),
)
@settings(max_examples=15, deadline=None)
def test_how_a_stream_is_split_changes_no_row(
    tmp_path_factory: pytest.TempPathFactory,
    old: Scores,
    new: Scores,
    reactions: dict[float, str],
    piece: int,
) -> None:
    folder = tmp_path_factory.mktemp("split")
    whole, split = (written(folder, old, new, reactions, size) for size in (LONG, piece + 1))
    for table in ("wake_events", "detections", "listening"):
        assert list(split.rows(table)) == list(whole.rows(table))


def test_the_acting_models_rows_in_shadow_are_those_without(tmp_path: Path) -> None:
    """Where the candidate opens no moment of its own."""
    old, new = {1.0: 0.9, 8.0: 0.5, 11.0: 0.9}, {1.4: 0.9, 8.3: 0.2, 11.2: 0.1}
    reactions = {2.0: "follow_up", 12.0: "cancel"}
    shadow = written(tmp_path, old, new, reactions, 1_600)
    path = tmp_path / "alone.db"
    database.create(path, KEY)
    alone = Store.open(path, KEY, RULES, NOW)
    alone.grant("quality_metrics", NOW + timedelta(days=1), NOW)
    session = Session(Listener(acting(old), NOW), alone, "quality_metrics")
    for second, kind in reactions.items():
        session.react(Reaction(NOW + timedelta(seconds=second), kind))  # type: ignore[arg-type]
    for samples in pieces(1_600):
        session.feed(samples, NOW)
    session.finish(NOW)
    assert [row for row in shadow.rows("wake_events") if "micro-1" in row] == list(alone.rows("wake_events"))


def test_a_reaction_to_a_wake_that_is_still_open_is_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    database.create(path, KEY)
    store = Store.open(path, KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=1), NOW)
    session = Session(Listener(acting({1.0: 0.9}), NOW), store, "quality_metrics")
    for number, samples in enumerate(pieces(1_600)):
        session.feed(samples, NOW)
        if number == 15:
            session.react(Reaction(NOW + timedelta(seconds=1.5), "cancel"))
    session.finish(NOW)
    ((*_, outcome, source, _, _),) = store.rows("wake_events")
    assert (outcome, source) == ("false_accept", "cancel")
