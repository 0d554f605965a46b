"""Fitting an adapter, its gate and its threshold, on made-up windows: no audio, no model."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.personal import anchors as anchor_sets
from clients.personal import watch
from clients.personal.adapter import Step, Windows, adapted, temporal_shape, windows_of
from clients.personal.anchors import MARGIN, Anchors, level, threshold
from clients.personal.fit import fit
from clients.personal.learn import LARGEST_STEP, Candidate, Refusal, learn, logit
from clients.personal.moments import A_DAY, A_SESSION, A_SOURCE, Moment, countable, decode, encode
from clients.personal.watch import Heard, Verdict
from clients.runtime.detectors import Head, head_scores
from fa_core.errors import BadInput

RANDOM = np.random.default_rng(20261128)
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HEAD = Head("okay_nabu", "embed-1", 0.5, RANDOM.normal(0, 0.01, (16, 96)).astype(np.float32), -1.0)
OWNER = RANDOM.normal(0, 1, 96) / 3
"""Where this owner's wake word lies, that the base does not hear well."""


def clip(base: float, towards: np.ndarray, seed: int) -> Windows:
    random = np.random.default_rng(seed)
    return Windows(base + random.normal(0, 0.3, 3), towards + random.normal(0, 0.3, (3, 96)))


def clips(count: int, base: float, towards: np.ndarray, seed: int) -> tuple[Windows, ...]:
    return tuple(clip(base, towards, seed * 1000 + at) for at in range(count))


ANCHORS = Anchors(clips(40, -3.0, np.zeros(96), 1), clips(40, -1.5, -OWNER / 2, 2), 320.0)
WANTED = clips(10, -0.8, OWNER, 3)


def test_an_adapted_head_has_the_logits_of_its_step() -> None:
    embeddings = RANDOM.normal(0, 30, (40, 96)).astype(np.float32)
    step = Step(RANDOM.normal(0, 0.5, 96), 0.25)
    found = adapted(HEAD, step, 0.4, "embed-1+owner")
    expected = step.logits(windows_of(HEAD, embeddings))
    assert np.allclose(logit_of(head_scores(found, embeddings)), expected, atol=1e-3)
    assert found.threshold == pytest.approx(1 / (1 + np.exp(-0.4)))
    assert np.linalg.norm(temporal_shape(HEAD)) == pytest.approx(1.0)


def logit_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(scores) - np.log1p(-scores)
    return found


def test_too_few_embeddings_have_no_window() -> None:
    assert windows_of(HEAD, np.zeros((15, 96), np.float32)).base.size == 0
    assert windows_of(HEAD, np.zeros((15, 96), np.float32)).peak(1).base.size == 0


def test_the_fit_is_the_minimum_of_its_loss() -> None:
    unwanted = [*ANCHORS.human, *ANCHORS.near]
    step = fit(WANTED, unwanted, penalty=0.1)

    def loss(direction: np.ndarray, bias: float) -> float:
        at = Step(direction, bias)
        sides = [
            np.mean([np.logaddexp(0, -sign * at.logits(each)).mean() for each in some])
            for some, sign in ((WANTED, 1.0), (unwanted, -1.0))
        ]
        return float(sum(sides) + 0.05 * (direction @ direction + bias**2))

    best = loss(step.direction, step.bias)
    assert best < loss(np.zeros(96), 0.0)
    for _ in range(20):
        assert best < loss(step.direction + RANDOM.normal(0, 0.01, 96), step.bias)
    assert best < min(loss(step.direction, step.bias + each) for each in (-0.01, 0.01))


def test_a_moment_has_its_share_of_the_fit_and_no_more() -> None:
    """A clip with three windows weighs what a clip with one does, so length buys no influence."""
    long = replace(WANTED[0], base=np.tile(WANTED[0].base, 9), features=np.tile(WANTED[0].features, (9, 1)))
    unwanted = [*ANCHORS.human, *ANCHORS.near]
    same = fit([long, *WANTED[1:]], unwanted)
    assert np.allclose(same.direction, fit(WANTED, unwanted).direction, atol=1e-6)


def test_an_owner_whom_the_base_misses_is_heard() -> None:
    found = learn(WANTED, [], ANCHORS, 0.0)
    assert isinstance(found, Candidate)
    assert (found.gain.moments, found.gain.base) == (10, 0)
    assert found.gain.adapted >= 8
    unseen = clips(50, -0.8, OWNER, 9)
    assert np.mean([(found.step.logits(each) > found.threshold).any() for each in unseen]) > 0.9
    strangers = clips(200, -3.0, np.zeros(96), 10)
    assert np.mean([(found.step.logits(each) > found.threshold).any() for each in strangers]) < 0.05


