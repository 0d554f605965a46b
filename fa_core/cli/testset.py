"""`fa testset`: make a controlled test set, and score models on it offline: the first gate of a rollout."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fa_core.errors import BadInput, Refused

if TYPE_CHECKING:
    from clients.models.believe import Model
    from clients.testset.clips import ControlledSet
    from clients.testset.judge import Rate, Report
    from clients.testset.score import Scored
    from fa_core.rollout.controlled import ControlledResult

app = typer.Typer(no_args_is_help=True, help="Make controlled test sets, and score models on them offline.")

Folder = Annotated[Path, typer.Argument(metavar="SET", help="A test set's directory.", show_default=False)]
HERE = ".unheard"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def make(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The directory to write; must not exist, or be empty.")],
    as_json: AsJson = False,
) -> None:
    """Make the clips of a recipe: synthetic voices, rooms, noise, programmes. A recipe has one set.

    The voices are synthesisers, not people: a set says where a model fails, not how often it will.
    """
    from clients.testset.make import make as make_set
    from clients.testset.recipe import load
    from fa_core.cli.fleet import Steps

    with Steps(Console(file=sys.stderr), "clips made") as steps:
        made = make_set(load(recipe), recipe.parent, out, steps)
    _print(_object(made), as_json)


@app.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """Show what a set holds, after checking that every clip is the one that its manifest names."""
    from clients.testset.clips import read_set

    found = read_set(folder)
    for clip in found.clips:
        found.samples(clip)
    _print(_object(found), as_json)


@app.command()
def run(
    folder: Folder,
    baseline: Annotated[
        str,
        typer.Argument(
            help="The model in the field: its version, a head's file, or MODEL+FILE with thresholds or an "
            "adapter.",
            show_default=False,
        ),
    ],
    candidate: Annotated[
        str | None, typer.Argument(help="The model that may replace it.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the result there, for a rollout to name.", show_default=False),
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where versions are looked for that did not come with this program.")
    ] = HERE,
    as_json: AsJson = False,
) -> None:
    """Score one model on a set, or two, clip by clip. Exit code 3 where the candidate misses a margin.

    Intervals are exact at 95%. The margins are the recipe's: for every accent and programme, bounds on what
    the candidate has more of.
    """
    from clients.testset.clips import read_set
    from clients.testset.judge import report, result
    from clients.testset.models import open_model
    from clients.testset.score import score
    from fa_core.cli.fleet import Steps

    if out is not None and candidate is None:
        raise BadInput("--out: a result is of two models; name the candidate too")
    tested = read_set(folder)
    names, registry = [each for each in (baseline, candidate) if each], _Registry(store)
    models = [open_model(each, tested.recipe.wake_word, registry) for each in names]
    with Steps(Console(file=sys.stderr), "clips scored") as steps:
        scored = score(models, tested, steps)
    found = report(tested, scored)
    verdict = result(tested, *scored) if len(scored) == 2 else None
    if out is not None and verdict is not None:
        _write(out, verdict.document() + b"\n")
    if as_json:
        typer.echo(json.dumps(_everything(tested, scored, found, verdict), indent=2))
    else:
        _show(tested, scored, found, verdict, out)
    if verdict is not None and (failures := verdict.failures()):
        raise Refused("the candidate does not pass: " + "; ".join(failures))


@app.command()
def anchors(
    folder: Folder,
    base: Annotated[
        str, typer.Argument(help="The head that devices adapt: embed-1, or its file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The anchor set to write, for `fa model add --kind anchors`.")],
    clips: Annotated[int, typer.Option(min=20, max=10_000, help="Clips of each kind, at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Make the public anchor set of a head: windows of a test set's near misses and of people's speech in it.

    Devices that learn their owner set their threshold on it (docs/personal.md). It holds no audio.
    """
    from clients.personal.anchors import encode
    from clients.testset.anchors import anchors_of, provenance
    from clients.testset.clips import read_set
    from clients.testset.models import open_head
    from fa_core.cli.fleet import Steps

    tested = read_set(folder)
    head = open_head(base, tested.recipe.wake_word)
    with Steps(Console(file=sys.stderr), "clips heard") as steps:
        made = anchors_of(tested, head, clips, steps)
    data = encode(made)
    _write(out, data)
    said = {
        "file": str(out),
        "bytes": len(data),
        "human": len(made.human),
        "near_misses": len(made.near),
        "wake_word": made.wake_word,
        "base": made.base,
        "trained_by": provenance(tested),
    }
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    windows = f"{len(made.human)} windows of people's speech, {len(made.near)} of near misses"
    typer.echo(f"{out}: {len(data):,} bytes, {windows}")
    typer.echo(
        f"fa model add {out} --kind anchors --version {made.wake_word}-anchors-1 "
        f"--wake-word {made.wake_word} --base {made.base[:12]} --licence CC-BY-SA-3.0 "
        f"--trained-by '{provenance(tested)}'"
    )


