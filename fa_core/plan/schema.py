"""The plan as a value: what an evaluation plan says, in frozen models that refuse unknown keys.

The models hold what one field can say about itself (type, range, closed list). Whatever needs two
fields, a policy or a calendar is in `checks.py`. The descriptions go into the JSON Schema that an
editor shows, so each is the sentence that an author needs at that key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_serializer,
)

from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.kind import MetricSpec
from fa_core.tables import DEVICE_FACTS
from fa_core.values import Accounting, Counters, NoiseMode, SumMode

OTHER: Final = "other"
"""The label of every segment for whatever its plan does not name, a missing value included."""

NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,47}$"
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _is_none(value: object) -> bool:
    return value is None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _window(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a length of time such as 7d, 24h or 30m")
    return int(match.group(1)) * _UNITS[match.group(2)]


def window_text(window: timedelta) -> str:
    """Return a window in the largest unit that it is a whole number of: 24 hours are `1d`.

    >>> window_text(timedelta(days=7)), window_text(timedelta(hours=36))
    ('7d', '36h')
    """
    unit = next(u for u in ("d", "h", "m") if window % _UNITS[u] == timedelta())
    return f"{window // _UNITS[unit]}{unit}"


def _day(value: object) -> date:
    if type(value) is date:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    raise ValueError("expected a date such as 2027-03-31")


SourceName = Literal["wake_events", "command_events", "dictation_events", "detections"]
Name = Annotated[StrictStr, Field(pattern=NAME_PATTERN)]
Label = Annotated[StrictStr, Field(min_length=1, max_length=64)]
Aliases = Annotated[
    Mapping[Label, Annotated[tuple[Label, ...], Field(min_length=1, max_length=200)]],
    Field(min_length=1),
]
Groupings = Annotated[tuple[tuple[Name, ...], ...], Field(min_length=1, max_length=32)]
EventValue = Label | StrictBool | StrictInt
Window = Annotated[
    timedelta,
    BeforeValidator(_window),
    PlainSerializer(window_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,5}[mhd]$", "examples": ["7d", "24h", "30m"]}),
]
Day = Annotated[
    date,
    BeforeValidator(_day),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2027-03-31"]}),
]


class Section(BaseModel):
    """Base of every part of a plan: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Metadata(Section):
    """Who asks what, and until when."""

    name: Name = Field(
        description="Name of the plan, the same over all its revisions: small letters, digits, `_` and `-`."
    )
    revision: StrictInt = Field(
        ge=1, le=1_000_000, description="Counts up whenever the plan changes: 1, 2, 3, …"
    )
    owner: Annotated[StrictStr, AfterValidator(_one_line), Field(min_length=1, max_length=100)] = Field(
        description="The team that answers for this plan, shown to device owners and reviewers."
    )
    question: Annotated[StrictStr, AfterValidator(_one_line), Field(min_length=1, max_length=400)] = Field(
        description="The question that the plan answers, in one sentence; device owners and reviewers see it."
    )
    schedule: Literal["daily", "weekly", "monthly"] | None = Field(
        default=None,
        exclude_if=_is_none,
        description="How often `fa schedule --run` asks it: once a day, week (from Monday) or month (UTC).",
    )
    expires: Day = Field(description="The last day (UTC) on which a device may answer, as 2027-03-31.")


