"""Real people saying "alexa", through runtime, store and a plan; and a search for what must not be left."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.device.store import Store
from clients.runtime.detectors import SAMPLE_RATE, Detector, Pcm, accepts, open_detector
from clients.runtime.events import NEAR, Listener
from clients.runtime.labels import Reaction
from clients.runtime.ring import snr_db
from clients.runtime.session import Session
from clients.runtime.sources import file_pieces, folder_files
from fa_core.layout import compile_plan
from fa_core.metrics.joint import Domain
from fa_core.metrics.moments import R, unmapped
from fa_core.plan import Plan, parse
from tests.device.setup import NOW, Setup, World, drive, make_setup
from tests.device.test_store import decrypted

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "human_alexa"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the human recordings are not there: {FOLDER.name}"
)

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: people
  revision: 1
  owner: wake-word-quality
  question: How many of the wake words that people said were heard?
  expires: 2026-12-31
source: wake_events
window: 7d
where: {wake_word: alexa}
metrics:
  heard:
    kind: rate
    of: {accepted: true}
    over: {accepted: [true, false]}
    expect: 0.9
privacy: {epsilon: 1.0, delta: 1e-8, noise: central, max_events: 512, min_cohort: 3}
"""


def clips() -> Iterator[Pcm]:
    for path in folder_files(FOLDER):
        yield np.concatenate(list(file_pieces(path)))


def people_plan() -> Plan:
    return parse(PLAN.encode(), "people.yaml", today=NOW.date(), policy=None)


def live(store: Store) -> int:
    """Play every clip to the device, minutes apart, each wake followed by a command; return how many."""
    detector, count = open_detector("micro-1", "alexa"), 0
    for count, path in enumerate(folder_files(FOLDER), 1):
        start = NOW - timedelta(minutes=3 + count)
        session = Session(Listener(detector, start), store, "quality_metrics")
        for piece in file_pieces(path):
            session.feed(piece, NOW)
        session.react(Reaction(start + timedelta(seconds=6), "follow_up"))
        session.finish(NOW)
    return count


@pytest.fixture(scope="module")
def direct() -> tuple[int, int, list[int]]:
    """Count by the detector alone: clips accepted, near misses, and the wakes in each clip."""
    detector = open_detector("micro-1", "alexa")
    scores = []
    for clip in clips():
        detector.reset()
        scores.append(detector.feed(clip))
    peaks = [float(each.max(initial=0.0)) for each in scores]
    hits = sum(accepts(detector, peak) for peak in peaks)
    near = sum(NEAR * detector.threshold <= peak and not accepts(detector, peak) for peak in peaks)
    return hits, near, [_wakes(detector, each) for each in scores]


def _wakes(detector: Detector, scores: NDArray[np.float64]) -> int:
    """Return how many times a whole clip's scores cross the threshold, at least two seconds apart."""
    wakes, free = 0, 0.0
    for index, score in enumerate(scores):
        at = index * detector.hop / SAMPLE_RATE
        if accepts(detector, float(score)) and at >= free:
            wakes, free = wakes + 1, at + 2.0
    return wakes


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Setup, int]:
    folder = tmp_path_factory.mktemp("people")
    world = World(folder)
    setup = make_setup(folder, world)
    store = setup.store()
    played = live(store)
    store.close()
    return world, setup, played


def test_the_stored_events_are_those_that_the_detector_counts(
    lived: tuple[World, Setup, int], direct: tuple[int, int, list[int]]
) -> None:
    _, setup, played = lived
    hits, near, wakes = direct
    store = setup.store()
    rows = [
        row
        for row in store.table("wake_events", "quality_metrics", NOW - timedelta(days=7), NOW).to_pylist()
        if row["wake_word"] == "alexa"
    ]
    assert sum(row["accepted"] for row in rows) == sum(wakes)
    assert len({row["time"].replace(second=0, microsecond=0) for row in rows if row["accepted"]}) == hits
    assert hits > 0.9 * played
    assert sum(not row["accepted"] for row in rows) >= near
    assert all(row["outcome"] == "true_accept" for row in rows if row["accepted"])


def test_the_plans_sum_is_the_detectors_count(
    lived: tuple[World, Setup, int], direct: tuple[int, int, list[int]]
) -> None:
    world, setup, _ = lived
    plan = people_plan()
    layout = compile_plan(plan)
    result, _ = drive(world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW))
    (block,) = layout.blocks
    domain = Domain(plan.privacy.max_events, 1, 1, signed=False)
    counted = unmapped("rate", domain, result.total[block.slice].astype(np.float64), 0.0).values[0]
    assert round(counted[R]) == sum(direct[2])


def test_no_audio_is_left_on_the_disk(lived: tuple[World, Setup, int]) -> None:
    _, setup, _ = lived
    folder = setup.path.parent
    kept = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    kept["the store, decrypted"] = decrypted(folder)
    assert traces(kept) == []
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".db", ""}


def test_audio_that_is_left_would_be_found(lived: tuple[World, Setup, int]) -> None:
    """The broken control: a clip kept in any of three ways."""
    clip = next(clips())
    assert traces({"raw": b"head" + clip.astype("<i2").tobytes()}) == ["raw"]
    assert traces({"float": (clip / 32768).astype("<f4").tobytes()}) == ["float"]
    assert traces({"file": folder_files(FOLDER)[0].read_bytes()}) == ["file"]


def traces(kept: dict[str, bytes]) -> list[str]:
    """Return which hold a stretch (4 ms) of any clip, as samples, as floats, or as it was compressed."""
    needles = []
    for path, clip in zip(folder_files(FOLDER), clips(), strict=True):
        loudest = int(np.abs(clip.astype(np.int32)).argmax())
        stretch = clip[max(0, loudest - 32) : loudest + 32]
        data = path.read_bytes()
        needles += [stretch.astype("<i2").tobytes(), (stretch / 32768).astype("<f4").tobytes()]
        needles.append(data[len(data) // 2 : len(data) // 2 + 64])
    return [name for name, data in kept.items() if any(needle in data for needle in needles)]


def test_more_noise_is_a_lower_noise_level() -> None:
    noise = np.random.default_rng(5).normal(0, 1, 400_000)
    levels = []
    for strength in (0, 300, 1500):
        found = [
            level
            for clip in list(clips())[:40]
            if (
                level := snr_db(np.clip(clip + strength * noise[: clip.size], -32768, 32767).astype(np.int16))
            )
            is not None
        ]
        levels.append(float(np.median(found)) if found else -10.0)
    assert levels[0] > levels[1] > levels[2]