def test_the_threshold_is_set_on_what_was_not_learned_from() -> None:
    """On the half that was learned from, it comes out lower: the control that would let more through."""
    learned, unseen = ANCHORS.halves()
    step = fit(WANTED, [*learned.human, *learned.near], penalty=1e-4)
    assert level(step, unseen.human, 0.0) > level(step, learned.human, 0.0)
    assert level(step, unseen.near, 0.0) > level(step, learned.near, 0.0)
    easier = Step(step.direction, step.bias + 9.0)
    peaks = sorted((float(easier.logits(each).max()) for each in (*unseen.human, *unseen.near)), reverse=True)
    assert threshold(easier, unseen, 0.0) == pytest.approx(peaks[0] + MARGIN)
    assert threshold(step, unseen, 0.0) == 0.0  # never under the base's


@pytest.mark.parametrize(
    ("wanted", "before", "refusal"),
    [
        (WANTED[:4], None, Refusal.FEW),
        (clips(10, 3.0, OWNER, 4), None, Refusal.NO_GAIN),
        (clips(10, -8.0, np.zeros(96), 5), None, Refusal.NO_GAIN),
        (WANTED, Step(-OWNER, 0.0), Refusal.TURN),
    ],
)
def test_what_is_refused(wanted: tuple[Windows, ...], before: Step | None, refusal: Refusal) -> None:
    assert learn(wanted, [], ANCHORS, 0.0, before) is refusal


def test_an_unusual_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    close = replace(ANCHORS, near=clips(40, -0.6, OWNER / 4, 2))
    found = learn(WANTED, [], close, 0.0)
    assert isinstance(found, Candidate)
    assert found.step.norm < LARGEST_STEP
    assert found.threshold > 0.5
    monkeypatch.setattr("clients.personal.learn.LARGEST_STEP", found.step.norm * 0.9)
    assert learn(WANTED, [], close, 0.0) is Refusal.STEP
    monkeypatch.undo()
    monkeypatch.setattr("clients.personal.learn.LARGEST_SHIFT", found.threshold * 0.9)
    assert learn(WANTED, [], close, 0.0) is Refusal.ANCHORS


def test_a_moment_that_is_unlike_the_others_is_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = clips(2, -2.0, np.zeros(96), 31)
    alone = learn(WANTED, [], ANCHORS, 0.0)
    found = learn([*WANTED, *strange], [], ANCHORS, 0.0)
    assert isinstance(alone, Candidate)
    assert isinstance(found, Candidate)
    assert (found.gain.moments, found.gain.adapted) == (12, 10)
    assert np.allclose(found.step.direction, alone.step.direction)
    monkeypatch.setattr("clients.personal.learn.LEAST_POSITIVES", 11)  # the control: all are learned from
    led = learn([*WANTED, *strange], [], ANCHORS, 0.0)
    assert isinstance(led, Candidate)
    assert not np.allclose(led.step.direction, alone.step.direction, atol=0.01)


def moment(hours: float, session: str = "", source: str = "retry") -> Moment:
    at = NOW - timedelta(hours=hours)
    return Moment(at, session or f"{hours}", source, WANTED[0])


def test_what_counts_is_capped_by_session_day_and_source() -> None:
    flood = [moment(at / 60, "one") for at in range(200)]
    assert len(countable(flood, NOW)) == A_SESSION
    assert len(countable([moment(at / 60, str(at)) for at in range(200)], NOW)) == A_DAY
    month = [moment(24 * at + 1, source="retry") for at in range(29)]
    assert len(countable(month, NOW)) == A_SOURCE
    mixed = month + [moment(24 * at + 2, source="follow_up") for at in range(29)]
    kept = countable(mixed, NOW)
    assert len(kept) == 2 * A_SOURCE
    assert [each.at for each in kept] == sorted(each.at for each in kept)


def test_old_future_and_doubtful_moments_do_not_count() -> None:
    doubtful = [moment(31 * 24), moment(-1), moment(1, source="silence"), moment(1, source="near_miss")]
    assert countable(doubtful, NOW) == ()
    assert countable([moment(1, source="cancel")], NOW)[0].wanted is False


def test_windows_are_kept_in_few_bytes_and_read_back() -> None:
    data = encode(WANTED[0])
    assert len(data) == 3 * 97 * 2
    assert np.allclose(decode(data).features, WANTED[0].features, atol=2e-3)
    for bad in (b"", data[:-1], data + data, data[:-2] + b"\x00\x7c"):
        with pytest.raises(BadInput):
            decode(bad)


