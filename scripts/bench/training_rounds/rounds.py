"""One round of training over a fleet, and what its heads hear: the same functions as of a real release."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.evaluate import Cohort, fleet_sum
from clients.fleet.audio import SEGMENT_SECONDS
from clients.fleet.phrases import WAKE_PHRASES
from clients.fleet.voices import ACCENTS
from clients.models import head
from clients.models.head import Head
from clients.personal.adapter import Step, Windows
from clients.personal.anchors import level
from clients.personal.features import vector_of
from clients.personal.fit import fit
from clients.personal.learn import AROUND, logit
from clients.runtime.detectors import shipped_head
from fa_core.layout import compile_plan
from fa_core.metrics import exact_text
from fa_core.plan import TrainPlan, canonical, parse
from fa_core.privacy.distributed import scales_of, shares_outside_a_ring, simulated_noise, variance_in_sum
from fa_core.tables import MOMENTS, VECTOR
from fa_core.training.public import PublicSpeech, center_of
from fa_core.training.step import PENALTY, Blocks, refit, shrunk, step_of, threshold
from fa_core.values import Participation, Release
from scripts.bench.personal_voices.speakers import Set
from scripts.bench.training_rounds.voices import CHOSEN, LABELS, MEASURED, WAKE_WORD, Voices

UNTIL: Final = datetime(2026, 11, 22, 7, tzinfo=UTC)
SHARES: Final = np.array([accent.share for accent in ACCENTS]) / sum(accent.share for accent in ACCENTS)
WORST: Final = LABELS.index("es-en")
BASE: Final = Step(np.zeros(VECTOR - 1), 0.0)
DELTA: Final = Fraction(1, 10**8)
RESAMPLED: Final = 1000
"""How often speakers are drawn again for limits."""

Floats = NDArray[np.float64]
Heads = Sequence[tuple[Step, float]]
"""Of each accent, an adapter and its threshold, a logit."""


def plan_for(
    epsilon: Fraction, clip: float, center: Floats, base: Head, groups: Sequence[str] = LABELS
) -> TrainPlan:
    """Return the training plan of a round, of everyone together where no groups are named."""
    numbers = ", ".join(f"{each:.3f}" for each in center)
    segments = f"segments: {{accent: {{device: accent, values: [{', '.join(groups)}]}}}}" if groups else ""
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
{segments}
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

    def clip(self, center: Floats, quantile: float = 0.9) -> float:
        """Return the clip at a quantile of the devices' own norms, to which a norm histogram comes close."""
        norms = [np.linalg.norm(each.mean(axis=0) - center) for each in self.moments]
        return float(np.quantile(norms, quantile))


