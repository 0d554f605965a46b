"""The bench of adapters in a tiny form: on made-up embeddings from its cache, so that nothing is spoken."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clients.fleet.audio import HUMAN_SPEECH
from clients.personal.adapter import Step
from clients.personal.watch import Heard, Verdict, active
from clients.runtime.detectors import EmbeddingStream
from scripts.bench import personal
from scripts.bench.personal_voices import choose, hours, people, speakers
from scripts.bench.personal_voices.embedding import embeddings
from scripts.bench.personal_voices.hours import Speech
from scripts.bench.personal_voices.speakers import Clip, Recorded, Said, Spoken, embed
from scripts.bench.personal_voices.speech import Stream, recordings
from scripts.bench.personal_voices.watching import sign_test
from tests.bench.running import run

FRAMES = 24
"""Nine windows a clip."""


def made_up(key: str, wake: bool) -> np.ndarray:
    """Embeddings of a clip: noise, and for the wake word what the base does not know."""
    random = np.random.default_rng([wake, *key.encode()])
    towards = 12.0 * np.random.default_rng(5).normal(size=96)
    return (random.normal(0, 10, (FRAMES, 96)) + wake * towards).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    segments = tuple(Recorded(HUMAN_SPEECH, number) for number in range(120))
    monkeypatch.setattr("scripts.bench.personal_voices.measure.recorded", lambda sounds: segments)
    monkeypatch.setattr(speakers, "VARIANTS", {group: some[:1] for group, some in speakers.VARIANTS.items()})
    streams = [Stream("people", "recorded", "somebody", (Path(f"{number}.wav"),)) for number in range(3)]
    monkeypatch.setattr(personal, "recordings", lambda folder: streams)
    monkeypatch.setattr(people, "recorded", lambda sounds: segments)
    monkeypatch.setattr(personal, "require_speech", lambda: None)
    for module, name, few in (
        (personal, "POSITIVES", (10,)), (personal, "WRONG", (0.1,)), (people, "DRAWS", 2),
        (people, "TRAINING_VARIANTS", ("+m1", "+f1")),
        (choose, "AROUND", (1,)), (choose, "PENALTIES", (0.1,)), (choose, "MARGINS", (0.5,)),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, few)
    said = [Said(Path(f"{number}.flac")) for number in range(30)]
    training = [
        *people.training(),
        *people.near_misses(people.NEAR, "anchors"),
        *people.near_misses(people.NEAR, "others"),
    ]
    clips: list[Clip] = [*speakers.script(22), *segments, *training, *said]
    known = {
        each.key: made_up(each.key, isinstance(each, Said) or (isinstance(each, Spoken) and each.wake))
        for each in clips
    }
    (tmp_path / "streams").mkdir()
    for stream in streams:
        np.save(tmp_path / "streams" / f"{stream.key}.npy", made_up(stream.key, wake=False))
    np.savez(tmp_path / "clips.npz", keys=np.array(list(known)), sizes=[FRAMES] * len(known),
             embeddings=np.concatenate(list(known.values())))  # fmt: skip
    for each in said:
        (tmp_path / each.file.name).write_bytes(b"")
    return tmp_path


def test_it_runs(cache: Path) -> None:
    sizes = ("--users", "2", "--takes", "2", "--anchors", "20", "--cache", str(cache))
    _, printed = run(personal, *sizes, "--human", str(cache), "--speech", str(cache))
    assert "2 users speakers, anchors of 20 + 20 windows; measured on 80 near misses" in printed
    assert "0.00 h of people, 1 voices or folders" in printed
    assert "no more speech wakes: not shown (0.00 h)" in printed
    assert "reverted in shadow, within 60 and within 300 moments" in printed
    for attack in ("none", "80% wrong labels", "near misses for a month", "anchors of silence"):
        assert any(line.startswith(attack) for line in printed.splitlines()), printed
    assert "10 moments: a fit" in printed
    assert "people saying alexa" in printed
    _, printed = run(personal, *sizes, "--choose")
    assert "2 development speakers" in printed
    assert "the base" in printed


def test_a_clip_is_spoken_and_embedded() -> None:
    heard = embed(Spoken("users", "en-GB", "en", "okay nabu", 0, wake=True))
    assert heard.shape[1] == 96
    assert len(heard) >= 16


def test_a_whole_clip_has_the_embeddings_that_a_device_computes_hop_by_hop() -> None:
    sound = np.random.default_rng(1).normal(0, 3000, 40_007).astype(np.int16)
    for samples in (0, 1000, 14_000, 40_007):
        assert np.array_equal(embeddings(sound[:samples]), EmbeddingStream().feed(sound[:samples]))


def test_a_wake_lasts_two_seconds_and_ends_with_its_stream() -> None:
    base = np.full(80, -1.0, np.float32)
    base[[0, 10, 24, 25, 49, 51]] = 1.0
    stream = np.repeat([0, 1], [50, 30])
    speech = Speech(base, np.zeros((80, 96), np.float32), stream, np.array([True, False]))
    steps = [Step(np.zeros(96), 0.0), Step(np.zeros(96), -3.0)]
    assert hours.wakes(speech, steps, [0.0, 0.0]).tolist() == [[2, 1], [0, 0]]
    people, synthetic, both = hours.compared(speech, np.array([2, 1]), np.array([[2, 1], [0, 0]]))
    assert (people.base, people.mean, people.most) == (2, 1.0, 2)
    assert (synthetic.base, synthetic.mean, synthetic.most) == (1, 0.5, 1)
    assert both.hours == pytest.approx(80 * 0.08 / 3600)


def test_recordings_are_joined_voice_by_voice_into_streams(tmp_path: Path) -> None:
    for voice, number in (("a", 0), ("a", 1), ("b", 0)):
        (tmp_path / voice).mkdir(exist_ok=True)
        soundfile.write(tmp_path / voice / f"{number}.wav", np.zeros(6 * 8000), 8000)
    (tmp_path / "a" / "readme").write_text("no sound")
    (stream,) = recordings(tmp_path)  # b has six seconds, too few
    assert (stream.voice, [each.name for each in stream.files]) == ("a", ["0.wav", "1.wav"])


def test_a_sign_test_that_is_looked_at_after_each_moment_reverts_what_the_watch_keeps() -> None:
    heard = [Heard(wanted=False, base=at >= 5, adapted=True) for at in range(200)]
    assert sign_test(heard)[4]
    assert active(heard[:5]) is Verdict.KEEP
    assert active(heard) is Verdict.KEEP
