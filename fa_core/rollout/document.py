"""`kind: Rollout`: what a rollout says, in frozen models that refuse unknown keys, and the reading of it.

A rollout takes one candidate model to the devices of one population for one wake word. Its gate reads the
releases of one evaluation plan, its live stages those of another; both are named by their SHA-256, as are the
models and the result of the controlled test set, so that whoever signs the document signs all of them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, StrictStr, TypeAdapter, ValidationError

from fa_core.errors import BadInput
from fa_core.metrics.filters import Exact, exact_text
from fa_core.plan import BadPlan
from fa_core.plan.located import Finding, Loc, Located
from fa_core.plan.problems import Position, Problem, Problems, show
from fa_core.plan.scalars import tree_of
from fa_core.plan.schema import Day, Label, Name, Section, Window
from fa_core.plan.tree import MAX_BYTES
from fa_core.plan.words import findings_of, what

MOST_LOOKS = 26
LONGEST_LEASE = timedelta(days=30)


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("expected a SHA-256, 64 small hex digits")
    return text


Sha256 = Annotated[StrictStr, AfterValidator(_sha256)]
Line = Annotated[StrictStr, AfterValidator(lambda text: " ".join(text.split())), Field(min_length=1)]
Alpha = Annotated[Exact, Field(gt=0, lt=0.5)]
Rate = Annotated[Exact, Field(gt=0, le=1)]


class Metadata(Section):
    """Who rolls out what, and until when."""

    name: Name = Field(description="Name of the rollout, the same over all its revisions.")
    revision: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        description="Counts up with each new try: 1, 2, 3, …"
    )
    owner: Line = Field(max_length=100, description="The team that answers for this rollout.")
    question: Line = Field(max_length=400, description="What the rollout is to find out, in one sentence.")
    expires: Day = Field(description="The last day (UTC) of the rollout, as 2027-03-31.")


class Model(Section):
    """One model, as `fa model add` names it."""

    version: Label = Field(description="Its version, as `model_version` of the devices' tables has it.")
    sha256: Sha256 = Field(description="SHA-256 of its bytes, 64 hex digits; `fa model list` shows it.")


class Models(Section):
    """The model in the field, the one that may replace it, and what no device may go back behind."""

    baseline: Model = Field(description="The model in the field. Every device keeps it.")
    candidate: Model = Field(description="The model that may replace it: a head, an adapter or thresholds.")
    floor: Label = Field(description="The oldest version that a device may still load.")


class Gate(Section):
    """What the candidate must pass before it acts anywhere."""

    test_set: Sha256 = Field(description="SHA-256 of the result of the controlled test set.")
    plan: Sha256 = Field(description="SHA-256 of the evaluation plan that the gate reads (`fa plan check`).")
    looks: StrictInt = Field(
        default=4,
        ge=1,
        le=MOST_LOOKS,
        description="How often the gate looks at most; each look costs budget.",
    )
    every: Window = Field(
        default=timedelta(days=7), description="From one look to the next: 7d. The plan's window at least."
    )
    alpha: Alpha = Field(
        default=Fraction(1, 20), description="Chance of a false rollback over all looks and groups, as 0.05."
    )
    rollback_above: Rate = Field(
        default=Fraction(1, 100),
        description="Roll back once a group is missed significantly more often: by this share, as 0.01.",
    )
    ship_below: Rate = Field(
        default=Fraction(1, 50),
        description="Expand once no group is missed by as much as this share more, as 0.02.",
    )
    overall_below: Rate = Field(
        default=Fraction(1, 100),
        description="Expand once everyone together is not missed by as much as this share more, as 0.01.",
    )
    when_unmeasured: Literal["hold"] = Field(
        default="hold", description="What follows where a group cannot be measured. Only `hold`."
    )


class Measure(Section):
    """How much higher a measure may be where the candidate acts."""

    below: Annotated[Exact, Field(gt=0)] = Field(
        description="It must be less than this much higher than the baseline's, in the measure's unit."
    )
    sd: Annotated[Exact, Field(gt=0)] = Field(
        description="Standard deviation expected of the difference between two halves of the devices."
    )


class Live(Section):
    """What each live stage is tested by."""

    alpha: Alpha = Field(default=Fraction(1, 20), description="Type I error of a stage's one test, as 0.05.")
    measures: Annotated[Mapping[Name, Measure], Field(min_length=1)] = Field(
        description="The rates of the plan that are tested, each with its margin."
    )
    plan: Sha256 = Field(description="SHA-256 of the evaluation plan that the live stages are tested by.")
    every: Window = Field(
        default=timedelta(days=7), description="From a stage's begin to its test: the plan's window at least."
    )


class Stage(Section):
    """One step. Either `shadow` or `live`, with the share of the devices."""

    shadow: Exact | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Both models score on every device, and the baseline acts: always 1.",
    )
    live: Rate | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The candidate acts on this share of the devices, as 0.1.",
    )

    @property
    def share(self) -> Fraction:
        """The share of the devices on which the candidate acts: 0 in shadow."""
        return self.live or Fraction(0)


class Rollout(Section):
    """A rollout that has passed every check of the document alone, defaults written out."""

    api_version: Literal["fa/v1"] = Field(alias="apiVersion", description="The version of the language.")
    kind: Literal["Rollout"] = Field(description="What this file is: Rollout.")
    metadata: Metadata = Field(description="Who rolls out what, and until when.")
    population: Label = Field(description="Whose devices: the population of both plans' releases.")
    wake_word: Label = Field(description="The wake word that both models listen for.")
    models: Models = Field(description="The model in the field, and the one that may replace it.")
    gate: Gate = Field(description="What the candidate must pass before it acts anywhere.")
    live: Live = Field(description="What each live stage is tested by.")
    stages: Annotated[tuple[Stage, ...], Field(min_length=2, max_length=12)] = Field(
        description="Shadow first, then rising shares up to 1: [{shadow: 1}, {live: 0.1}, {live: 1}]."
    )
    lease: Window = Field(
        default=timedelta(days=7),
        description="How long a device acts on what it fetched last; then it is back on the baseline.",
    )

    @property
    def end(self) -> datetime:
        """When its last day is over, UTC."""
        return datetime.combine(self.metadata.expires + timedelta(days=1), time(), UTC)

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes: the name of exactly this rollout."""
        return sha256(canonical(self)).digest()

    @property
    def name(self) -> str:
        """Name and revision, as a person cites the rollout: `embed-2@1`."""
        return f"{self.metadata.name}@{self.metadata.revision}"

    @property
    def pair(self) -> tuple[str, str]:
        """Population and wake word: no two rollouts are under way for one pair."""
        return self.population, self.wake_word

    @property
    def live_stages(self) -> int:
        """How many stages let the candidate act."""
        return len(self.stages) - 1


