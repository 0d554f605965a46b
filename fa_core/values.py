"""The frozen values that travel: Layout, Release, Estimates.

Each is made by one pure function from the one before it (docs/architecture.md) and is never changed.
Exact numbers are `fractions.Fraction`; the noise and its cost are never floats until they are shown.
"""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final, Literal

from fa_core.arrays import FloatArray as FloatArray
from fa_core.arrays import Int64Array as Int64Array

Accounting = Literal["zcdp", "pure"]
Mechanism = Literal["discrete_gaussian", "geometric"]
NoiseMode = Literal["central", "distributed"]
Counters = Literal["joint", "blocks"]
SumMode = Literal["four_stages", "two_aggregators"]
Verdict = Literal["met", "broken", "not_enough_evidence"]

TABLES: Final = "tables"
"""The engine that counts a fleet directory without a protocol."""

HERE: Final = ("local", "simulation", TABLES)
"""The engines of one machine, which need no federation; none has one of these names."""

STEPS: Final = "steps"
"""The part of a block that sums steps of training: what one device adds to it names its speaker."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of cells of the vector that is bounded, noised and charged as one.

    Attributes:
        metric: name of the metric in the plan.
        grouping: the segment names it is broken down by; () is everyone.
        part: what the cells hold, in the metric kind's own words ("excess", "events", "devices", …).
        start: index of the first cell in the vector.
        cells: number of cells.
        l1: bound on the sum of absolute values that one device adds.
        l2_squared: bound on the sum of squares that one device adds.
        linf: bound on the absolute value that one device adds to one cell.
        cost: what the block is charged, rho under "zcdp", epsilon under "pure".
        variance: variance of the noise added to each cell of the sum, in squared cell units. Under
            distributed noise it is the variance that the smallest admissible cohort must reach.

    >>> from fractions import Fraction
    >>> block = Block("misses", (), "events", start=4, cells=3, l1=8, l2_squared=64, linf=8,
    ...               cost=Fraction(1, 50), variance=Fraction(1600))
    >>> block.stop, block.slice
    (7, slice(4, 7, None))
    """

    metric: str
    grouping: tuple[str, ...]
    part: str
    start: int
    cells: int
    l1: int
    l2_squared: int
    linf: int
    cost: Fraction
    variance: Fraction

    @property
    def stop(self) -> int:
        return self.start + self.cells

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a plan compiles to: where each count stands in the vector, what it may weigh, what it costs.

    Attributes:
        plan_hash: hex SHA-256 of the plan's canonical bytes.
        blocks: in the order of the vector, without gaps.
        accounting: the currency of `cost`.
        mechanism: the noise of every block.
        noise: who adds it, the server ("central") or every device its share ("distributed").
        cost: total charge of one release, per device.
        epsilon, delta: what `cost` converts to, as claimed in the plan.
        modulus_bits: 32 or 64, the ring of secure aggregation.
        reason: why this mechanism, for a person.
        kappa: where two aggregators form the sum, the leader's noise has kappa times the variance of the
            helper's, which is the block's. None where devices do in four stages.
    """

    plan_hash: str
    blocks: tuple[Block, ...]
    accounting: Accounting
    mechanism: Mechanism
    noise: NoiseMode
    cost: Fraction
    epsilon: Fraction
    delta: Fraction
    modulus_bits: Literal[32, 64]
    reason: str
    kappa: Fraction | None = None

    @property
    def length(self) -> int:
        """Number of cells in the vector."""
        return self.blocks[-1].stop if self.blocks else 0


@dataclass(frozen=True, slots=True)
class Participation:
    """Public facts of a round: how many devices were invited, joined, dropped out, and were counted."""

    invited: int
    joined: int
    dropped: int
    counted: int


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """Noised sums, and everything public that is needed to read them.

    Attributes:
        id: 32 hex digits, chosen by the aggregator before the round, bound into every key.
        plan: canonical bytes of the plan.
        population: name of the population whose budget was charged.
        engine: one of `HERE`, or the name of a federation.
        simulated: True for ever where a seed, an in-process fleet or a synthetic fleet took part.
        created: when the release was made, UTC.
        window_start, window_end: the events counted are in [start, end), UTC.
        sums: int64, one per cell of the layout: noised, in units of 1/scale.
        scales: int64, one per block: the public factor that each cell was multiplied by.
        noise_variance: float64, one per block: variance of the noise in each cell, in squared cell
            units (after division by the scale), as it really was in this release.
        secure_aggregation: False where the server saw single vectors.
    """

    id: str
    plan: bytes
    layout: Layout
    population: str
    engine: str
    simulated: bool
    created: datetime
    window_start: datetime
    window_end: datetime
    participation: Participation
    sums: Int64Array
    scales: Int64Array
    noise_variance: FloatArray
    secure_aggregation: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a histogram, a DET curve or a confusion matrix. Fields as in `Estimate`.

    `labels` names the cell, axis by axis: (("actual", "lights_on"), ("predicted", "other")).
    """

    labels: tuple[tuple[str, str], ...]
    estimate: float | None
    low: float | None
    high: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    suppressed: bool
    reason: str
    denominator: float | None
    noise_sd: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric in one group, with its interval.

    Attributes:
        group: segment name and label, in the order of the grouping; () is everyone.
        estimate, low, high: in `unit`; None where suppressed. `low` and `high` hold at `level` for
            this cell alone; `simultaneous_low/high` hold at `level` for all planned cells of the
            grouping together and are what rankings and verdicts use.
        noise_low, noise_high: the interval from privacy noise alone.
        suppressed, reason: why there is no number.
        denominator: noisy denominator (events, hours, words, devices).
        noise_sd: standard deviation of the privacy noise on `estimate`.
        devices, devices_sd: the noisy number of devices with something to count, and its noise.
        variance_source: "group", "pooled" or "" (no between-device variance in this kind).
        cells: of a histogram, DET or confusion; then `estimate` and its bounds are None.
    """

    metric: str
    kind: str
    unit: str
    group: tuple[tuple[str, str], ...]
    estimate: float | None
    low: float | None
    high: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    noise_low: float | None
    noise_high: float | None
    level: float
    suppressed: bool
    reason: str
    denominator: float | None
    noise_sd: float | None
    devices: float | None
    devices_sd: float | None
    variance_source: str
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a guardrail came to. `low` and `high` bound the gap, for a gap guardrail.

    `worst` is the group that decides, where one does; `sentence` says it to a person.
    """

    metric: str
    by: tuple[str, ...]
    limit: str
    verdict: Verdict
    worst: tuple[tuple[str, str], ...] | None
    low: float | None
    high: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Estimates:
    """Everything that may be shown of a release."""

    release: str
    level: float
    results: tuple[Estimate, ...]
    judgements: tuple[Judgement, ...]
