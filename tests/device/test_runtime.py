"""The runtime: audio in a ring, frames into events, what happened next into labels."""

import io
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webrtcvad
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.device import database
from clients.device.store import Store
from clients.models import policy
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.events import MINUTE, Detection, Listened, Listener, Minutes
from clients.runtime.labels import Labeller, Reaction, command_row, label
from clients.runtime.policy import FollowedPolicy
from clients.runtime.ring import FRAME, Ring, snr_db
from clients.runtime.session import Session
from clients.runtime.sources import file_pieces, folder_files, stream_pieces
from fa_core.errors import BadInput
from tests.device.setup import KEY, NOW, RULES

HOP = 1_600
"""Samples between two scores of the scripted detector: 0.1 s."""


class Scripted:
    """A detector whose scores are written down beforehand; then it scores 0."""

    wake_word, model_version, threshold, hop = "okay_nabu", "micro-1", 0.8, HOP

    def __init__(self, scores: dict[int, float]) -> None:
        self._scores = scores
        self._samples = 0

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        before, self._samples = self._samples // HOP, self._samples + pcm.size
        return np.array([self._scores.get(index, 0.0) for index in range(before, self._samples // HOP)])

    def reset(self) -> None:
        self._samples = 0


def listen(scores: dict[int, float], seconds: float = 10.0, piece: int = 777) -> list[Detection]:
    """Return the events of a stream whose score at frame i (0.1 s each) is scores[i]."""
    listener = Listener(Scripted(scores), NOW)
    detections: list[Detection] = []
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.int16)
    for start in range(0, samples.size, piece):
        detections += listener.feed(samples[start : start + piece])
    return detections + listener.finish()[0]


def seconds(event: Detection) -> float:
    return round((event.time - NOW).total_seconds(), 2)


# The ring.


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 30))
def test_the_ring_holds_the_newest_samples_and_no_others(pieces: list[int], capacity: int) -> None:
    ring, everything = Ring(capacity / SAMPLE_RATE), np.empty(0, np.int16)
    for size in pieces:
        piece = np.arange(everything.size, everything.size + size, dtype=np.int16)
        everything = np.concatenate([everything, piece])
        ring.push(piece)
    for wanted in (0, 1, capacity, capacity + 5):
        kept = everything[max(0, everything.size - min(wanted, capacity)) :] if wanted else everything[:0]
        assert ring.last(wanted).tolist() == kept.tolist()


def test_a_wiped_ring_holds_nothing() -> None:
    ring = Ring()
    ring.push(np.full(100_000, 7, np.int16))
    ring.wipe()
    assert not ring._samples.any()
    assert ring.last(10).size == 0


def test_noise_level_is_speech_over_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vad:
        def __init__(self, mode: int) -> None:
            self.mode = mode

        def is_speech(self, frame: bytes, rate: int) -> bool:
            return bool(np.abs(np.frombuffer(frame, np.int16)).max() > 500)

    monkeypatch.setattr(webrtcvad, "Vad", Vad)
    sign = np.resize(np.array([1, -1], np.int16), FRAME * 10)
    quiet, loud = 100 * sign, 1000 * sign
    assert snr_db(np.concatenate([quiet, loud])) == pytest.approx(10 * np.log10(99), abs=0.06)
    assert snr_db(quiet) is None
    assert snr_db(loud) is None
    assert snr_db(np.empty(0, np.int16)) is None


# Frames into events.


def test_the_frames_of_one_wake_are_one_event() -> None:
    (event,) = listen({20: 0.85, 21: 0.99, 22: 0.9, 30: 0.95})
    assert (seconds(event), event.score, event.accepted) == (2.0, 0.99, True)


def test_a_second_wake_after_the_refractory_time_is_a_second_event() -> None:
    assert [seconds(event) for event in listen({20: 0.9, 39: 0.9, 40: 0.9})] == [2.0, 4.0]


def test_a_near_miss_is_an_event_that_was_not_accepted() -> None:
    (event,) = listen({20: 0.5, 21: 0.79})
    assert (event.score, event.accepted) == (0.79, False)
    assert listen({20: 0.39}) == []


def test_a_score_at_the_threshold_does_not_wake() -> None:
    assert [event.accepted for event in listen({20: 0.8})] == [False]


def test_a_near_miss_that_grows_into_a_wake_is_one_wake() -> None:
    (event,) = listen({20: 0.5, 39: 0.9, 50: 0.9})
    assert (event.accepted, seconds(event)) == (True, 2.0)


def test_the_open_event_ends_with_the_stream() -> None:
    assert len(listen({99: 0.9})) == 1


