"""`kind: TestSet`: what a controlled test set is made of, in frozen models that refuse unknown keys."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, StrictStr, TypeAdapter, ValidationError

from clients.fleet.audio import DEVICE_CLASSES
from clients.fleet.voices import ACCENTS, VARIANTS
from fa_core.errors import BadInput
from fa_core.plan import BadPlan
from fa_core.plan.located import Finding, Located
from fa_core.plan.problems import Position, Problem, Problems, show
from fa_core.plan.reader import read
from fa_core.plan.scalars import tree_of
from fa_core.plan.schema import Label, Name, Section
from fa_core.plan.tree import MAX_BYTES
from fa_core.plan.words import findings_of, what

Line = Annotated[StrictStr, AfterValidator(lambda text: " ".join(text.split())), Field(min_length=1)]
Phrase = Annotated[Line, Field(max_length=200)]
Phrases = Annotated[tuple[Phrase, ...], Field(max_length=200)]
Noise = Literal["babble", "coloured"]
Number = Annotated[float, Field(allow_inf_nan=False)]

MOST_CLIPS = 50_000
MOST_MINUTES = 24 * 60


class Metadata(Section):
    """Who made the set, and for which question."""

    name: Name = Field(description="Name of the set.")
    owner: Line = Field(max_length=100, description="The team that answers for it.")
    question: Line = Field(max_length=400, description="What the set is to find out, in one sentence.")


class Programme(Section):
    """Sound without the wake word, in which every wake is a false one."""

    name: Name = Field(description="What it is called in results.")
    minutes: Annotated[StrictInt, Field(ge=1, le=MOST_MINUTES)] = Field(
        description="How long it is heard; what is shorter is repeated, in other rooms and noise."
    )
    synthetic: Literal["jingle", "music"] | None = Field(
        default=None, description="Made here: jingle or music."
    )
    file: StrictStr | None = Field(default=None, description="A recording beside the recipe: 16 kHz, mono.")
    human: Literal["asterisk"] | None = Field(
        default=None, description="People's speech: Debian's asterisk-core-sounds-en-g722."
    )
    lines: Phrases = Field(default=(), description="What synthetic voices say in it, one after the other.")


class Margins(Section):
    """What a candidate must be shown to stay under, in every condition; said before anything is scored."""

    level: Annotated[Number, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="Of each one-sided bound."
    )
    misses_below: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=0.02, description="More misses than the baseline, as a share of the clips."
    )
    false_wakes_below: Annotated[Number, Field(gt=0, le=1_000)] = Field(
        default=1.0, description="More false wakes an hour than the baseline."
    )


class Recipe(Section):
    """A test set's recipe, defaults written out."""

    api_version: Literal["fa/v1"] = Field(alias="apiVersion", description="The version of the language.")
    kind: Literal["TestSet"] = Field(description="What this file is: TestSet.")
    metadata: Metadata = Field(description="Who made the set, and for which question.")
    wake_word: Label = Field(description="The wake word that models listen for.")
    seed: Annotated[StrictInt, Field(ge=0, le=2**31)] = Field(
        default=1, description="The same recipe and seed give the same clips."
    )
    accents: tuple[Label, ...] = Field(
        default=tuple(each.label for each in ACCENTS), min_length=1, description="Synthetic accents; all."
    )
    speakers: Annotated[StrictInt, Field(ge=1, le=len(VARIANTS))] = Field(
        default=len(VARIANTS), description="Voices of each accent."
    )
    takes: Annotated[StrictInt, Field(ge=1, le=20)] = Field(
        default=1, description="How often a voice says a phrase, each time at another pace and pitch."
    )
    wake_phrases: Phrases = Field(default=(), description="What is said to wake the device.")
    near_misses: Phrases = Field(default=(), description="What sounds like it and must not wake it.")
    phrases: Phrases = Field(default=(), description="What else is said at home and must not wake it.")
    rooms: tuple[Label, ...] = Field(
        default=tuple(DEVICE_CLASSES),
        min_length=1,
        description="Rooms with their microphones: " + ", ".join(DEVICE_CLASSES) + ".",
    )
    noise: tuple[Noise, ...] = Field(
        default=("babble", "coloured"), min_length=1, description="People talking, or coloured noise."
    )
    snr_db: Annotated[tuple[Annotated[Number, Field(ge=-10, le=60)], ...], Field(max_length=10)] = Field(
        default=(27.0, 17.0, 7.0), min_length=1, description="Signal to noise, dB."
    )
    programmes: Annotated[tuple[Programme, ...], Field(max_length=50)] = Field(
        default=(), description="Sound without the wake word, in which every wake is a false one."
    )
    margins: Margins = Field(default=Margins(), description="What a candidate must stay under.")


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def load(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        BadInput: where it is no readable file, and BadPlan with every problem in it and its place.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadPlan(
                str(path), [Problem(Position(1, 1), "this file is too large", f"at most {MAX_BYTES:,}")]
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Recipe:
    """Return the recipe in YAML bytes. Raises BadPlan with every problem as `name:line:column: …`."""
    problems = Problems()
    root = read(data, problems)
    if root is None:
        raise BadPlan(name, problems.found)
    located, values = Located(root), tree_of(root, problems)
    if not isinstance(values, dict):
        problems.add(
            root.position, what(values), "a recipe is a mapping, and begins with `apiVersion: fa/v1`"
        )
        raise BadPlan(name, problems.found)
    recipe: Recipe | None = None
    try:
        recipe = _ADAPTER.validate_python(values)
        findings: Sequence[Finding] = list(_between(recipe))
    except ValidationError as error:
        findings = list(findings_of(error, (), Recipe, located.text))
    for finding in findings:
        problems.add(located.place(finding), finding.found, finding.right)
    problems.raise_if_any(name)
    assert recipe is not None
    return recipe


def _between(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is wrong between the parts of a recipe, or with names that are none of ours."""
    accents = {each.label for each in ACCENTS}
    for key, names, known in (
        ("accents", recipe.accents, accents),
        ("rooms", recipe.rooms, set(DEVICE_CLASSES)),
    ):
        for index, each in enumerate(names):
            if each not in known:
                yield Finding(
                    (key, index), f"there is no {show(each)}", "write one of " + ", ".join(sorted(known))
                )
            elif each in names[:index]:
                yield Finding((key, index), f"{show(each)} is there twice", "write it once")
    called = [each.name for each in recipe.programmes]
    for index, programme in enumerate(recipe.programmes):
        sources = [each for each in (programme.synthetic, programme.file, programme.human) if each]
        if len(sources) > 1 or not (sources or programme.lines):
            right = "write one of `synthetic`, `file` and `human`, or `lines`"
            yield Finding(("programmes", index), f"{len(sources)} sources of sound", right)
        if programme.name in called[:index]:
            yield Finding(
                ("programmes", index, "name"), f"{show(programme.name)} is there twice", "write another"
            )
    spoken = len(recipe.wake_phrases) * recipe.speakers * recipe.takes * len(recipe.accents)
    clips = spoken * len(recipe.rooms) * len(recipe.noise) * len(recipe.snr_db)
    if clips > MOST_CLIPS:
        yield Finding(("wake_phrases",), f"these make {clips:,} clips", f"a set has at most {MOST_CLIPS:,}")
    if not (recipe.wake_phrases or recipe.programmes):
        yield Finding((), "nothing can be measured", "write `wake_phrases`, or `programmes`")