class DeviceSegment(Section):
    """Groups by a fact of the device, such as its accent. A device is in exactly one label."""

    device: Literal[DEVICE_FACTS] = Field(  # type: ignore[valid-type]
        description="The fact of the device to group by; it is private, and never sent as such."
    )
    values: tuple[Label, ...] = Field(
        min_length=1,
        max_length=200,
        description="The values that get a label of their own. Every other value is counted as `other`.",
    )
    aliases: Aliases | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Other spellings of a value in the tables, as {en-GB-scotland: [scottish english]}.",
    )

    level: ClassVar[Literal["device"]] = "device"

    @property
    def column(self) -> str:
        """The fact that it groups by."""
        return str(self.device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the cells; the last is `other`."""
        return (*self.values, OTHER)


class EventSegment(Section):
    """Groups by a column of the events. Either `values`, or `edges` with `labels`.

    Label i of `edges` holds edges[i-1] <= value < edges[i]; the first and the last are open-ended. A
    missing value, or one that is not named, is `other`.
    """

    event: StrictStr = Field(
        description="The column to group by. A device may be in several labels, so each one needs its noise."
    )
    values: tuple[EventValue, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The values that get a label of their own. Every other value is counted as `other`.",
    )
    aliases: Aliases | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Other spellings of a value in the tables, as {en-GB-scotland: [scottish english]}.",
    )
    edges: tuple[Exact, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Where a number is divided, ascending: [8, 18] makes under 8, 8 to under 18, and 18 up.",
    )
    names: tuple[Label, ...] | None = Field(
        default=None,
        alias="labels",
        min_length=2,
        max_length=201,
        description="One label for each part between the edges, so one more than there are edges.",
    )

    level: ClassVar[Literal["event"]] = "event"

    @property
    def column(self) -> str:
        """The column that it groups by."""
        return self.event

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the cells; the last is `other`. Truth values read `true`, `false`."""
        named = self.names if self.values is None else tuple(label_text(value) for value in self.values)
        return (*(named or ()), OTHER)


Segment = DeviceSegment | EventSegment


def spellings(segment: Segment) -> dict[str, int]:
    """Return every spelling of a segment's values in the tables, aliases too, with the place of its label.

    Only for a segment by values; the place of `other`, len(segment.labels) - 1, is nobody's.
    """
    places = {label: place for place, label in enumerate(segment.labels[:-1])}
    named = {alias: places[label] for label, found in (segment.aliases or {}).items() for alias in found}
    return places | named


def label_text(value: str | bool | int) -> str:
    """Return the label of a segment value: itself, or `true`, `false`, or the digits of a whole number."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Eligibility(Section):
    """Which devices take part, and what their owners have agreed to."""

    require: tuple[Literal["charging", "idle", "unmetered_network"], ...] = Field(
        default=(), description="What must hold on a device at the moment that it answers."
    )
    consent: Literal["quality_metrics", "personalisation", "debug"] = Field(
        default="quality_metrics",
        description="What the owner must have agreed to. Without it a device stays out.",
    )
    sample: Exact = Field(
        default=Fraction(1),
        gt=0,
        le=1,
        description="Share of the fleet to invite, above 0 and up to 1. No privacy is claimed for it.",
    )


class Share(Section):
    """How much of a release's budget goes to one metric in one grouping."""

    metric: Name = Field(description="The metric of this plan.")
    by: tuple[Name, ...] = Field(
        default=(), description="The grouping, as the metric reports it; everyone together where left out."
    )
    share: Exact = Field(
        gt=0, le=1, description="Its share of the whole budget, as 0.2 or 1/5. All together they are 1."
    )

    @field_validator("by", mode="before")
    @classmethod
    def _one_segment(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        """The metric and the segments, in whatever order they are written."""
        return self.metric, frozenset(self.by)


class Privacy(Section):
    """What one device may lose by the release, how the noise is added, and what one device may weigh."""

    epsilon: Exact = Field(
        gt=0,
        le=100,
        description="Privacy loss of this release for each device. Smaller is more private and wider.",
    )
    delta: Exact = Field(
        default=Fraction(1, 10**8),
        ge=0,
        lt=1,
        description="Chance that the loss is above epsilon: far below 1/min_cohort, 0 if accounting is pure.",
    )
    rho: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="What the ledger is charged under zCDP. Leave it out: it follows from epsilon and delta.",
    )
    alpha: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="The order at which rho is shown to imply epsilon and delta. Leave it out, as rho.",
    )
    noise: NoiseMode = Field(
        default="distributed",
        description="Who adds the noise: each device its share, so that the server never sees an exact sum "
        "(distributed), or the server, which then sees the exact sum (central).",
    )
    accounting: Accounting = Field(
        default="zcdp",
        description="Currency of the ledger: zcdp, or pure for a few releases with central noise.",
    )
    mechanism: Literal["auto", "discrete_gaussian", "geometric"] = Field(
        default="auto", description="The noise. `auto` compares the widths to expect, and says why it chose."
    )
    max_events: StrictInt = Field(
        default=64,
        ge=1,
        le=100_000,
        description="N: at most so many events of a device count, drawn at random. More events, more noise.",
    )
    max_excess: StrictInt | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="B: clipped how far one device may pull a rate, in plans of before. Lower max_events.",
    )
    min_cohort: StrictInt = Field(
        default=100,
        ge=2,
        le=10**9,
        description="A group with fewer devices than this (by a noisy count) is not shown.",
    )
    counters: Counters | None = Field(
        default=None,
        description="How a device's counts are sent: one integer map of all that a metric counts in a group "
        "(joint), or a block of each (blocks), which pure accounting needs. Left out, as accounting asks.",
    )
    shares: tuple[Share, ...] | None = Field(
        default=None,
        description="How the budget is shared among the metrics' groupings. What is not named divides the "
        "rest: a fifth of a metric's part to each coarser grouping, the remainder to its finest.",
    )
    secure_aggregation: StrictBool = Field(
        default=True, description="Whether the server sees only the sum. Distributed noise needs it."
    )
    dropout: Exact = Field(
        default=Fraction(1, 10),
        ge=0,
        lt=Fraction(1, 2),
        description="Share of the devices that may drop out of a round before it fails.",
    )
    corrupt: Exact = Field(
        default=Fraction(1, 10),
        ge=0,
        lt=Fraction(1, 2),
        description="Share of the devices that may work with the server before a device could be exposed.",
    )

    sum: SumMode = Field(
        default="four_stages",
        description="How the sum is formed: by the devices together, in four stages for which each stays "
        "(four_stages), or by a leader and a helper, to whom each device uploads once (two_aggregators).",
    )
    kappa: Annotated[Exact, Field(gt=0, le=1)] | None = Field(
        default=None,
        exclude_if=_is_none,
        description="With two_aggregators: the variance of the leader's noise, as a share of the helper's, "
        "above 0 and up to 1. More widens intervals, and protects more from a curious helper.",
    )

    @model_serializer(mode="wrap")
    def _spelled(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans of before lack `counters` and `shares`, and they alone may clip: their bytes stay theirs.

        Plans whose sum devices form in four stages do not say so, since the first plans do not.
        """
        body: dict[str, Any] = handler(self)
        absent = ("counters", "shares") if self.counters is None else ("max_excess",)
        if self.sum == "four_stages":
            absent = (*absent, "sum")
        return {key: value for key, value in body.items() if key not in absent}


class OperatingPoint(Section):
    """Where on a DET curve a guardrail judges. Give one of the three."""

    threshold: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="At this threshold, an edge between the bins: `max` limits the false reject rate.",
    )
    false_accepts_per_hour: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="At the threshold that each group needs for at most so many false accepts per hour: "
        "`max` limits the false reject rate.",
    )
    false_reject_rate: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="At the threshold that each group needs for at most this false reject rate: `max` limits "
        "the false accepts per hour.",
    )
    axis: Literal["false_reject_rate", "false_accepts_per_hour"] | None = Field(
        default=None,
        exclude_if=_is_none,
        description="With `threshold`: which of the two is judged; the false reject rate where left out.",
    )

    @property
    def judged(self) -> str:
        """The axis that is judged."""
        if self.threshold is not None:
            return self.axis or "false_reject_rate"
        return "false_reject_rate" if self.false_accepts_per_hour is not None else "false_accepts_per_hour"


class Guardrail(Section):
    """A limit that a metric must keep. Judged with intervals that hold for all groups together."""

    metric: Name = Field(description="The metric of this plan that is judged.")
    by: tuple[Name, ...] = Field(
        default=(), description="The grouping whose groups are judged; everyone together where left out."
    )
    at: OperatingPoint | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Where a DET curve is judged, as {false_accepts_per_hour: 0.5} or {threshold: 0.7}.",
    )
    max: Exact | None = Field(default=None, description="No group may be above this, in the metric's unit.")
    min: Exact | None = Field(
        default=None,
        exclude_if=_is_none,
        description="No group may be below this, in the metric's unit: for what is better the higher it is.",
    )
    max_gap: Exact | None = Field(
        default=None,
        description="The worst and the best group may be no further apart, in the metric's unit.",
    )

    @field_validator("by", mode="before")
    @classmethod
    def _one_segment(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def _sorted(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items()))


class Plan(Section):
    """An evaluation plan that has passed every check: presets expanded, defaults written out.

    Mappings are sorted by key, whatever their order in the file, so two files that say the same make
    equal plans with equal canonical bytes, and every party lays out the same vector. Each metric has
    its `source` and its `group_by` filled in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    api_version: Literal["fa/v1"] = Field(
        alias="apiVersion", description="The version of the plan language: fa/v1."
    )
    kind: Literal["EvalPlan"] = Field(description="What this file is: EvalPlan.")
    metadata: Metadata = Field(description="Who asks what, and until when.")
    source: SourceName | None = Field(
        default=None, description="The device table that metrics read, where they do not name their own."
    )
    window: Window = Field(description="How far back from the run events count: 7d, 24h or 30m.")
    where: Annotated[Filter, AfterValidator(_sorted)] = Field(
        default={}, description="Which rows count at all, for every metric. Conditions are AND-ed."
    )
    segments: Annotated[Mapping[str, Segment], AfterValidator(_sorted)] = Field(
        default={}, description="Ways to cut the numbers, each with a public, closed list of labels."
    )
    group_by: Groupings = Field(
        default=((),),
        description="The groupings to report, each a list of segments; [] is everyone. Every grouping costs.",
    )
    metrics: Annotated[Mapping[str, SerializeAsAny[MetricSpec]], AfterValidator(_sorted)] = Field(
        description="What is measured: a list of presets, or `name: {kind: …}` or `name: preset` each."
    )
    eligibility: Eligibility = Field(
        default=Eligibility(), description="Which devices take part, and what their owners agreed to."
    )
    privacy: Privacy = Field(description="What a device may lose, and how it is kept to that.")
    guardrails: tuple[Guardrail, ...] = Field(
        default=(), description="Limits that the results are judged by."
    )

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical bytes: the name of exactly this plan."""
        return hashlib.sha256(canonical(self)).hexdigest()

    @property
    def name(self) -> str:
        """Name and revision, as a person cites the plan: `wake-word-weekly@3`."""
        return f"{self.metadata.name}@{self.metadata.revision}"


def canonical(plan: Plan) -> bytes:
    """Return the one spelling of a plan: JSON, keys sorted, exact numbers as decimal text, ASCII only.

    It holds everything that changes the meaning, defaults and expanded presets included, and is what
    is hashed and signed. `rho` and `alpha` are left out where a plan has none: their keys are younger than
    the first plans, whose bytes stay what they were.
    """
    body = plan.model_dump(mode="json", by_alias=True)
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
