"""The detectors: what a stream scores does not depend on how it is cut, and the wake word wakes them."""

from pathlib import Path

import numpy as np
import pytest

from clients.fleet.audio import DEVICE_CLASSES, capture, synthesise
from clients.runtime.detectors import (
    MODELS,
    SAMPLE_RATE,
    Detector,
    Head,
    Pcm,
    accepts,
    head_scores,
    open_detector,
    peak_score,
)
from fa_core.errors import BadInput


@pytest.fixture(params=list(MODELS))
def detector(request: pytest.FixtureRequest) -> Detector:
    return open_detector(request.param, "okay_nabu")


def spoken(text: str, voice: str = "en-us+m3") -> Pcm:
    quiet = np.random.default_rng(3)
    return capture(synthesise(voice, text), DEVICE_CLASSES["phone"], 30.0, quiet, lead_s=1.5)


def test_a_stream_cut_anywhere_gives_the_scores_of_the_whole(detector: Detector) -> None:
    captured = spoken("okay nabu")
    whole = detector.feed(captured)
    detector.reset()
    pieces = np.concatenate(
        [detector.feed(captured[start : start + 777]) for start in range(0, captured.size, 777)]
    )
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_reset_forgets_everything(detector: Detector) -> None:
    captured = spoken("okay nabu")
    first = detector.feed(captured)
    detector.feed(spoken("turn on the light"))
    detector.reset()
    np.testing.assert_allclose(detector.feed(captured), first, atol=1e-5)


def test_one_score_for_each_hop_and_no_structural_zeros(detector: Detector) -> None:
    captured = np.zeros(10 * SAMPLE_RATE, np.int16)
    scores = detector.feed(captured)
    expected = captured.size / detector.hop
    assert expected - 30 < scores.size <= expected
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0


def test_the_wake_word_wakes_and_a_command_does_not(detector: Detector) -> None:
    assert accepts(detector, peak_score(detector, spoken("okay nabu")))
    assert not accepts(detector, peak_score(detector, spoken("what is the weather today")))


def test_a_clip_too_short_for_a_score_scores_nothing(detector: Detector) -> None:
    assert detector.feed(np.zeros(100, np.int16)).shape == (0,)
    assert peak_score(detector, np.zeros(0, np.int16)) == 0.0


def test_the_threshold_itself_does_not_wake(detector: Detector) -> None:
    assert not accepts(detector, detector.threshold)


def test_a_head_survives_its_file(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(16, 96)).astype(np.float32)
    head = Head("okay_nabu", "embed-test", 0.4, weights, -1.5)
    head.save(tmp_path / "head.npz")
    read = Head.load(tmp_path / "head.npz")
    np.testing.assert_array_equal(read.weights, head.weights)
    assert (read.wake_word, read.model_version, read.threshold, read.bias) == (
        "okay_nabu",
        "embed-test",
        0.4,
        -1.5,
    )


def test_head_scores_are_the_logistic_of_the_last_frames() -> None:
    randomness = np.random.default_rng(2)
    head = Head("w", "v", 0.5, randomness.normal(size=(3, 96)).astype(np.float32), 0.25)
    embeddings = randomness.normal(size=(5, 96)).astype(np.float32)
    by_hand = [
        1 / (1 + np.exp(-(np.sum(head.weights.astype(float) * embeddings[i : i + 3]) + 0.25)))
        for i in range(3)
    ]
    np.testing.assert_allclose(head_scores(head, embeddings), by_hand, rtol=1e-9)


def test_unknown_models_and_wake_words_are_named() -> None:
    with pytest.raises(BadInput, match="no detector 'micro-9'; there are: micro-1, embed-1"):
        open_detector("micro-9", "okay_nabu")
    with pytest.raises(BadInput, match="no wake word 'alexa'; it has: okay_nabu"):
        open_detector("embed-1", "alexa")