def test_an_anchor_set_is_one_file_of_a_closed_form() -> None:
    named = replace(ANCHORS, wake_word="okay_nabu", base="ab" * 32)
    data = anchor_sets.encode(named)
    found = anchor_sets.decode(data)
    assert (found.wake_word, found.base, found.seconds) == ("okay_nabu", "ab" * 32, 320.0)
    assert (len(found.human), len(found.near)) == (40, 40)
    for one, other in zip((*found.human, *found.near), (*named.human, *named.near), strict=True):
        assert np.allclose(one.features, other.features, atol=2e-3)
        assert np.allclose(one.base, other.base, atol=2e-3)
    spoilt = data[:-2] + b"\x00\x7c"
    spaced = data.replace(b'"near":', b'"near": ')
    for bad in (b"", data[1:], data[:-1], data[: -97 * 2], data + data[-97 * 2 :], spoilt, spaced):
        with pytest.raises(BadInput, match="no anchor set"):
            anchor_sets.decode(bad)
    for changes in ({"base": "AB" * 32}, {"wake_word": ""}, {"near": named.near[:1]}, {"seconds": 0.0}):
        with pytest.raises(BadInput, match="no anchor set"):
            anchor_sets.encode(replace(named, **changes))


def heard(recovered: int, lost: int, same: int, new: int, gone: int, agreed: int) -> list[Heard]:
    """Return calls that only the adapter heard, and only the base; false wakes of both, of only the adapter,
    and of only the base; and calls that both heard. What speaks against the adapter comes first."""
    return [
        *lost * [Heard(wanted=True, base=True, adapted=False)],
        *new * [Heard(wanted=False, base=False, adapted=True)],
        *recovered * [Heard(wanted=True, base=False, adapted=True)],
        *same * [Heard(wanted=False, base=True, adapted=True)],
        *gone * [Heard(wanted=False, base=True, adapted=False)],
        *agreed * [Heard(wanted=True, base=True, adapted=True)],
    ]


def test_a_candidate_waits_acts_or_goes() -> None:
    assert watch.shadow(heard(5, 0, 0, 0, 0, 14)) is Verdict.WAIT
    assert watch.shadow(heard(5, 0, 0, 0, 0, 15)) is Verdict.ACTIVATE
    assert watch.shadow(heard(2, 3, 0, 0, 0, 15)) is Verdict.REVERT
    assert watch.shadow(heard(5, 0, 0, 1, 0, 14)) is Verdict.REVERT
    assert watch.shadow(heard(5, 0, 0, 1, 1, 13)) is Verdict.ACTIVATE


def test_an_adapter_that_acts_goes_when_it_is_significantly_worse() -> None:
    lost = [watch.active(heard(0, count, 0, 0, 0, 0)) for count in range(20)]
    new = [watch.active(heard(0, 0, 0, count, 0, 0)) for count in range(20)]
    assert lost == new
    assert lost.index(Verdict.REVERT) == 9
    assert watch.active(heard(50, 0, 0, 0, 0, 500)) is Verdict.KEEP
    assert watch.active(heard(0, 0, 30, 20, 0, 0)[::-1]) is Verdict.KEEP
    assert watch.active([]) is Verdict.KEEP


def test_what_an_adapter_gained_does_not_outweigh_false_wakes() -> None:
    assert watch.active(heard(500, 0, 0, 9, 0, 0)) is Verdict.REVERT


def test_an_adapter_that_turns_bad_after_months_goes() -> None:
    good, bad = heard(0, 0, 100, 0, 0, 900), heard(0, 0, 0, 30, 0, 0)
    verdicts = [watch.active([*good, *bad[:count]]) for count in range(31)]
    assert verdicts[0] is Verdict.KEEP
    assert verdicts.index(Verdict.REVERT) <= 25


def test_the_mean_of_the_evidence_is_one_where_the_adapter_is_no_worse() -> None:
    """Over all sequences of eight wakes, each as likely: an e-value is no bound without it (Ville)."""
    ends = [
        watch.evidence([Heard(wanted=False, base=base, adapted=True) for base in bases])
        for bases in itertools.product((True, False), repeat=8)
    ]
    assert np.allclose(np.mean(ends, axis=0), 1.0)
    assert np.all(np.diff(watch.evidence(heard(0, 0, 0, 8, 0, 0))) > 0)


def test_a_logit_is_that_of_its_score() -> None:
    assert logit(0.5) == 0.0
    assert logit(0.9) == pytest.approx(2.1972, abs=1e-4)
