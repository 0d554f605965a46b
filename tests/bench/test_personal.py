"""The bench of adapters in a tiny form: on made-up embeddings from its cache, so that nothing is spoken."""

from pathlib import Path

import numpy as np
import pytest

from clients.fleet.audio import HUMAN_SPEECH
from scripts.bench import personal
from scripts.bench.personal_voices import choose, people, speakers
from scripts.bench.personal_voices.speakers import Clip, Recorded, Said, Spoken, embed
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
    np.savez(tmp_path / "cache.npz", keys=np.array(list(known)), sizes=[FRAMES] * len(known),
             embeddings=np.concatenate(list(known.values())))  # fmt: skip
    for each in said:
        (tmp_path / each.file.name).write_bytes(b"")
    return tmp_path / "cache.npz"


def test_it_runs(cache: Path) -> None:
    sizes = ("--users", "2", "--takes", "2", "--anchors", "20", "--cache", str(cache))
    _, printed = run(personal, *sizes, "--human", str(cache.parent))
    assert "2 users speakers, anchors of 20 + 20 windows; measured on 80 near misses" in printed
    assert "an hour: not shown (0.09 h)" in printed
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