_ADAPTER: TypeAdapter[Rollout] = TypeAdapter(Rollout)


def canonical(rollout: Rollout) -> bytes:
    """Return the one spelling of a rollout: JSON, keys sorted, exact numbers as decimal text, ASCII only."""
    body = rollout.model_dump(mode="json", by_alias=True)
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


class Draft:
    """A rollout as it was read from a file, to which later checks can still add findings with their place."""

    def __init__(self, rollout: Rollout, name: str, located: Located) -> None:
        self.rollout = rollout
        self.name = name
        self._located = located

    def refuse(self, findings: Sequence[Finding]) -> None:
        """Raise BadPlan with findings about this file, if there are any."""
        problems = Problems()
        for finding in findings:
            problems.add(self._located.place(finding), finding.found, finding.right)
        problems.raise_if_any(self.name)


def load(path: Path, *, today: date | None = None) -> Draft:
    """Read a rollout from a YAML file. The errors are `parse`'s; BadInput where it is no readable file."""
    try:
        if not path.is_file():
            raise BadInput(
                f"{path}: there is no such file; a rollout to start from is in eval_plans/rollouts/"
            )
        if (size := path.stat().st_size) > MAX_BYTES:
            found = f"this file has {size:,} bytes"
            raise BadPlan(str(path), [Problem(Position(1, 1), found, f"write at most {MAX_BYTES:,}")])
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    return parse(data, str(path), today=today)


