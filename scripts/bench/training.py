"""What training from many devices gains speakers who are heard badly, what it costs, and what attackers can
do.

    python -m scripts.bench.training [--devices 500,2000,10000] [--epsilon 1,2,4,8] [--repeats 2] [--voices
    FILE] python -m scripts.bench.training --attacks
    python -m scripts.bench.training --choose
    python -m scripts.bench.training --devices 2000 --write DIR

Synthetic speakers, in sets that share no voice: `fleet` are the devices' owners; public speech is of
`development`, the wake word in the accents alone that the base was trained with; everything is measured on
`test`. A device has an accent (by its share of a fleet) and one of its voices, and three to five moments.
Vectors, noise and the step are those of a release: plan, layout, `clients.evaluate`, shares of the noise of
each device, `fa_core.training`. Beside it: the same without noise, and *pooled*, where the server has
everybody's moments. Shares of an accent have 30 clips; mean ± is over repeats. λ is chosen on `users`
(`--choose`).
"""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clients.evaluate import Cohort, device_vectors, fleet_sum
from clients.fleet.audio import SEGMENT_SECONDS, human_speech
from clients.fleet.voices import ACCENTS, TRAINING_ACCENTS
from clients.models import head
from clients.models.head import Head
from clients.personal.adapter import Step, Windows
from clients.personal.features import vector_of
from clients.personal.fit import fit
from clients.personal.learn import AROUND, logit
from clients.runtime.detectors import shipped_head
from fa_core.layout import compile_plan
from fa_core.metrics import exact_text
from fa_core.plan import TrainPlan, canonical, parse
from fa_core.privacy.distributed import scales_of, shares_outside_a_ring, simulated_noise, variance_in_sum
from fa_core.tables import MOMENTS, VECTOR
from fa_core.training import checks
from fa_core.training.public import Clip, PublicSpeech, center_of
from fa_core.training.step import PENALTY, Blocks, blocks_of, refit, shrunk, step_of, threshold
from fa_core.values import Participation, Release
from scripts.bench.training_voices import WAKE_WORD, Spoken, embed_all, script

UNTIL: Final = datetime(2026, 11, 22, 7, tzinfo=UTC)
LABELS: Final = tuple(accent.label for accent in ACCENTS)
SHARES: Final = np.array([accent.share for accent in ACCENTS]) / sum(accent.share for accent in ACCENTS)
PUBLIC: Final = frozenset(accent.label for accent in ACCENTS if accent.espeak in TRAINING_ACCENTS)
WORST: Final = "es-en"
BASE: Final = Step(np.zeros(VECTOR - 1), 0.0)
Floats = NDArray[np.float64]
Attack = Literal["flip", "accent", "phrase", "unbounded"]


@dataclass(frozen=True)
class Voices:
    """Who said what, what the base made of it, and recorded human speech."""

    said: tuple[Spoken, ...]
    heard: tuple[Windows, ...]
    human: tuple[Windows, ...]

    def of(self, group: str, *, wake: bool, accent: str | None = None) -> list[Windows]:
        """Return the clips of a set of speakers, of one accent where named."""
        return [
            windows
            for each, windows in zip(self.said, self.heard, strict=True)
            if (each.group, each.wake) == (group, wake) and accent in (None, each.accent)
        ]

    def speakers(self) -> dict[str, list[list[Windows]]]:
        """Return the moments of the owners of devices: accent to its voices, each a list of clips."""
        found: dict[str, dict[str, list[Windows]]] = {label: {} for label in LABELS}
        for each, windows in zip(self.said, self.heard, strict=True):
            if each.group == "fleet" and each.wake:
                found[each.accent].setdefault(each.voice, []).append(windows)
        return {label: list(voices.values()) for label, voices in found.items()}

    def public(self) -> PublicSpeech:
        """Return what is public: the wake word in the base's own accents, half of the human speech, near
        misses, and the phrases that training never sees."""
        wake = [
            Clip("wake", label, each)
            for label in sorted(PUBLIC)
            for each in self.of("development", wake=True, accent=label)
        ]
        human = [Clip("human", "", each) for each in self.human[::2]]
        near = [Clip("near", "", each) for each in self.of("development", wake=False)]
        phrases = [Clip("phrase", "", each) for each in self.of("users", wake=False)]
        return PublicSpeech((*wake, *human, *near, *phrases), len(human) * float(SEGMENT_SECONDS))


