"""Controlled test sets: the same recipe makes the same clips, and what is said of models on them is exact."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, multinomial, poisson
from typer.testing import CliRunner

from clients.models import head, thresholds
from clients.runtime.detectors import SAMPLE_RATE, Detector, Pcm, shipped_head
from clients.runtime.events import Listener
from clients.runtime.published import shipped
from clients.testset import judge, models
from clients.testset.clips import MANIFEST, Clip, ControlledSet, digest, read_set, write_clip
from clients.testset.make import make
from clients.testset.models import Opened
from clients.testset.recipe import Recipe, parse
from clients.testset.score import score, wakes
from fa_core.cli import build
from fa_core.cli.testset import _Registry, app
from fa_core.errors import BadInput, Refused
from fa_core.plan import BadPlan
from fa_core.rollout.controlled import read_result
from tests.device.setup import NOW

HOP = 1_600
PROGRAMMES = """
apiVersion: fa/v1
kind: TestSet
metadata: {name: jingles, owner: us, question: Does a jingle wake it?}
wake_word: okay_nabu
seed: 7
rooms: [phone, watch]
noise: [coloured]
snr_db: [17]
programmes:
  - {name: jingle, synthetic: jingle, minutes: 1}
  - {name: show, file: show.wav, minutes: 1}