def draw(speech: Voices, devices: int, random: np.random.Generator) -> Fleet:
    """Return devices with accents by their share, each with a voice of its own accent."""
    speakers = {
        label: [np.array([vector_of(clip) for clip in clips]) for clips in found]
        for label, found in speech.owners().items()
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

    @property
    def limit(self) -> float:
        """The base's threshold, a logit."""
        return logit(self.base.threshold)

    def heads(self, plan: TrainPlan, blocks: Blocks, penalty: float = PENALTY) -> Heads:
        """Return the head of each accent."""
        steps, _ = shrunk(blocks)
        adapters = refit(steps, plan, self.base, "bench", self.public, penalty)
        return [step_of(adapters, label) for label in LABELS]

    def base_heads(self) -> Heads:
        """Return the base as the head of every accent."""
        return [(BASE, self.limit)] * len(LABELS)

    def fitted(self, clips: Iterable[Sequence[Windows]]) -> Heads:
        """Return heads fitted on each accent's own clips: no privacy at all, and no mean in between."""
        learned, unseen = self.public.anchors().halves()
        others = [each.peak(AROUND) for each in (*learned.human, *learned.near)]
        steps = [fit([clip.peak(AROUND) for clip in own], others, PENALTY) for own in clips]
        return [(step, threshold(step, unseen, self.limit)) for step in steps]

    def pooled(self) -> Heads:
        """Return heads where the server has every clip that the devices' owners said."""
        return self.fitted(
            [clip for clips in found for clip in clips] for found in self.speech.owners().values()
        )

    def fitted_on_test(self) -> Heads:
        """Return heads fitted on the very clips that are measured: what an adapter of this form can do."""
        return self.fitted(self.speech.of("test", WAKE_PHRASES, label) for label in LABELS)


# What comes of it.


@dataclass(frozen=True)
class Measured:
    """Shares of rounds in which each clip is missed or wakes.

    Attributes:
        missed: of each accent's calls, by its own head. voices: who spoke each of them.
        near, near_voices: each near miss, over the heads by share of the fleet.
        near_by_head: share of all near misses, (heads,). human: each segment, as `near`.
        equal: as `missed`, with each head at the lowest threshold where no more of the measured near misses
        and human segments wake it than the base: how well heads tell them apart, wherever a threshold is.
    """

    missed: tuple[Floats, ...]
    voices: tuple[tuple[str, ...], ...]
    near: Floats
    near_voices: tuple[str, ...]
    near_by_head: Floats
    human: Floats
    equal: tuple[Floats, ...]

    @property
    def rejects(self) -> Floats:
        """False reject rate of each accent, (A,)."""
        return np.array([each.mean() for each in self.missed])

    @property
    def mean(self) -> float:
        """False reject rate, weighted by each accent's share of the fleet."""
        return float(SHARES @ self.rejects)

    @property
    def equal_rejects(self) -> Floats:
        """As `rejects`, of `equal`."""
        return np.array([each.mean() for each in self.equal])

    @property
    def hours(self) -> float:
        """Of human speech that was measured."""
        return len(self.human) * SEGMENT_SECONDS / 3600

    def mean_limits(self) -> tuple[float, float]:
        """Return 95% limits of `mean`: speakers are drawn again, within each accent (bootstrap)."""
        random = np.random.default_rng(0)
        drawn = [
            _resampled(missed, names, random) for missed, names in zip(self.missed, self.voices, strict=True)
        ]
        return _limits(SHARES @ np.array(drawn))

    def near_limits(self) -> tuple[float, float]:
        """Return 95% limits of the near misses that wake: speakers are drawn again (bootstrap)."""
        return _limits(_resampled(self.near, self.near_voices, np.random.default_rng(0)))


def _resampled(values: Floats, names: Sequence[str], random: np.random.Generator) -> Floats:
    """Return means over speakers drawn with replacement, (RESAMPLED,); each has as many values."""
    own = np.array([values[np.array(names) == name].mean() for name in dict.fromkeys(names)])
    return np.asarray(own[random.integers(len(own), size=(RESAMPLED, len(own)))].mean(axis=1))


def _limits(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def measure(heads: Heads, speech: Voices, limit: float, group: Set = "test") -> Measured:
    """Measure the head of each accent on speakers that nothing has seen. `limit`: the base's threshold."""
    lines = MEASURED if group == "test" else CHOSEN
    near, human = speech.of(group, lines), speech.human[1::2]
    nears, humans = (np.array([wakes(each, clips) for each in heads]) for clips in (near, human))
    equal = [(step, max(level(step, tuple(clips), limit) for clips in (near, human))) for step, _ in heads]
    return Measured(
        missed=_missed(heads, speech, group),
        voices=tuple(_who(speech, group, WAKE_PHRASES, label) for label in LABELS),
        near=SHARES @ nears,
        near_voices=_who(speech, group, lines, None),
        near_by_head=nears.mean(axis=1),
        human=SHARES @ humans,
        equal=_missed(equal, speech, group),
    )


def _missed(heads: Heads, speech: Voices, group: Set) -> tuple[Floats, ...]:
    """Return which calls of each accent its own head misses, 0 or 1."""
    return tuple(
        1.0 - wakes(each, speech.of(group, WAKE_PHRASES, label))
        for each, label in zip(heads, LABELS, strict=True)
    )


def wakes(head: tuple[Step, float], clips: Sequence[Windows]) -> Floats:
    """Return which clips wake a head, 0 or 1, (n,)."""
    step, level = head
    return np.array([float((step.logits(each) > level).any()) for each in clips])


def _who(speech: Voices, group: Set, texts: Sequence[str], accent: str | None) -> tuple[str, ...]:
    return tuple(
        each.voice
        for each in speech.said
        if each.group == group and each.text in texts and accent in (None, each.accent)
    )


def averaged(found: Sequence[Measured]) -> Measured:
    """Return several rounds, measured on the same clips, as one."""

    def by_accent(parts: Iterable[tuple[Floats, ...]]) -> tuple[Floats, ...]:
        return tuple(np.asarray(np.mean(each, axis=0)) for each in zip(*parts, strict=True))

    return Measured(
        missed=by_accent(each.missed for each in found),
        voices=found[0].voices,
        near=np.mean([each.near for each in found], axis=0),
        near_voices=found[0].near_voices,
        near_by_head=np.mean([each.near_by_head for each in found], axis=0),
        human=np.mean([each.human for each in found], axis=0),
        equal=by_accent(each.equal for each in found),
    )