def voices(file: Path | None) -> Voices:
    """Return everything that was said, from a file where it is kept, else spoken now (minutes) and kept."""
    said = script()
    if file is not None and file.exists():
        with np.load(file) as kept:
            ends = np.cumsum(kept["sizes"])[:-1]
            base, features = (kept[name].astype(np.float64) for name in ("base", "features"))
            every = list(map(Windows, np.split(base, ends), np.split(features, ends)))
    else:
        every = embed_all(said, range(len(human_speech())))
        if file is not None:
            _keep(file, every)
    return Voices(said, tuple(every[: len(said)]), tuple(every[len(said) :]))


def _keep(file: Path, every: Sequence[Windows]) -> None:
    sizes = np.array([len(each.base) for each in every])
    base, features = (
        np.concatenate([each.base for each in every]),
        np.concatenate([each.features for each in every]),
    )
    np.savez(file, sizes=sizes, base=base.astype("<f4"), features=features.astype("<f4"))


# A round.


def plan_for(epsilon: Fraction, clip: float, center: Floats, base: Head) -> TrainPlan:
    """Return the training plan of a round."""
    numbers = ", ".join(f"{each:.3f}" for each in center)
    text = f"""
apiVersion: fa/v1
kind: TrainPlan
metadata: {{name: bench, revision: 1, owner: bench, question: Is everyone heard?, expires: 2099-12-31}}
window: 28d
base: {{wake_word: {base.wake_word}, version: {base.model_version}, sha256: "{_hash(base)}"}}
adapter: frame1
method: one_shot_means
center: [{numbers}]
clip: {clip:.3f}
segments: {{accent: {{device: accent, values: [{", ".join(LABELS)}]}}}}
eligibility: {{consent: personalisation}}
privacy: {{epsilon: {exact_text(epsilon)}, delta: 1e-8, min_cohort: 100}}
"""
    plan = parse(text.encode(), "bench", policy=None)
    assert isinstance(plan, TrainPlan)
    return plan


def _hash(base: Head) -> str:
    return sha256(head.encode(base)).hexdigest()


@dataclass(frozen=True)
class Fleet:
    """Devices: accent of each, int64 (D,), and its moments, a list of vectors (m, 97)."""

    accents: NDArray[np.int64]
    moments: list[Floats]

    def cohort(self, base: Head) -> Cohort:
        """Return the devices as what counting reads."""
        sizes = np.array([len(each) for each in self.moments])
        rows = int(sizes.sum())
        at = pa.array(np.full(rows, int((UNTIL - timedelta(days=1)).timestamp() * 1e6)), pa.int64())
        flat = np.concatenate(self.moments).astype(np.float32).ravel()
        table = pa.table(
            {
                "time": at.cast(pa.timestamp("us", tz="UTC")),
                "wake_word": pa.array([base.wake_word] * rows).dictionary_encode(),
                "base": pa.array([_hash(base)] * rows).dictionary_encode(),
                "features": pa.FixedSizeListArray.from_arrays(pa.array(flat), VECTOR),
            }
        ).cast(MOMENTS.arrow_schema())
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        ids = tuple(map(str, range(len(sizes))))
        return Cohort(ids, {"accent": (self.accents, LABELS)}, {"moments": table}, {"moments": offsets})

    def norms(self, center: Floats) -> Floats:
        """Return each device's distance from the centre."""
        return np.array([np.linalg.norm(each.mean(axis=0) - center) for each in self.moments])


def draw(speech: Voices, devices: int, random: np.random.Generator) -> Fleet:
    """Return devices with accents by their share, each with a voice of its own accent."""
    speakers = {
        label: [np.array([vector_of(clip) for clip in clips]) for clips in found]
        for label, found in speech.speakers().items()
    }
    accents = random.choice(len(LABELS), devices, p=SHARES)
    moments = []
    for accent in accents:
        own = speakers[LABELS[accent]]
        clips = own[random.integers(len(own))]
        moments.append(clips[random.permutation(len(clips))[: random.integers(3, 6)]])
    return Fleet(accents.astype(np.int64), moments)


