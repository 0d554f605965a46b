"""`kind: TrainPlan`: a plan that asks for what a head is adapted with, in place of numbers about it.

It is a `Plan`: its author writes what is trained and how, and what every plan has besides (its one metric,
the table, the filter, the grouping) follows from that and stands in its canonical form, so layout, rounds,
ledger, receipts and log treat it as any other. `rules` holds what a vector that names its speaker needs;
devices ask for the same, because they read plans with the same checks.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictStr

from fa_core.metrics.features import NormHistogram, OneShotMeans
from fa_core.metrics.filters import Condition, Exact
from fa_core.metrics.kind import MetricSpec
from fa_core.plan.located import Finding
from fa_core.plan.problems import show
from fa_core.plan.schema import EventSegment, Label, Plan, Privacy, Section, Segment
from fa_core.tables import VECTOR

LEAST_BLOCK: Final = 100
"""No block of a training plan is used with fewer devices than this, by its noisy count."""

METRIC: Final = "features"
"""What the one metric of a training plan is called in its vector and its release."""

DERIVED: Final = ("source", "where", "group_by", "metrics", "guardrails")
"""Keys of a plan that no author of a training plan writes."""

Hash = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
Center = Annotated[tuple[Exact, ...], Field(min_length=VECTOR, max_length=VECTOR)]
Clip = Annotated[Exact, Field(gt=0, le=1000)]
ReleaseId = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{32}$")]


class Base(Section):
    """The frozen head that is adapted."""

    wake_word: Label = Field(description="The wake word that it listens for.")
    version: Label = Field(description="Its version, as `model_version` of events has it.")
    sha256: Hash = Field(
        description="SHA-256 of its published artefact, 64 hexadecimal digits: only moments of it count."
    )


class Gates(Section):
    """What holds a candidate: each is a limit for `fa train run`, checked on public data and noisy sums."""

    near_misses: Exact = Field(
        default=0,
        ge=0,
        le=1,
        validate_default=True,
        description="By how much more near misses may wake the candidate than the base, as a share.",
    )
    phrases: Exact = Field(
        default=0,
        ge=0,
        le=1,
        validate_default=True,
        description="The same for a list of phrases that training never sees.",
    )
    bound: Exact = Field(
        default=1,
        gt=0,
        le=1,
        validate_default=True,
        description="How long a group's mean may be, as a share of the clip: 1 is as long as any device's.",
    )
    shift: Exact = Field(
        default="0.25",
        gt=0,
        le=2,
        validate_default=True,
        description="How far a group's mean may move since the release before, as a share of the clip.",
    )
    count: Exact = Field(
        default=2,
        gt=1,
        le=100,
        validate_default=True,
        description="By which factor a group's share of the devices may differ from the release before.",
    )


class TrainPlan(Plan):
    """A training plan that has passed every check."""

    kind: Literal["TrainPlan"] = Field(description="What this file is: TrainPlan.")  # type: ignore[assignment]
    base: Base = Field(description="The frozen head that is adapted.")
    adapter: Literal["frame1"] = Field(
        description="What changes: frame1, 96 weights and a bias beside a frozen head."
    )
    method: Literal["one_shot_means", "norm_histogram"] = Field(
        description="one_shot_means sends a clipped mean of features a device; norm_histogram sends only in "
        "which of 28 bins its length falls, to choose the clip by."
    )
    center: Center = Field(
        description="The mean features of public speech, 97 numbers, from `fa train center`.",
    )
    clip: Clip | None = Field(
        default=None,
        description="The longest difference from the centre that counts in full, from `fa train clip`.",
    )
    clip_from: ReleaseId | None = Field(
        default=None, description="The release of norm_histogram that the clip was chosen by."
    )
    gates: Gates = Field(default=Gates(), description="What holds a candidate.")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The label of each block in the order of the vector; `everyone` where there is no segment."""
        return next((segment.labels for segment in self.segments.values()), ("everyone",))


def derived(fields: Mapping[str, Any], segments: Mapping[str, Segment]) -> dict[str, Any]:
    """Return what follows from a training plan's sound fields: those of `DERIVED`, `metrics` by name.

    A metric is there only if what it is made of is.
    """
    base: Base | None = fields.get("base")
    where = {}
    if base is not None:
        where = {
            "base": Condition.model_validate(base.sha256),
            "wake_word": Condition.model_validate(base.wake_word),
        }
    grouping = (tuple(sorted(segments)),)
    metric: MetricSpec | None = None
    center, clip = fields.get("center"), fields.get("clip")
    if center is not None and fields.get("method") == "norm_histogram":
        metric = NormHistogram(center=center, group_by=grouping)
    elif center is not None and clip is not None and fields.get("method") == "one_shot_means":
        metric = OneShotMeans(center=center, clip=clip, group_by=grouping)
    metrics = {} if metric is None else {METRIC: metric}
    return {"source": None, "where": where, "group_by": grouping, "metrics": metrics, "guardrails": ()}


def rules(fields: Mapping[str, Any], segments: Mapping[str, Segment]) -> Iterator[Finding]:
    """Yield what a training plan asks for that none may. What is sent is biometric: it names its speaker."""
    eligibility, privacy = fields.get("eligibility"), fields.get("privacy")
    if eligibility is not None and eligibility.consent != "personalisation":
        found = f"consent to {eligibility.consent} is not for training"
        yield Finding(("eligibility", "consent"), found, "write `consent: personalisation`")
    if privacy is not None:
        yield from _privacy(privacy)
    yield from _method(fields, segments)


def _privacy(privacy: Privacy) -> Iterator[Finding]:
    if privacy.noise != "distributed":
        found = "with central noise the server would see the exact sum of vectors that name their speakers"
        yield Finding(("privacy", "noise"), found, "write `noise: distributed`, or leave it out")
    if privacy.sum == "two_aggregators":
        found = "leader and helper together would read a vector that names its speaker"
        yield Finding(("privacy", "sum"), found, "write `sum: four_stages`, or leave it out")
    if not privacy.secure_aggregation:
        found = "without secure aggregation the server would see a vector that names its speaker"
        yield Finding(("privacy", "secure_aggregation"), found, "write true, or leave it out")
    if privacy.min_cohort < LEAST_BLOCK:
        found = f"min_cohort {privacy.min_cohort} is too few for a training plan"
        yield Finding(("privacy", "min_cohort"), found, f"write {LEAST_BLOCK} or more devices a block")


def _method(fields: Mapping[str, Any], segments: Mapping[str, Segment]) -> Iterator[Finding]:
    if "method" not in fields:
        return
    means = fields["method"] == "one_shot_means"
    if means and fields.get("clip") is None and "clip" in fields:
        right = "add `clip:`; `fa train clip` proposes one from a release of norm_histogram"
        yield Finding(("method",), "`clip` is missing", right, at_key=True)
    if not means:
        for key in ("clip", "clip_from"):
            if fields.get(key) is not None:
                found = f"norm_histogram clips nothing, and has no `{key}`"
                yield Finding((key,), found, "take it out", at_key=True)
    most = 1 if means else 0
    for name in list(segments)[most:]:
        found = f"{show(name)} is one segment too many"
        right = "train by one segment" if means else "norm_histogram measures everyone together: take it out"
        yield Finding(("segments", name), found, right, at_key=True)
    for name, segment in segments.items():
        if isinstance(segment, EventSegment):
            found = f"{show(name)} is of events: one device would be in several blocks"
            yield Finding(("segments", name), found, "train by a fact of the device, as {device: accent, …}")