def parse(data: bytes, name: str, *, today: date | None = None) -> Draft:
    """Return the rollout that YAML bytes say.

    Args:
        name: what the file is called in messages.
        today: the day (UTC) for the check of the expiry; the clock's where left out.

    Raises:
        BadPlan: with every problem found, each as `name:line:column: what was found; what would be right`.
    """
    # Imported here: devices and servers read canonical bytes only.
    from fa_core.plan.reader import read

    problems = Problems()
    root = read(data, problems)
    if root is None:
        raise BadPlan(name, problems.found)
    located = Located(root)
    values = tree_of(root, problems)
    if not isinstance(values, dict):
        right = "a rollout is a mapping, and begins with `apiVersion: fa/v1`"
        problems.add(root.position, what(values), right)
        raise BadPlan(name, problems.found)
    rollout: Rollout | None = None
    try:
        rollout = _ADAPTER.validate_python(values)
        findings = list(_between(rollout, today or datetime.now(UTC).date()))
    except ValidationError as error:
        findings = list(findings_of(error, (), Rollout, located.text))
    for finding in findings:
        problems.add(located.place(finding), finding.found, finding.right)
    problems.raise_if_any(name)
    assert rollout is not None
    return Draft(rollout, name, located)


def from_canonical(data: bytes) -> Rollout:
    """Return the rollout of canonical bytes, checked as in `parse` but for its expiry. BadInput otherwise."""
    try:
        values = json.loads(data.decode("ascii")) if len(data) <= MAX_BYTES else None
        rollout = _ADAPTER.validate_python(values)
    except (ValueError, RecursionError):
        raise BadInput("these bytes are not the canonical JSON of a rollout") from None
    if canonical(rollout) != data or any(_between(rollout, date.min)):
        raise BadInput("these bytes are not the canonical JSON of a rollout")
    return rollout


def _between(rollout: Rollout, today: date) -> Iterator[Finding]:
    """Yield what is wrong between the parts of a rollout."""
    if rollout.metadata.expires < today:
        found = f"this rollout expired on {rollout.metadata.expires}"
        yield Finding(
            ("metadata", "expires"), found, f"write {today} or a later day, and count `revision` up"
        )
    models = rollout.models
    for key in ("version", "sha256"):
        if getattr(models.baseline, key) == getattr(models.candidate, key):
            found = f"baseline and candidate have the same {key}"
            yield Finding(("models", "candidate", key), found, "write the one of the model that is to come")
    if rollout.lease > LONGEST_LEASE:
        found = f"a device that is cut off would keep the candidate for {show(str(rollout.lease.days))} days"
        yield Finding(("lease",), found, f"write at most {LONGEST_LEASE.days}d")
    yield from _stages(rollout.stages)


def _stages(stages: Sequence[Stage]) -> Iterator[Finding]:
    before = Fraction(0)
    for index, stage in enumerate(stages):
        at: Loc = ("stages", index)
        if (stage.shadow is None) == (stage.live is None):
            yield Finding(at, "a stage is either `shadow` or `live`", "write {shadow: 1} or {live: 0.1}")
        elif (index == 0) != (stage.shadow is not None):
            found = "the first stage is not shadow" if index == 0 else "shadow after the first stage"
            yield Finding(at, found, "write {shadow: 1} first, then live stages")
        elif stage.shadow is not None and stage.shadow != 1:
            found = f"{show(exact_text(stage.shadow))} of the devices in shadow"
            yield Finding((*at, "shadow"), found, "write 1: shadow exposes nobody")
        elif stage.live is not None and stage.live <= before:
            found = f"{show(exact_text(stage.live))} is not more than the stage before"
            yield Finding((*at, "live"), found, "write rising shares, as 0.1, 0.5, 1")
        before = stage.live or before
    if stages[-1].live != 1 and stages[-1].live is not None:
        at = ("stages", len(stages) - 1, "live")
        yield Finding(at, "the last stage is not for all devices", "add a stage {live: 1}")