class _Registry:
    """The models of a store's log; it is opened when one is looked for there."""

    def __init__(self, store: str) -> None:
        self._store = store

    def find(self, text: str, wake_word: str) -> str:
        """See `clients.testset.models.Registry`."""
        from fa_core.rollout.models import find
        from fa_core.store import open_store

        with open_store(self._store, create=False) as opened:
            return find(opened, text, wake_word).manifest.sha256

    def load(self, sha256: str) -> "Model":
        """See `clients.testset.models.Registry`."""
        from clients.models.believe import Model
        from clients.models.formats import content
        from fa_core.rollout.models import find
        from fa_core.store import open_store

        with open_store(self._store, create=False) as opened:
            manifest = find(opened, sha256).manifest
            return Model(manifest, content(manifest, opened.artefact(sha256)), "")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def _object(tested: "ControlledSet") -> dict[str, Any]:
    kinds: dict[str, dict[str, float]] = {}
    for clip in tested.clips:
        kind = kinds.setdefault(clip.kind, {"clips": 0, "minutes": 0.0})
        kind["clips"] += 1
        kind["minutes"] += clip.seconds / 60
    return {
        "set": str(tested.folder),
        "name": tested.recipe.metadata.name,
        "question": tested.recipe.metadata.question,
        "wake_word": tested.recipe.wake_word,
        "seed": tested.recipe.seed,
        "sha256": tested.hash,
        "clips": kinds,
        "margins": tested.recipe.margins.model_dump(),
    }


def _print(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    typer.echo(f"{said['set']}: {said['name']}, for {said['wake_word']}, seed {said['seed']}")
    for kind, found in said["clips"].items():
        typer.echo(f"  {found['clips']:,} clips of {kind.replace('_', ' ')}, {found['minutes']:,.1f} minutes")
    typer.echo(f"  SHA-256 {said['sha256']}")


def _everything(
    tested: "ControlledSet", scored: "list[Scored]", found: "Report", verdict: "ControlledResult | None"
) -> dict[str, Any]:
    models = [
        {"version": each.version, "sha256": each.sha256, "threshold": each.threshold} for each in scored
    ]
    said: dict[str, Any] = {"test_set": tested.hash, "models": models, **asdict(found)}
    if verdict is not None:
        said["result"] = {"sha256": verdict.hash, "failures": verdict.failures(), **asdict(verdict)}
    return said


def _show(
    tested: "ControlledSet",
    scored: "list[Scored]",
    found: "Report",
    verdict: "ControlledResult | None",
    out: Path | None,
) -> None:
    console, versions = Console(), [each.version for each in scored]
    paired = ["difference", "alone", "p"] if verdict else []
    table = Table("misses, %", "clips", *versions, *paired)
    for row in found.misses:
        rest = []
        if row.difference is not None:
            d = row.difference
            span = f"{100 * d.estimate:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
            rest = [span, f"{d.baseline_alone} / {d.candidate_alone}", f"{d.p:.3g}"]
        clips = f"{row.models[0].out_of:,.0f}"
        table.add_row(row.condition, clips, *(_percent(each) for each in row.models), *rest)
    _shown(console, table)
    if verdict is not None:
        typer.echo(
            "difference: the candidate's less the baseline's, points; alone: missed by one of them only"
        )
    table = Table("false wakes an hour", "hours", *versions)
    for stream in found.false_wakes:
        hours = f"{stream.models[0].out_of:,.2f}"
        table.add_row(stream.condition, hours, *(_hourly(each) for each in stream.models))
    _shown(console, table)
    table = Table("must not wake", "said", "clips", *versions)
    for phrase in found.accepted:
        table.add_row(phrase.kind, phrase.phrase, str(phrase.clips), *(str(each) for each in phrase.models))
    _shown(console, table)
    typer.echo(f"test set {tested.hash}")
    for each in scored:
        typer.echo(f"{each.version} {each.sha256}, wakes over {each.threshold:.4g}")
    if verdict is not None:
        passed = "does not pass" if verdict.failures() else "passes"
        where = f", written to {out}" if out else ""
        typer.echo(f"{versions[1]} {passed} at level {verdict.level:g}: result {verdict.hash}{where}")


def _shown(console: Console, table: Table) -> None:
    if table.row_count:
        console.print(table)


def _percent(rate: "Rate") -> str:
    return f"{100 * rate.count / rate.out_of:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _hourly(rate: "Rate") -> str:
    return f"{rate.count / rate.out_of:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
