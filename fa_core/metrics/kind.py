"""What a metric kind is: the contract that every file of this package fulfils.

A kind is one class in one file. It declares which fields it reads, which cells it fills, what one
device may add to them, how rows become counts, and how noisy sums become numbers with intervals.
Nothing outside its file knows it: it is found by its `kind` name through `register`.

Counts are a commutative monoid: per-device arrays add up to a fleet's, in any order and split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fa_core.arrays import BoolArray as BoolArray
from fa_core.arrays import FloatArray as FloatArray
from fa_core.arrays import Int64Array as Int64Array
from fa_core.arrays import TextArray, np
from fa_core.constraints import Constraints, Forms
from fa_core.errors import BadInput
from fa_core.metrics.filters import Filter
from fa_core.metrics.rows import Rows, View
from fa_core.values import Counters


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the plan lets one device weigh, and how its counts are sent.

    Attributes:
        max_events: N, the most events that count.
        max_excess: B, the most events of excess; None clips nothing. Only plans of before have it.
        counters: "joint" for one integer map of all that a kind counts in a group, where it has one;
            "blocks" for a block of each; None in plans of before, whose squares are clipped at half.
    """

    max_events: int
    max_excess: int | None = None
    counters: Counters | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """A segment as a kind sees it: how many labels it has (`other` included), and of what it is a fact."""

    name: str
    labels: int
    level: Literal["device", "event"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A grouping as a kind sees it: `cells` groups (`other` included), of which one device may touch
    at most `touch` (1 unless an event-level segment is among them). `axes` are its segments in order."""

    cells: int
    touch: int
    axes: tuple[Axis, ...] = ()

    def spread(self, devices: float, units: float) -> tuple[float, float]:
        """Return the devices expected in a group, and the units of each there, if all is spread evenly."""
        touched = max(1.0, min(float(self.touch), units))
        return devices * touched / self.cells, units / touched


@dataclass(frozen=True, slots=True)
class Part:
    """A block that a kind asks for: its cells, the norms that one device may add, and its weight when the
    grouping's budget is shared among the parts. `linf`, the bound on one cell, is l1 where left out."""

    name: str
    cells: int
    l1: int
    l2_squared: int
    weight: int
    linf: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What a device samples: events, listening hours or pairs, already bounded in number.

    Attributes:
        rows: the rows that they were taken from; segments are read from there.
        index: int64 (M,), row of each unit in `rows`.
        device: int64 (M,), device of each unit.
        values: named int64 arrays (M,), what each unit adds.
    """

    rows: Rows
    index: Int64Array
    device: Int64Array
    values: Mapping[str, Int64Array]


@dataclass(frozen=True, slots=True, eq=False)
class PartSum:
    """The noisy sum of one part: float64 (cells,), the variance of the noise in each, and whether that
    noise is two-sided geometric (Laplace-like tails) rather than Gaussian."""

    values: FloatArray
    variance: float
    laplace: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """How sums are to be read: coverage wanted, the smallest noisy cohort that may be shown, and the
    public number of devices that were counted."""

    level: float
    min_cohort: int
    counted: int


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Arrays of one shape, one entry a number shown; NaN where `suppressed`. `reason` holds text."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    simultaneous_low: FloatArray
    simultaneous_high: FloatArray
    noise_low: FloatArray
    noise_high: FloatArray
    denominator: FloatArray
    noise_sd: FloatArray
    suppressed: BoolArray
    reason: TextArray


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a kind makes of one grouping.

    Attributes:
        numbers: shape (K,), or (K, C) where `labels` names C cells for each group.
        devices: float64 (K,), the noisy number of devices with something to count.
        devices_sd: standard deviation of the noise on it.
        variance_source: text (K,), where the between-device variance came from.
        labels: the cells inside a group, axis by axis; () for a kind with one number a group.
    """

    numbers: Numbers
    devices: FloatArray
    devices_sd: float
    variance_source: TextArray
    labels: tuple[tuple[tuple[str, str], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FieldUse:
    """A column that a metric reads, why, and which types it may have."""

    source: str
    column: str
    purpose: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TooMuch:
    """A limit of the plan under which a bound takes too long to find: the key (the metric's own, or else one
    of `privacy`), what was found, and what would be right."""

    key: str
    found: str
    right: str


Written = Literal["share", "points", "ratio", "number"]
"""A share is written in per cent, a difference of shares in percentage points, a ratio without a unit, any
other number with its unit."""

CellOf = Callable[[Units], Int64Array]
"""Returns the group of each unit, int64 (M,) in [0, K)."""


class MetricSpec(BaseModel):
    """A metric as the plan writes it, and all that follows from it. Kinds subclass this.

    Attributes:
        kind: name of the kind.
        source: the device table that it reads; taken from the plan where left out.
        where: filter on top of the plan's.
        group_by: the groupings to report, taken from the plan where left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    sources: ClassVar[tuple[str, ...]] = ("wake_events", "command_events", "dictation_events", "detections")
    """Sources that this kind can read."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Further tables it joins; filters and event-level segments must be answerable there."""
    question: ClassVar[str] = ""
    """The question that this kind answers, for a person."""
    caps: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Its own keys that limit what one device may weigh; those in one tuple are chosen together."""
    written: ClassVar[Written] = "number"
    """How its numbers are written where `unit` is ""."""

    kind: str
    source: Literal["wake_events", "command_events", "dictation_events", "detections"] | None = Field(
        default=None, description="The device table to read; the plan's where left out."
    )
    where: Filter = Field(default={}, description="A further filter, AND-ed with the plan's.")
    group_by: tuple[tuple[str, ...], ...] | None = Field(
        default=None, description="Which of the plan's groupings to report; all of them where left out."
    )

    def fields(self) -> tuple[FieldUse, ...]:
        """Return the columns read, beyond those of filters and segments."""
        raise NotImplementedError

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        """Return every filter of this metric with the name of the key it stands under."""
        return (("where", self.where),)

    def unit(self) -> str:
        """Return the unit of the numbers shown, for a person; "" for a plain share."""
        return ""

    def guess_text(self) -> str:
        """Return what `expected` guesses of a device beyond its number of events; "" for nothing."""
        return ""

    def denominator(self) -> str:
        """Return what the numbers are divided by, for a person."""
        return "events"

    def estimand(self, bounds: Bounds) -> str:
        """Return in words what the numbers are of, given what one device may weigh: `of at most 24 events a
        device`. It stands beside each number."""
        raise NotImplementedError

    def segment_source(self) -> str:
        """Return the table that event-level segments are read from."""
        assert self.source is not None
        return self.source

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        """Return the blocks for one grouping, with what one device may add to each."""
        raise NotImplementedError

    def too_much(self, bounds: Bounds) -> TooMuch | None:
        """Return why the bounds of `parts` would take too long to find, None where they do not."""
        return None

    def width(self, shape: Shape, bounds: Bounds) -> int:
        """Return how many cells of the vector one grouping takes. A kind whose bounds take numbers to work
        out says it without them, for the check of a plan."""
        return sum(part.cells for part in self.parts(shape, bounds))

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        """Return what each device samples, under the plan's filter `where`. Done once a metric."""
        raise NotImplementedError

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        """Return for each part the bounded counts of each device, int64 (devices, part.cells)."""
        raise NotImplementedError

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        """Return what the parts are functions of, for each device and group: named int64 (devices, K, …).

        Two aggregators have a proof of these (`prove`); all are 0 in a group that a device adds nothing to.

        Raises BadInput for a kind, or a plan of before, that is never summed by two aggregators.
        """
        raise BadInput(f"{self.kind} is not summed by two aggregators; use `sum: four_stages`")

    def prove(self, constraints: Constraints, groups: int, bounds: Bounds) -> dict[str, Forms]:
        """Constrain the tallies of a device that may touch `groups` groups to what an honest one can have.

        The inputs are named as in `tallies`, of shape (groups, …). Returns named forms (groups, …), all 0
        for a device without events: whatever of the tallies and their products `vector` needs. Where one is
        named `PRESENT` it is the bit of whether the device adds anything at all to the group.

        Raises BadInput as `tallies` does.
        """
        raise BadInput(f"{self.kind} is not summed by two aggregators; use `sum: four_stages`")

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        """Return each part's cells, (cells,), as combinations without constants of what `prove` returns,
        given here for every group, (K, …)."""
        raise NotImplementedError

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        """Return numbers with intervals from the noisy sums of one grouping."""
        raise NotImplementedError

    def estimates(
        self, cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], bounds: Bounds, reading: Reading
    ) -> list[Result]:
        """Return what `estimate` does for each grouping of the metric, where groupings tell of each other."""
        return [self.estimate(sums, shape, bounds, reading) for shape, sums in cuts]

    def device_counts(
        self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds
    ) -> tuple[FloatArray, float] | None:
        """Return the noisy number of devices in each group, (K,), and the variance of its noise; None for a
        kind that does not count them."""
        return (sums["devices"].values, sums["devices"].variance) if "devices" in sums else None

    def one_device(self, bounds: Bounds, number: float, denominator: float) -> float | None:
        """Return the most by which a number shown would differ without one of the devices behind it.

        At least 0, in the number's unit, for a device within its bounds; None for a kind without the figure.
        """
        return None

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        """Return the sums that a fleet of `devices` (spread evenly over the cells), each with `events`
        events of its own, is expected to give.

        Fed to `estimate`, they preview the width of the intervals from public facts alone.
        """
        raise NotImplementedError


PRESENT: Final = "present"
"""The name of the bit of a group that a device adds something to."""

SpecT = TypeVar("SpecT", bound=MetricSpec)

KINDS: dict[str, type[MetricSpec]] = {}
"""Every metric kind by name, filled by `register`."""


def register(kind: type[SpecT]) -> type[SpecT]:
    """Class decorator: make a kind known under the value of its `kind` field.

    Raises ValueError where the name is taken by another class.
    """
    name = str(kind.model_fields["kind"].default)
    if KINDS.setdefault(name, kind) is not kind:
        raise ValueError(f"a metric kind named {name!r} is there already")
    return kind


def many(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> many(1, "hour"), many(24, "event")
    ('1 hour', '24 events')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def of_events(bounds: Bounds) -> str:
    """Return the estimand of a kind that samples single events.

    >>> of_events(Bounds(24))
    'of at most 24 events a device'
    """
    return f"of at most {many(bounds.max_events, 'event')} a device"


def tally(units: Units, key: Int64Array, size: int, value: str) -> Int64Array:
    """Return Σ of a named value over units with the same key, int64 (size,).

    Sums stay far below 2^53, where float64 accumulation is exact.
    """
    return np.bincount(key, weights=units.values[value], minlength=size).astype(np.int64)


def rational(value: Fraction) -> tuple[int, int]:
    """Return a public guess as a ratio (a, b) of small integers: its nearest with b ≤ 1000.

    >>> rational(Fraction("0.05"))
    (1, 20)
    """
    near = value.limit_denominator(1000)
    return near.numerator, near.denominator