@given(st.integers(100, 40_000))
@settings(max_examples=20, deadline=None)
def test_how_a_stream_is_split_does_not_change_its_events(piece: int) -> None:
    scores = {3: 0.5, 20: 0.85, 25: 0.9, 60: 0.6}
    assert listen(scores, piece=piece) == listen(scores)


def test_minutes_listened_are_kept_by_hour_and_playback() -> None:
    listener = Listener(Scripted({}), NOW + timedelta(minutes=58))
    minute = np.zeros(60 * SAMPLE_RATE, np.int16)
    for number in range(6):
        listener.feed(minute, playback=number == 5)
    rows = Minutes().rows(listener.finish()[1])
    assert [(row["time"], row["playback"], row["minutes"]) for row in rows] == [
        (NOW, False, 2),
        (NOW + timedelta(hours=1), False, 3),
        (NOW + timedelta(hours=1), True, 1),
    ]


def test_time_that_is_no_whole_minute_is_carried_on_to_the_next_stream() -> None:
    """A hundred streams of 20 s are 33 minutes, and not none."""
    minutes = Minutes()
    each = Listened(NOW, "okay_nabu", "micro-1", None, False, MINUTE // 3)
    rows = [row for _ in range(100) for row in minutes.rows([each])]
    assert sum(int(str(row["minutes"])) for row in rows) == 33
    other = Listened(NOW, "okay_nabu", "embed-1", None, False, MINUTE // 3)
    assert minutes.rows([other]) == []
    assert sum(int(str(row["minutes"])) for row in minutes.rows([other])) == 1


def test_a_wake_is_known_while_its_episode_is_open_and_told_once() -> None:
    listener = Listener(Scripted({20: 0.5, 22: 0.9, 30: 0.95}), NOW)
    samples = np.zeros(int(2.3 * SAMPLE_RATE), np.int16)
    assert listener.feed(samples) == []
    assert listener.woke == [NOW + timedelta(seconds=2.3)]
    listener.feed(samples)
    assert listener.woke == []


def test_what_was_listened_to_is_said_once() -> None:
    listener = Listener(Scripted({}), NOW)
    listener.feed(np.zeros(2 * MINUTE, np.int16))
    assert [each.samples for each in listener.listened()] == [2 * MINUTE]
    listener.feed(np.zeros(MINUTE, np.int16))
    assert [each.samples for each in listener.finish()[1]] == [MINUTE]


# What happened next.


def detection(at: float, accepted: bool = True) -> Detection:
    return Detection(
        NOW + timedelta(seconds=at), "okay_nabu", "micro-1", 0.9 if accepted else 0.6, accepted, 10.0, False
    )


def labels_of(events: list[Detection], reactions: list[Reaction]) -> list[tuple[str | None, str | None]]:
    found = [label(index, events, reactions) for index in range(len(events))]
    return [(each.outcome, each.source) for each in found]


def reaction(at: float, kind: str) -> Reaction:
    return Reaction(NOW + timedelta(seconds=at), kind)  # type: ignore[arg-type]


def test_a_retry_after_a_near_miss_says_it_was_a_false_reject() -> None:
    assert labels_of([detection(0, False), detection(5)], [reaction(6, "follow_up")]) == [
        ("false_reject", "retry"),
        ("true_accept", "follow_up"),
    ]
    assert labels_of([detection(0, False), detection(7)], [])[0] == ("true_reject", "near_miss")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cancel", ("false_accept", "cancel")),
        ("silence", ("false_accept", "silence")),
        ("follow_up", ("true_accept", "follow_up")),
        ("confirmed", ("true_accept", "explicit")),
        ("denied", ("false_accept", "explicit")),
    ],
)
def test_what_followed_a_wake_labels_it(kind: str, expected: tuple[str, str]) -> None:
    assert labels_of([detection(0)], [reaction(2, kind)]) == [expected]
    assert labels_of([detection(0)], [reaction(9, kind)]) == [(None, None)]
    assert labels_of([detection(0)], [reaction(-1, kind)]) == [(None, None)]


def test_a_reaction_belongs_to_the_last_wake_before_it() -> None:
    assert labels_of([detection(0), detection(3)], [reaction(4, "cancel")]) == [
        (None, None),
        ("false_accept", "cancel"),
    ]


def test_labels_are_given_once_and_only_when_nothing_more_can_follow() -> None:
    labeller = Labeller()
    labeller.add(detection(0, False))
    assert labeller.settle(NOW + timedelta(seconds=7)) == []
    labeller.add(detection(5))
    labeller.react(reaction(6, "cancel"))
    assert [each.outcome for each in labeller.settle(NOW + timedelta(seconds=8))] == ["false_reject"]
    assert [each.source for each in labeller.settle(NOW + timedelta(seconds=30))] == ["cancel"]
    assert labeller.settle(NOW + timedelta(hours=1)) == []


