"""Anchor sets: made from a test set, published in one closed form, and what a bad publisher can do with
one."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from clients.models import head as heads
from clients.models.formats import content
from clients.personal import anchors as anchor_sets
from clients.personal import learn as learning
from clients.personal.adapter import Step, Windows
from clients.personal.anchors import Anchors, level, threshold
from clients.personal.learn import Candidate, Refusal, learn
from clients.runtime.detectors import EMBEDDING_HOP, Pcm, shipped_head
from clients.testset import anchors as making
from clients.testset.clips import MANIFEST, Clip, ControlledSet, digest, write_clip
from clients.testset.recipe import parse
from fa_core.cli.testset import app
from fa_core.errors import BadInput
from tests.models.samples import manifest_of
from tests.personal.test_core import ANCHORS, OWNER, WANTED, clips

NAMED = replace(ANCHORS, wake_word="okay_nabu", base="ab" * 32)
DATA = anchor_sets.encode(NAMED)
RECIPE = """
apiVersion: fa/v1
kind: TestSet
metadata: {name: near, owner: us, question: What must not wake it?}
wake_word: okay_nabu
near_misses: [Okay nobody knows.]
programmes:
  - {name: people, human: asterisk, minutes: 5}
  - {name: music, synthetic: music, minutes: 1}
"""


class Loud:
    """Embeddings whose first number is the sound's level, one a hop: no model is run."""

    def feed(self, pcm: Pcm) -> NDArray[np.float32]:
        hops = pcm[: pcm.size // EMBEDDING_HOP * EMBEDDING_HOP].reshape(-1, EMBEDDING_HOP)
        found = np.zeros((len(hops), 96), np.float32)
        found[:, 0] = hops.mean(axis=1) / 100
        return found


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> ControlledSet:
    """Return 30 near misses of 2 s, 10 segments of 30 s of people's speech, and one of music."""
    folder = tmp_path_factory.mktemp("set")
    found = []
    kinds = [("near_miss", "Okay nobody knows.", 2)] * 30
    kinds += [("programme", "people", 30)] * 10 + [("programme", "music", 30)]
    for number, (kind, text, seconds) in enumerate(kinds):
        pcm, name = np.full(seconds * 16_000, number, np.int16), f"{number}.wav"
        write_clip(folder, name, pcm)
        found.append(Clip(name, kind, text, "", "", "phone", "coloured", 7.0, seconds, digest(pcm)))  # type: ignore[arg-type]
    made = ControlledSet(folder, parse(RECIPE.encode(), "recipe.yaml"), tuple(found))
    (folder / MANIFEST).write_bytes(made.document())
    return made


def test_a_set_is_made_from_near_misses_and_peoples_speech_alone(
    tested: ControlledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "EmbeddingStream", Loud)
    out = tmp_path / "anchors"
    made = CliRunner().invoke(
        app, ["anchors", str(tested.folder), "embed-1", "--out", str(out), "--clips", "24", "--json"]
    )
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert (said["human"], said["near_misses"], said["bytes"]) == (24, 24, out.stat().st_size)
    assert tested.hash[:16] in said["trained_by"]
    found = anchor_sets.decode(out.read_bytes())
    head = shipped_head("okay_nabu")
    assert found.base == said["base"] == sha256(heads.encode(head)).hexdigest()
    assert found.seconds == 240.0
    assert {len(each.base) for each in (*found.human, *found.near)} == {1}
    loudness = [each.features[0, 0] for each in (*found.near, *found.human)]
    spread = np.unique(np.round(loudness, 4))
    assert len(np.unique(np.round([each.features[0, 0] for each in found.human], 4))) == 10  # every segment
    assert spread.size > 30  # and no music, the loudest of all
    assert max(np.abs(loudness)) < abs(40 / 100 / 100) * 4 + 1e-3


def test_a_set_for_another_wake_word_or_without_speech_makes_none(tested: ControlledSet) -> None:
    head = replace(shipped_head("okay_nabu"), wake_word="alexa")
    with pytest.raises(BadInput, match="the model listens for alexa"):
        making.anchors_of(tested, head, 20, lambda done, total: None)
    silent = replace(tested, clips=tested.clips[:30])
    with pytest.raises(BadInput, match="no people's speech"):
        making.anchors_of(silent, shipped_head("okay_nabu"), 20, lambda done, total: None)


# The published form.


def test_a_manifest_names_the_wake_word_and_the_head_of_its_windows() -> None:
    right = manifest_of(DATA, kind="anchors", base="ab" * 32)
    assert content(right, DATA) == DATA
    with pytest.raises(BadInput, match="its bytes are of okay_nabu"):
        content(replace(right, wake_word="alexa"), DATA)
    with pytest.raises(BadInput, match="its manifest names no base"):
        content(replace(right, base=""), DATA)
    with pytest.raises(BadInput, match="no anchor set"):
        content(right, b"junk")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 255), st.integers(0, len(DATA)))
def test_changed_and_cut_bytes_are_a_set_or_bad_input(at: int, value: int, cut: int) -> None:
    changed = DATA[:at] + bytes([value]) + DATA[at + 1 :]
    for data in (changed, changed[:cut]):
        try:
            found = anchor_sets.decode(data)
        except BadInput:
            continue
        assert len(data) == len(DATA)
        assert np.isfinite(np.concatenate([each.base for each in (*found.human, *found.near)])).all()


@pytest.mark.parametrize("number", [np.inf, np.nan, 1000.0])
def test_numbers_that_no_speech_has_are_refused(number: float) -> None:
    loud = Windows(np.array([-3.0]), np.full((1, 96), number))
    with pytest.raises(BadInput, match="no anchor set: a logit beyond"):
        anchor_sets.encode(replace(NAMED, human=(loud, *NAMED.human[1:])))


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(BadInput, match="of each at least 20"):
        anchor_sets.encode(replace(NAMED, near=NAMED.near[:19]))


# What a publisher can do who signs a set that is no speech.


def with_base(value: float) -> Anchors:
    """Return the set with every clip at one logit of the base."""
    human, near = (
        tuple(Windows(np.full_like(each.base, value), each.features) for each in some)
        for some in (ANCHORS.human, ANCHORS.near)
    )
    return replace(ANCHORS, human=human, near=near)


def test_clips_that_all_wake_the_base_set_no_limit_and_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learn(WANTED, [], with_base(1.0), 0.0) is Refusal.UNSOUND
    assert learn(WANTED, [], replace(ANCHORS, near=ANCHORS.near[:19]), 0.0) is Refusal.UNSOUND
    monkeypatch.setattr(anchor_sets, "MOST_WOKEN", 1.0)  # the control: they would let everything wake
    found = learn(WANTED, [], with_base(1.0), 0.0)
    assert found is not Refusal.UNSOUND


def test_a_set_of_silence_lowers_no_threshold_under_the_base() -> None:
    silence = replace(with_base(-30.0), near=clips(40, -30.0, np.zeros(96), 4))
    step = Step(OWNER, 0.0)
    assert threshold(step, silence, 0.0) == 0.0
    asked = [level(step, clips, 0.0) for clips in (silence.human, silence.near)]
    assert max(asked) < -10  # the control: what the set asks for


def test_wake_words_among_the_near_misses_teach_nothing() -> None:
    """They would have the owner unheard; the gate finds no gain, and the base stays."""
    poisoned = replace(ANCHORS, near=clips(40, -0.8, OWNER, 8))
    assert learn(WANTED, [], poisoned, 0.0) is Refusal.NO_GAIN
    assert isinstance(learn(WANTED, [], ANCHORS, 0.0), Candidate)
    assert learning.LEAST_GAIN == 1