def released(plan: TrainPlan, fleet: Fleet, base: Head, *, noise: bool = True) -> Release:
    """Return what a round over these devices releases; without noise, what no round ever does."""
    layout = compile_plan(plan)
    total = fleet_sum(plan, layout, fleet.cohort(base), UNTIL)
    devices = len(fleet.moments)
    shares = shares_outside_a_ring(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    scales, variance = scales_of(shares), variance_in_sum(shares, devices)
    sums = simulated_noise(layout, total, shares, devices) if noise else total * scales[0]
    return Release(
        id="0" * 32,
        plan=canonical(plan),
        layout=layout,
        population="bench",
        engine="tables",
        simulated=True,
        created=UNTIL,
        window_start=UNTIL - plan.window,
        window_end=UNTIL,
        participation=Participation(devices, devices, 0, devices),
        sums=sums,
        scales=scales,
        noise_variance=variance if noise else 0.0 * variance,
        secure_aggregation=True,
    )


# What comes of it.


@dataclass(frozen=True)
class Measured:
    """False reject rate by accent; near misses, phrases and human segments that wake, by share of the
    fleet."""

    rejects: Floats
    near: float
    worst_near: float
    human: float

    @property
    def mean(self) -> float:
        """The share-weighted false reject rate."""
        return float(SHARES @ self.rejects)


def measure(heads: Sequence[tuple[Step, float]], speech: Voices, group: str = "test") -> Measured:
    """Measure the head of each accent on speakers that nothing has seen."""
    near, human = speech.of(group, wake=False), speech.human[1::2]
    rejects = [
        1 - checks.woken(*head, speech.of(group, wake=True, accent=label))
        for head, label in zip(heads, LABELS, strict=True)
    ]
    nears = np.array([checks.woken(*head, near) for head in heads])
    humans = np.array([checks.woken(*head, human) * len(human) for head in heads])
    return Measured(np.array(rejects), float(SHARES @ nears), float(nears.max()), float(SHARES @ humans))


def pooled(speech: Voices, public: PublicSpeech, base: Head) -> list[tuple[Step, float]]:
    """Return heads where the server has every clip that the devices' owners said: no privacy at all."""
    learned, unseen = public.anchors().halves()
    others = [each.peak(AROUND) for each in (*learned.human, *learned.near)]
    limit, heads = logit(base.threshold), []
    for found in speech.speakers().values():
        step = fit([clip.peak(AROUND) for clips in found for clip in clips], others, PENALTY)
        heads.append((step, threshold(step, unseen, limit)))
    return heads


@dataclass(frozen=True)
class Setting:
    """What every row of the tables shares."""

    speech: Voices
    public: PublicSpeech
    base: Head
    center: Floats

    @classmethod
    def of(cls, speech: Voices) -> "Setting":
        """Return the setting of some voices."""
        public = speech.public()
        return cls(speech, public, shipped_head(WAKE_WORD), center_of(public.of("wake")))

    def heads(self, plan: TrainPlan, blocks: Blocks, penalty: float = PENALTY) -> list[tuple[Step, float]]:
        """Return the head of each accent."""
        steps, _ = shrunk(blocks)
        adapters = refit(steps, plan, self.base, "bench", self.public, penalty)
        return [step_of(adapters, label) for label in LABELS]

    def base_heads(self) -> list[tuple[Step, float]]:
        """Return the base as the head of every accent."""
        return [(BASE, logit(self.base.threshold))] * len(LABELS)


def clip_of(fleet: Fleet, center: Floats, quantile: float = 0.9) -> float:
    """Return the clip at a quantile of the devices' own norms, to which a norm histogram comes close."""
    return float(np.quantile(fleet.norms(center), quantile))


def row(
    setting: Setting, devices: int, epsilon: Fraction | None, seed: int, penalty: float = PENALTY
) -> tuple[Measured, float]:
    """Return what one round comes to, and the CPU seconds of the server's step."""
    fleet = draw(setting.speech, devices, np.random.default_rng(seed))
    plan = plan_for(epsilon or Fraction(4), clip_of(fleet, setting.center), setting.center, setting.base)
    release = released(plan, fleet, setting.base, noise=epsilon is not None)
    began = time.process_time()
    heads = setting.heads(plan, blocks_of(release), penalty)
    spent = time.process_time() - began
    return measure(heads, setting.speech, "users" if penalty != PENALTY else "test"), spent


def line(name: str, found: Sequence[Measured]) -> str:
    """Return a row of a table: means over repeats."""
    worst = np.mean([each.rejects for each in found], axis=0)
    es = worst[LABELS.index(WORST)]
    mean = np.mean([each.mean for each in found])
    near = np.mean([each.near for each in found])
    return (
        f"{name:28s} | {mean:6.1%} {es:6.1%} {worst.max():6.1%} ({LABELS[int(worst.argmax())]}) | "
        f"{near:6.1%} {max(each.worst_near for each in found):6.1%} | "
        f"{np.mean([each.human for each in found]):5.2f}"
    )


HEAD: Final = f"{'':28s} |   mean  es-en  worst accent | near misses, worst head | human"


def accuracy(setting: Setting, sizes: Iterable[int], epsilons: Iterable[Fraction], repeats: int) -> None:
    """Print false reject rates and what else wakes, by size of the fleet and epsilon."""
    print(HEAD)
    print(line("base", [measure(setting.base_heads(), setting.speech)]))
    print(
        line(
            "pooled, no privacy",
            [measure(pooled(setting.speech, setting.public, setting.base), setting.speech)],
        )
    )
    for devices in sizes:
        for epsilon in (None, *epsilons):
            rows = [row(setting, devices, epsilon, seed) for seed in range(repeats)]
            name = f"{devices:,} devices, " + (
                "no noise" if epsilon is None else f"epsilon {exact_text(epsilon)}"
            )
            print(
                line(name, [each for each, _ in rows]),
                f"{np.mean([spent for _, spent in rows]):.1f} s",
                flush=True,
            )


def costs(setting: Setting) -> None:
    """Print what a round costs a device."""
    fleet = draw(setting.speech, 1, np.random.default_rng(0))
    plan = plan_for(Fraction(4), 1.0, setting.center, setting.base)
    layout, cohort = compile_plan(plan), fleet.cohort(setting.base)
    began, times = time.process_time(), 50
    for _ in range(times):
        device_vectors(plan, layout, cohort, UNTIL)
    spent = 1000 * (time.process_time() - began) / times
    size = layout.length * layout.modulus_bits // 8
    print(f"one round; a device's vector has {size:,} bytes and takes {spent:.1f} ms of CPU")


# Attacks: devices that keep to their bound and say what they like, and one that keeps to nothing.


def attacked(
    setting: Setting, fleet: Fleet, attack: Attack, share: float, random: np.random.Generator
) -> Fleet:
    """Return the fleet with a share of its devices in the hands of one attacker.

    flip: each device sends its own step backwards. accent: all say that they are of the worst accent, and
    send its step backwards. phrase: they are taught a phrase. unbounded: as accent, and one device ignores
    the clip.
    """
    bad = random.choice(len(fleet.moments), round(share * len(fleet.moments)), replace=False)
    accents, moments = fleet.accents.copy(), list(fleet.moments)
    worst = LABELS.index(WORST)
    mean = np.mean(
        [each.mean(axis=0) for each, accent in zip(moments, accents, strict=True) if accent == worst], axis=0
    )
    phrase = vector_of(setting.speech.of("users", wake=False)[0])
    for at in bad:
        if attack == "flip":
            moments[at] = 2 * setting.center - moments[at]
        elif attack == "phrase":
            moments[at] = phrase[None, :]
        else:
            accents[at], moments[at] = worst, (2 * setting.center - mean)[None, :]
    return Fleet(accents, moments)


def attacks(setting: Setting, devices: int, epsilon: Fraction, shares: Iterable[float]) -> None:
    """Print what attackers achieve, and what notices it."""
    base = measure(setting.base_heads(), setting.speech)
    honest = draw(setting.speech, devices, np.random.default_rng(1))
    clip = clip_of(honest, setting.center)
    plan = plan_for(epsilon, clip, setting.center, setting.base)
    before = blocks_of(released(plan, draw(setting.speech, devices, np.random.default_rng(2)), setting.base))
    print(f"{devices:,} devices, epsilon {exact_text(epsilon)}; the release before was of honest devices")
    print(HEAD, "| alarms")
    print(line("base", [base]))
    none = attacked(setting, honest, "flip", 0.0, np.random.default_rng(3))
    print(_attack_line(setting, plan, none, before, "nobody"))
    kinds: tuple[Attack, ...] = ("flip", "accent", "phrase")
    for attack in kinds:
        for share in shares:
            fleet = attacked(setting, honest, attack, share, np.random.default_rng(3))
            print(_attack_line(setting, plan, fleet, before, f"{attack}, {share:.0%}"), flush=True)
    print(_attack_line(setting, plan, honest, before, "one past its bound, by 1,000", excess=1000))


def _attack_line(
    setting: Setting, plan: TrainPlan, fleet: Fleet, before: Blocks, name: str, excess: int = 0
) -> str:
    release = released(plan, fleet, setting.base)
    if excess:
        sums = release.sums.copy()
        at = LABELS.index(WORST) * (VECTOR + 1)
        sums[at : at + VECTOR] -= excess * 400 * release.scales[0]
        release = replace(release, sums=sums)
    blocks = blocks_of(release)
    steps, _ = shrunk(blocks)
    adapters = refit(steps, plan, setting.base, "bench", setting.public)
    found = checks.sums(blocks, plan.gates, before) + checks.speech(
        adapters, setting.base, setting.public, plan.gates
    )
    heads = [step_of(adapters, label) for label in LABELS]
    seen = sorted({f"{each.check} {each.group}" for each in found})
    said = (
        ("held: " + ", ".join(seen[:4]) + (f" and {len(seen) - 4} more" if len(seen) > 4 else ""))
        if seen
        else "none"
    )
    return f"{line(name, [measure(heads, setting.speech)])} | {said}"


def write(setting: Setting, folder: Path, devices: int) -> None:
    """Write public speech and a fleet directory with moments, to try `fa train` on."""
    folder.mkdir(parents=True)
    setting.public.save(folder / "public.npz")
    fleet = draw(setting.speech, devices, np.random.default_rng(0))
    ids = [f"d{number:06d}" for number in range(devices)]
    facts = {"device_class": ["speaker"] * devices, "app_version": ["1"] * devices}
    accents = [LABELS[accent] for accent in fleet.accents]
    pq.write_table(pa.table({"device_id": ids, "accent": accents, **facts}), folder / "devices.parquet")
    cohort = fleet.cohort(setting.base)
    owner = np.repeat(ids, np.diff(cohort.offsets["moments"]))
    rows = cohort.tables["moments"].add_column(0, "device_id", pa.array(owner).dictionary_encode())
    pq.write_table(rows.cast(MOMENTS.arrow_schema(device_id=True)), folder / "moments.parquet")
    about = {"population": "bench", "until": UNTIL.isoformat(), "synthetic": True}
    (folder / "fleet.json").write_text(json.dumps(about))


def choose(setting: Setting) -> None:
    """Print what λ was chosen by: speakers that neither train nor are measured."""
    print(HEAD)
    for penalty in (0.3, 0.1, 0.05, 0.0200001, 0.01):
        found = [row(setting, 2000, Fraction(4), seed, penalty)[0] for seed in range(2)]
        print(line(f"penalty {penalty:.3g}", found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Speak, train, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", default="500,2000,10000")
    parser.add_argument("--epsilon", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--voices", type=Path, help="where what was said is kept (.npz); made where it is not there"
    )
    parser.add_argument("--write", type=Path, help="write a fleet of so many devices and public speech here")
    parser.add_argument("--attacks", action="store_true")
    parser.add_argument("--choose", action="store_true", help="choose the penalty of the refit")
    given = parser.parse_args(arguments)
    setting = Setting.of(voices(given.voices))
    if given.write is not None:
        write(setting, given.write, int(given.devices.partition(",")[0]))
    elif given.choose:
        choose(setting)
    elif given.attacks:
        attacks(setting, 10_000, Fraction(4), (0.01, 0.05, 0.2))
    else:
        sizes, epsilons = (
            [each.strip() for each in text.split(",")] for text in (given.devices, given.epsilon)
        )
        accuracy(setting, map(int, sizes), [Fraction(each) for each in epsilons], given.repeats)
        costs(setting)


if __name__ == "__main__":
    main()