def test_a_correction_says_that_the_intent_was_another() -> None:
    said = {"succeeded": True, "retries": 0, "cancelled": False, "latency_ms": 31.5}
    right = command_row(NOW, "micro-1", "lights_on", None, **said)  # type: ignore[arg-type]
    wrong = command_row(NOW, "micro-1", "lights_on", "lights_off", **said)  # type: ignore[arg-type]
    assert (right["intent_actual"], right["corrected"]) == ("lights_on", False)
    assert (wrong["intent_actual"], wrong["corrected"]) == ("lights_off", True)
    denied = command_row(NOW, "micro-1", "lights_on", None, **said, confirmation="denied")  # type: ignore[arg-type]
    assert (right["confirmation"], denied["confirmation"]) == (None, "denied")


def test_a_session_writes_what_became_of_a_command(tmp_path: Path) -> None:
    database.create(tmp_path / "store.db", KEY)
    store = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=9), NOW)
    session = Session(Listener(Scripted({}), NOW), store, "quality_metrics")
    said = {"succeeded": True, "retries": 0, "cancelled": False, "latency_ms": 31.5}
    session.command(command_row(NOW, "micro-1", "lights_on", "call Ada", **said), NOW)  # type: ignore[arg-type]
    (row,) = store.table("command_events", "quality_metrics", NOW, NOW + timedelta(1)).to_pylist()
    assert (row["intent_predicted"], row["intent_actual"], row["corrected"]) == ("lights_on", "other", True)
    assert session.written == 1


# Where audio comes from.


def test_a_file_and_a_stream_give_the_same_samples(tmp_path: Path) -> None:
    pcm = np.random.default_rng(3).integers(-9000, 9000, 5_001, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE)
    from_file = np.concatenate(list(file_pieces(tmp_path / "a.wav")))
    from_stream = np.concatenate(list(stream_pieces(io.BytesIO(pcm.astype("<i2").tobytes() + b"\x01"))))
    assert from_file.tolist() == from_stream.tolist() == pcm.tolist()


def test_other_rates_channels_and_files_are_refused_by_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fast.wav", np.zeros(10, np.int16), 44_100)
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 2), np.int16), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("la la la")
    for name in ("fast.wav", "wide.wav", "text.wav"):
        with pytest.raises(BadInput, match=name.replace(".", r"\.")):
            list(file_pieces(tmp_path / name))
    with pytest.raises(BadInput, match="no audio file"):
        folder_files(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


# A policy.


def followed(rule: str, detector: Scripted) -> FollowedPolicy:
    return FollowedPolicy(policy.parse(f'{{"rules": [{rule}]}}'.encode()), detector)


def accepted(session: Session, seconds: int, *, playback: bool = False) -> list[bool]:
    samples = np.zeros(seconds * SAMPLE_RATE, np.int16)
    return [each.accepted for each in session.feed(samples, NOW, playback=playback)]


def test_a_policy_raises_the_threshold_while_nobody_interacts(tmp_path: Path) -> None:
    rule = '{"action": "tighter_threshold", "threshold": "0.95", "contexts": ["nobody_interacts"]}'
    database.create(tmp_path / "store.db", KEY)
    store, detector = (
        Store.open(tmp_path / "store.db", KEY, RULES, NOW),
        Scripted({20: 0.9, 120: 0.9, 6_300: 0.9}),
    )
    session = Session(Listener(detector, NOW), store, "quality_metrics", followed(rule, detector))
    assert accepted(session, 5) == [False]  # a near miss
    session.react(Reaction(NOW + timedelta(seconds=6), "confirmed"))
    assert accepted(session, 10) == [True]
    accepted(session, 600)
    assert accepted(session, 30) == [False]
    assert detector.threshold == 0.95
    session.finish(NOW)
    assert detector.threshold == 0.8


def test_a_policy_says_what_is_required_while_it_holds() -> None:
    rule = '{"action": "confirm", "contexts": ["playback", "nobody_interacts"]}'
    found = followed(rule, Scripted({}))
    assert found.required("lights_on", NOW, playback=True) == "confirm"
    assert found.required("lights_on", NOW, playback=False) is None
    found.interacted(NOW)
    assert found.required("lights_on", NOW + timedelta(minutes=9), playback=True) is None
    assert found.required("lights_on", NOW + timedelta(minutes=10), playback=True) == "confirm"