"""
SPOKEN = """
apiVersion: fa/v1
kind: TestSet
metadata: {name: spoken, owner: us, question: Which accent is missed?}
wake_word: okay_nabu
accents: [en-US, es-en]
speakers: 1
wake_phrases: [okay nabu]
near_misses: [Okay nobody knows.]
rooms: [phone]
noise: [coloured]
snr_db: [17, 7]
"""


class Loudness:
    """A detector whose score of 0.1 s is its highest sample, as a share of full scale."""

    wake_word, hop = "okay_nabu", HOP

    def __init__(self, model_version: str, threshold: float) -> None:
        self.model_version, self.threshold = model_version, threshold

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        whole = pcm[: pcm.size // HOP * HOP].reshape(-1, HOP).astype(np.float64)
        return np.abs(whole).max(axis=1, initial=0.0) / 32_768

    def reset(self) -> None:
        pass


def of(detector: Detector, digest: str) -> Opened:
    return Opened(detector, digest, (), digest)


def steps(done: int, total: int) -> None:
    assert 0 < done <= total


def made(folder: Path, text: str, name: str = "set") -> ControlledSet:
    if not (folder / "show.wav").exists():
        write_clip(folder, "show.wav", np.arange(-8_000, 8_000, dtype=np.int16))
    return make(parse(text.encode(), "recipe.yaml"), folder, folder / name, steps)


@pytest.fixture(scope="module")
def jingles(tmp_path_factory: pytest.TempPathFactory) -> ControlledSet:
    return made(tmp_path_factory.mktemp("jingles"), PROGRAMMES)


def built(
    folder: Path, loudness: Mapping[str, list[int]], programmes: Mapping[str, list[int]]
) -> ControlledSet:
    """Return a set of clips of 0.2 s by accent, of these peaks, and programmes of 0.1 s a peak."""
    folder.mkdir()
    clips = []
    for accent, peaks in loudness.items():
        for number, peak in enumerate(peaks):
            pcm, name = np.full(2 * HOP, peak, np.int16), f"{accent}-{number}.wav"
            write_clip(folder, name, pcm)
            clips.append(
                Clip(name, "wake", "okay nabu", accent, "v", "phone", "coloured", 7.0, 0.2, digest(pcm))
            )
    for programme, peaks in programmes.items():
        pcm, name = np.repeat(np.array(peaks, np.int16), HOP), f"{programme}.wav"
        write_clip(folder, name, pcm)
        seconds = pcm.size / SAMPLE_RATE
        clips.append(
            Clip(name, "programme", programme, "", "", "phone", "coloured", 7.0, seconds, digest(pcm))
        )
    recipe = parse(SPOKEN.encode(), "recipe.yaml")
    built = ControlledSet(folder, recipe, tuple(clips))
    (folder / MANIFEST).write_bytes(built.document())
    return built


# Recipes.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[phone, watch]", "[phone, bath]"), "recipe.yaml:7:16: "),
        (("[phone, watch]", "[phone, phone]"), "twice"),
        (("synthetic: jingle,", ""), "0 sources of sound"),
        (("synthetic: jingle,", "synthetic: jingle, file: a.wav,"), "2 sources of sound"),
        (("name: show", "name: jingle"), "twice"),
        (("minutes: 1}", "minutes: 0}"), "recipe.yaml:11:48: `0` is out of range"),
        (("seed: 7", "speed: 7"), "speed"),
        (("kind: TestSet", "kind: EvalPlan"), "recipe.yaml:3:7: "),
        (("rooms: [phone, watch]", "accents: [en-XX]"), "en-XX"),
        (("[17]", "[.nan]"), "recipe.yaml:9:10: "),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(change: tuple[str, str], words: str) -> None:
    with pytest.raises(BadPlan) as caught:
        parse(PROGRAMMES.replace(*change).encode(), "recipe.yaml")
    assert words in str(caught.value)


def test_a_recipe_of_nothing_or_of_too_much_is_refused() -> None:
    for text in (
        PROGRAMMES.partition("programmes:")[0],
        SPOKEN.replace("speakers: 1", "takes: 20\nspeakers: 3"),
    ):
        many = text.replace("[okay nabu]", json.dumps([f"okay {n}" for n in range(200)])).replace(
            "snr_db: [17, 7]", "snr_db: [1, 2, 3, 4]"
        )
        with pytest.raises(BadPlan):
            parse(many.encode(), "recipe.yaml")


@pytest.mark.parametrize(
    "path", sorted(Path("eval_plans/testsets").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_shipped_recipes_are_recipes(path: Path) -> None:
    assert isinstance(parse(path.read_bytes(), str(path)), Recipe)


# Sets.


def test_the_same_recipe_makes_the_same_set_and_another_seed_another(
    tmp_path: Path, jingles: ControlledSet
) -> None:
    first, again = jingles, made(tmp_path, PROGRAMMES, "again")
    other = made(tmp_path, PROGRAMMES.replace("seed: 7", "seed: 8"), "other")
    assert first.hash == again.hash != other.hash
    assert read_set(first.folder) == first
    assert [(each.text, each.room, each.seconds) for each in first.clips] == [
        ("jingle", "phone", 30.0), ("jingle", "watch", 30.0),
        ("show", "phone", 30.0), ("show", "watch", 30.0),
    ]  # fmt: skip
    assert len({each.sha256 for each in first.clips + other.clips}) == 8
    heard = first.samples(first.clips[0]).astype(np.float64)
    assert np.abs(heard).max() > 3 * np.abs(heard).mean() > 0, "bells stand out of the noise"


def test_synthetic_voices_say_what_the_recipe_has(tmp_path: Path) -> None:
    found = made(tmp_path, SPOKEN)
    said = [(each.kind, each.accent, each.snr_db) for each in found.clips]
    assert said == [
        ("wake", "en-US", 17.0), ("wake", "en-US", 7.0), ("wake", "es-en", 17.0), ("wake", "es-en", 7.0),
        ("near_miss", "en-US", 17.0), ("near_miss", "es-en", 7.0),
    ]  # fmt: skip
    assert all(1.5 < each.seconds < 5 for each in found.clips)


def test_a_set_that_was_changed_or_is_none_is_refused(tmp_path: Path, jingles: ControlledSet) -> None:
    shutil.copytree(jingles.folder, tmp_path / "set")
    found = read_set(tmp_path / "set")
    with pytest.raises(BadInput, match="not empty"):
        made(tmp_path, PROGRAMMES)
    with pytest.raises(BadInput, match="not an audio file"):
        made(tmp_path, PROGRAMMES.replace("show.wav", "nowhere.wav"), "b")
    assert not (tmp_path / "b").exists()
    write_clip(found.folder, found.clips[0].file, np.zeros(100, np.int16))
    with pytest.raises(BadInput, match="was changed"):
        found.samples(found.clips[0])
    data = (found.folder / MANIFEST).read_bytes()
    for bad in (
        b"{}",
        data.replace(b'"seed":7', b'"seed":"7"'),
        data.replace(b"00000.wav", b"/0000.wav"),
        data[:-1],
    ):
        (found.folder / MANIFEST).write_bytes(bad)
        with pytest.raises(BadInput, match="manifest"):
            read_set(found.folder)


# Scores.


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9]), max_size=120), st.sampled_from([1_600, 3_200]))
@settings(max_examples=40, deadline=None)
def test_wakes_are_counted_as_the_runtime_counts_them(scores: list[float], hop: int) -> None:
    class Scripted(Loudness):
        def feed(self, pcm: Pcm) -> NDArray[np.float64]:
            self.at = getattr(self, "at", -1) + 1
            return np.array([scores[self.at]])

    scripted = Scripted("fake", 0.5)
    scripted.hop = hop
    listener = Listener(scripted, NOW)
    events = listener.feed(np.zeros(len(scores) * hop, np.int16)) + listener.finish()[0]
    assert wakes(np.array(scores), hop, 0.5) == sum(each.accepted for each in events)


def test_a_programmes_clips_are_one_stream(jingles: ControlledSet) -> None:
    (scored,) = score([of(Loudness("a", 0.5), "00")], jingles, steps)
    assert {name: each.size for name, each in scored.streams.items()} == {"jingle": 600, "show": 600}
    assert scored.peaks == {}


# What is said of them.


def test_intervals_are_exact() -> None:
    """By enumeration: no interval misses the truth more often than 5%, nor either side of it than 2.5%."""
    assert judge.share(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert judge.share(10, 10) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert judge.per_hour(0, 2.0) == (0.0, pytest.approx(-np.log(0.025) / 2))
    bounds = np.array([judge.share(count, 12) for count in range(13)])
    rates = np.array([judge.per_hour(count, 2.0) for count in range(60)])
    for p in np.linspace(0.01, 0.99, 40):
        for found, chance, truth in (
            (bounds, binom.pmf(range(13), 12, p), p),
            (rates, poisson.pmf(range(60), 2 * 4 * p), 4 * p),
        ):
            assert chance[found[:, 0] > truth].sum() <= 0.025 + 1e-9
            assert chance[found[:, 1] < truth].sum() <= 0.025 + 1e-9


def test_the_bound_on_more_misses_holds_whatever_the_models_have_in_common() -> None:
    """By enumeration of all outcomes of eight clips: the bound is under the truth at most 5% of the time."""
    outcomes = [(old, new) for old, new in product(range(9), repeat=2) if old + new <= 8]
    bounds = np.array([judge.more_misses(old, new, 8, 0.95) for old, new in outcomes])
    counts = np.array([(old, new, 8 - old - new) for old, new in outcomes])
    worst = naive = 0.0
    for old, new in product(np.linspace(0, 0.9, 10), repeat=2):
        if old + new <= 1:
            chance = multinomial.pmf(counts, 8, [old, new, 1 - old - new])
            worst = max(worst, float(chance[bounds < new - old - 1e-12].sum()))
            estimates = (counts[:, 1] - counts[:, 0]) / 8
            naive = max(naive, float(chance[estimates < new - old - 1e-12].sum()))
    assert worst <= 0.05
    assert naive > 0.3, "the estimate alone is under the truth far more often"


def test_two_models_are_compared_on_the_clips_that_only_one_misses(tmp_path: Path) -> None:
    quiet, middle, loud = 3_000, 10_000, 30_000
    tested = built(
        tmp_path / "set",
        {"en-US": [loud] * 40, "es-en": [loud] * 30 + [middle] * 8 + [quiet] * 2},
        {"show": ([quiet] * 30 + [middle]) * 20},
    )
    models = [of(Loudness("old", 0.2), "0a" * 32), of(Loudness("new", 0.5), "0b" * 32)]
    baseline, candidate = score(models, tested, steps)
    found = judge.report(tested, [baseline, candidate])
    missed = {row.condition: row for row in found.misses}
    assert [row.condition for row in found.misses] == ["everything", "accent en-US", "accent es-en"]
    assert [(rate.count, rate.out_of) for rate in missed["accent es-en"].models] == [(2, 40), (10, 40)]
    difference = missed["accent es-en"].difference
    assert difference is not None
    assert (difference.baseline_alone, difference.candidate_alone, difference.estimate) == (0, 8, 0.2)
    assert difference.p == pytest.approx(2 * 0.5**8)
    assert difference.low < 0.2 < difference.high
    assert missed["accent en-US"].difference.p == 1.0  # type: ignore[union-attr]
    (stream,) = found.false_wakes
    assert [rate.count for rate in stream.models] == [20, 0]
    assert stream.models[0].out_of == pytest.approx(62 / 3_600)
    old, new = found.det
    assert old == new, "both score alike; only their thresholds differ"
    assert [point.per_hour for point in old] == sorted((point.per_hour for point in old), reverse=True)
    assert [point.missed for point in old] == sorted(point.missed for point in old)

    record = judge.result(tested, baseline, candidate)
    assert (record.test_set, record.baseline, record.candidate) == (tested.hash, "0a" * 32, "0b" * 32)
    assert [each.name for each in record.conditions] == [
        "everything", "accent en-US", "accent es-en", "programme show",
    ]  # fmt: skip
    assert [each.split(":")[0] for each in record.failures()] == [
        "everything",
        "accent en-US",
        "accent es-en",
    ]
    turned = judge.result(tested, candidate, baseline)
    assert "programme show" in [each.split(":")[0] for each in turned.failures()]
    margins = tested.recipe.margins.model_copy(update={"misses_below": 0.5})
    wide = tested.recipe.model_copy(update={"margins": margins})
    assert judge.result(replace(tested, recipe=wide), baseline, candidate).failures() == []


# The command.


def fa(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_the_command_line_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path, "show.wav", np.arange(-8_000, 8_000, dtype=np.int16))
    (tmp_path / "recipe.yaml").write_text(PROGRAMMES)
    folder, out = str(tmp_path / "set"), tmp_path / "result.json"
    said = json.loads(fa("make", str(tmp_path / "recipe.yaml"), "--out", folder, "--json").stdout)
    assert said["clips"] == {"programme": {"clips": 4, "minutes": 2.0}}
    assert said["sha256"] in fa("show", folder).stdout

    fakes = {
        "old": of(Loudness("old", 0.99), "0a" * 32), "new": of(Loudness("new", 0.98), "0b" * 32),
        "eager": of(Loudness("eager", 0.0), "0c" * 32),
    }  # fmt: skip
    monkeypatch.setattr(models, "open_model", lambda text, wake_word, registry: fakes[text])
    alone = json.loads(fa("run", folder, "old", "--json").stdout)
    assert [each["version"] for each in alone["models"]] == ["old"]
    assert isinstance(fa("run", folder, "old", "--out", str(out)).exception, BadInput)

    refused = fa("run", folder, "old", "eager", "--out", str(out))
    assert isinstance(refused.exception, Refused)
    assert "eager does not pass" in refused.stdout
    written = read_result(out)
    assert written.hash in refused.stdout
    assert (written.test_set, written.candidate) == (said["sha256"], "0c" * 32)
    assert all(each.false_wakes_of_candidate > 0 for each in written.conditions)


def test_models_are_those_that_came_with_the_program_or_in_files(tmp_path: Path) -> None:
    """And each is named by the hash of what is published of it, as a rollout names it."""
    digests = {(each.version, each.wake_word): digest for digest, each in shipped().items()}
    for version in ("micro-1", "embed-1"):
        found = models.open_model(version, "okay_nabu")
        assert (found.detector.model_version, found.sha256) == (version, digests[version, "okay_nabu"])
    own, file = digests["embed-1", "okay_nabu"], tmp_path / "head.npz"
    shipped_head("okay_nabu").save(file)
    assert models.open_model(str(file), "okay_nabu").sha256 == own
    small = tmp_path / "small.head"
    small.write_bytes(head.encode(shipped_head("okay_nabu"), encoding="int8"))
    assert models.open_model(str(small), "okay_nabu").sha256 == sha256(small.read_bytes()).hexdigest()

    limits = tmp_path / "tighter.json"
    limits.write_text('{"version": "embed-1-t", "thresholds": {"okay_nabu": "0.9"}}')
    for base in ("embed-1", str(file)):
        found = models.open_model(f"{base}+{limits}", "okay_nabu")
        assert (found.detector.threshold, found.detector.model_version) == (0.9, "embed-1-t")
        assert found.sha256 == sha256(thresholds.encode("embed-1-t", {"okay_nabu": "0.9"})).hexdigest()
        assert (found.bases, found.scored_as) == ((own,), own)

    change = replace(shipped_head("okay_nabu"), model_version="embed-1-a", bias=0.5)
    change.save(tmp_path / "adapter.npz")
    (tmp_path / "adapter").write_bytes(head.encode(change, "adapter"))
    for name in ("adapter.npz", "adapter"):
        found = models.open_model(f"embed-1+{tmp_path}/{name}", "okay_nabu")
        assert (found.detector.model_version, found.bases) == ("embed-1-a", (own,))
        assert found.sha256 == found.scored_as == sha256((tmp_path / "adapter").read_bytes()).hexdigest()
    both = models.open_model(f"embed-1+{tmp_path}/adapter+{limits}", "okay_nabu")
    assert (both.bases, both.scored_as) == ((found.sha256, own), found.sha256)

    (tmp_path / "none.npz").write_bytes(b"no head")
    (tmp_path / "none.json").write_text('{"thresholds": {"alexa": "0.9"}, "version": "x"}')
    (tmp_path / "unnamed.json").write_text('{"thresholds": {"okay_nabu": "0.9"}}')
    (tmp_path / "policy.json").write_text('{"rules": [{"action": "confirm"}]}')
    for text in (
        "embed-9",
        str(tmp_path / "none.npz"),
        f"embed-1+{tmp_path}/none.json",
        f"embed-1+{tmp_path}/unnamed.json",
        f"embed-1+{tmp_path}/policy.json",
        f"micro-1+{tmp_path}/adapter",
        f"embed-1+{tmp_path}/none.npz",
        "embed-1+nowhere.json",
    ):
        with pytest.raises(BadInput):
            models.open_model(text, "okay_nabu")


def test_models_of_the_log_are_those_of_their_files(tmp_path: Path) -> None:
    """Of every kind that a rollout may carry: one result from versions and from files, by commands alone."""
    store = ("--store", str(tmp_path / "store"))
    about = ("--wake-word", "okay_nabu", "--licence", "Apache-2.0", "--trained-by", "us", *store, "--json")

    def add(file: str, version: str, *more: str) -> str:
        added = CliRunner().invoke(build(), ["model", "add", file, "--version", version, *more, *about])
        assert added.exception is None, added.exception
        return str(json.loads(added.stdout)["sha256"])

    limits, adapter, small = (str(tmp_path / name) for name in ("t.json", "a.npz", "s.head"))
    Path(limits).write_text('{"thresholds": {"okay_nabu": "0.9"}, "version": "t"}')
    replace(shipped_head("okay_nabu"), model_version="a").save(Path(adapter))
    Path(small).write_bytes(
        head.encode(replace(shipped_head("okay_nabu"), model_version="s"), encoding="int8")
    )
    own, native = add("embed-1", "embed-1"), add("micro-1", "micro-1")
    digests = {(each.version, each.wake_word): digest for digest, each in shipped().items()}
    assert (own, native) == (digests["embed-1", "okay_nabu"], digests["micro-1", "okay_nabu"])
    added = [
        add(small, "s"), add(adapter, "a", "--kind", "adapter", "--base", "embed-1"),
        add(limits, "t", "--kind", "thresholds", "--base", "a"),
    ]  # fmt: skip
    for version, file, published in zip(
        ("s", "a", "t"), (small, f"embed-1+{adapter}", f"embed-1+{adapter}+{limits}"), added, strict=True
    ):
        found = models.open_model(version, "okay_nabu", _Registry(store[1]))
        from_file = models.open_model(file, "okay_nabu")
        assert found.sha256 == from_file.sha256 == published
        assert (found.bases, found.scored_as) == (from_file.bases, from_file.scored_as)
    out = tmp_path / "result.json"
    tested = built(tmp_path / "set", {"en-US": [30_000]}, {})
    run = fa("run", str(tested.folder), "a", added[2][:12], "--out", str(out), *store)
    assert read_result(out).candidate_bases == (added[1], own), run.output
    wrong = CliRunner().invoke(
        build(),
        ["model", "add", limits, "--version", "u", "--kind", "thresholds", "--base", "a", *about],
    )
    assert "of version t, and u is asked for" in str(wrong.exception)
    for text in ("embed-9", "ab"):
        with pytest.raises(BadInput, match="no model for okay_nabu"):
            models.open_model(text, "okay_nabu", _Registry(store[1]))


def test_models_that_differ_in_a_threshold_are_scored_once(jingles: ControlledSet) -> None:
    class Counted(Loudness):
        fed = 0

        def feed(self, pcm: Pcm) -> NDArray[np.float64]:
            Counted.fed += 1
            return super().feed(pcm)

    pair = [Opened(Counted("a", 0.5), "0a", ("00",), "00"), Opened(Counted("b", 0.6), "0b", ("00",), "00")]
    one, other = score(pair, jingles, steps)
    assert Counted.fed == len(jingles.clips)
    assert (one.threshold, other.threshold, one.streams) == (0.5, 0.6, other.streams)
    assert (one.version, other.sha256) == ("a", "0b")
