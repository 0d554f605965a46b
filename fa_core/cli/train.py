"""`fa train`: a training plan, from its check to a candidate that no device runs yet."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fa_core.errors import BadInput, Refused
from fa_core.plan import TrainPlan, load

if TYPE_CHECKING:
    from fa_core.store import Store
    from fa_core.training.candidate import Candidate
    from fa_core.values import Release

app = typer.Typer(
    help="Train adapters from many devices: check, preview, run, and see what came of it.",
    no_args_is_help=True,
)

PlanPath = Annotated[Path, typer.Argument(help="A training plan, in YAML.", show_default=False)]
Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Public = Annotated[
    Path, typer.Option("--public", help="Public speech (.npz), as docs/training.md says.", show_default=False)
]
Meant = Annotated[
    str, typer.Argument(help="A release: `latest`, its id or first digits.", show_default=False)
]
HERE = ".unheard"

BIOMETRIC = (
    "what a device sends is biometric: a mean of features names its speaker",
    "against another voice, and not against nothing, the cost is up to 4 rho",
)
"""What holds for plans of clipped means, beside `RULES`."""

RULES = (
    "noise is the devices' own, in shares; the server never sees an exact sum",
    "only the masked sum of all devices, in stages; never central, never in shares for two aggregators",
    "consent to personalisation, with a budget of its own on each device",
)
"""What holds for every training plan, and `fa_core.plan.training` enforces."""


@app.command()
def check(plan: PlanPath, as_json: AsJson = False) -> None:
    """Say what is wrong with a training plan, by line and column, and which rules hold for it."""
    found = _plan(plan)
    from fa_core.privacy.accounting import epsilon_for

    assert found.privacy.rho is not None
    means = found.method == "one_shot_means"
    least = f"no block is used with fewer than {found.privacy.min_cohort} devices, by its noisy count"
    rules = [*(BIOMETRIC if means else ()), *RULES, least]
    between = epsilon_for(4 * found.privacy.rho, found.privacy.delta) if means else None
    if as_json:
        said = {"plan": found.name, "hash": found.hash, "good": True, "rules": rules}
        typer.echo(json.dumps(said | {"epsilon_between_voices": between}, indent=2))
        return
    typer.echo(f"{plan}: good, {found.name} {found.hash[:12]}")
    for rule in rules:
        typer.echo(f"  {rule}")
    cost = f"epsilon {float(found.privacy.epsilon):g} for a device"
    typer.echo(f"  here: {cost}" + ("" if between is None else f", {between:.2g} between two voices"))


@app.command()
def preview(
    plan: PlanPath,
    public: Public,
    devices: Annotated[int, typer.Option(min=1, help="Devices in the fleet, a public number.")] = 10_000,
    share: Annotated[
        list[str] | None,
        typer.Option(
            help="A group's public share of them, as es-en=0.07; else spread evenly.", show_default=False
        ),
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Say what accuracy to expect at the fleet's size, from public speech, and refuse groups that are too
    small."""
    import numpy as np

    from fa_core.cli.train_asking import base_of
    from fa_core.store import open_store
    from fa_core.training import preview as expecting
    from fa_core.training.public import PublicSpeech

    found, speech = _plan(plan), PublicSpeech.load(public)
    with open_store(store) as opened:
        base = base_of(opened, found)
    sizes = expecting.sizes_of(found, devices, _shares(share or [], found))
    small = expecting.require_blocks(found, sizes)
    expected = expecting.preview(found, sizes, speech, base, np.random.default_rng())
    if as_json:
        typer.echo(
            json.dumps({"groups": [asdict(each) for each in expected], "small": list(small)}, indent=2)
        )
        return
    from fa_core.cli.text_table import table

    rows = [
        (
            each.group,
            f"{each.devices:,.0f}",
            f"{each.noise:.0%}",
            f"{each.weight:.0%}",
            "no public clips" if each.rejects is None else f"{each.rejects_before:.1%} -> {each.rejects:.1%}",
        )
        for each in expected
    ]
    headers = ("group", "devices", "noise of the clip", "own mean", "false rejects on public clips")
    table(f"{found.name}, {devices:,} devices", headers, rows)
    if small:
        typer.echo(f"Too small to be used by themselves, they get everyone's step: {', '.join(small)}.")


@app.command()
def run(
    public: Public,
    plan: Annotated[Path | None, typer.Argument(help="A training plan, in YAML.", show_default=False)] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="A fleet directory with moments.", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, simulation, tables, or a federation: its directory or name.")
    ] = "local",
    release: Annotated[
        str | None,
        typer.Option(help="Take the step from a release that is there, and ask nobody.", show_default=False),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="The candidate's version; else the base's and the release.", show_default=False),
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX identifier of the candidate.")] = "Apache-2.0",
    key: Annotated[
        Path | None,
        typer.Option(
            help="The plan key that signs the candidate; else the store's or federation's own.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End of the window, as `fa run` has it.", show_default=False),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="A folder, or postgresql://…  [.unheard; a federation has its own]", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask devices for their steps, refit, check, and put the candidate in the registry. Nobody runs it by
    that.

    Exit code 3 where an alarm holds the candidate: it is then not in the registry, and the release stands.
    """
    from fa_core.cli import train_asking as asking
    from fa_core.rollout import models
    from fa_core.store import open_store
    from fa_core.training.candidate import artefact, candidate
    from fa_core.training.public import PublicSpeech
    from fa_core.training.step import plan_of

    if (plan is None) == (release is None):
        raise BadInput("give either a plan to run with --fleet DIR, or --release ID to take the step from")
    speech = PublicSpeech.load(public)
    place = asking.place_of(engine, store)
    signing = asking.signing_key(engine, place, key)
    meant = release or asking.asked(_require_means(plan), engine, fleet, place, store, until)
    with open_store(place, create=False) as opened:
        found = opened.release(meant)
        asked = plan_of(found)
        base = asking.base_of(opened, asked)
        name = version or f"{asked.base.version}-{found.id[:8]}"
        made = candidate(found, base, name, speech, _before(opened, found))
        manifest, data = artefact(made, found, licence)
        if not made.alarms:
            models.add(opened, manifest, data, signing)
    _print(found, made, manifest.sha256, as_json=as_json)
    if made.alarms:
        raise Refused(f"candidate {name} is held, and not in the registry: {len(made.alarms)} alarms")


@app.command()
def show(release: Meant = "latest", store: Where = HERE, as_json: AsJson = False) -> None:
    """Show the groups of a training release: devices, length of the mean, noise, and what went into each
    step."""
    from fa_core.store import open_store
    from fa_core.training import checks
    from fa_core.training.step import blocks_of, plan_of, shrunk

    with open_store(store, create=False) as opened:
        found = opened.release(release)
        before = _before(opened, found)
    blocks = blocks_of(found)
    _, weights = shrunk(blocks)
    alarms = checks.sums(blocks, plan_of(found).gates, None if before is None else blocks_of(before))
    groups = _groups(blocks, weights)
    if as_json:
        said = {"release": found.id, "groups": groups, "alarms": [asdict(each) for each in alarms]}
        typer.echo(json.dumps(said, indent=2))
        return
    _print_groups(found, groups)
    for each in alarms:
        typer.echo(f"alarm: {each.sentence}")


@app.command()
def head(
    model: Annotated[
        str, typer.Argument(help="A candidate's version, or digits of its hash.", show_default=False)
    ],
    group: Annotated[str, typer.Option(help="The group whose devices would run it.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .npz to write, for `fa testset run`.", show_default=False)],
    store: Where = HERE,
) -> None:
    """Write the head that devices of one group would run, to score it on a controlled test set."""
    from clients.models.adapters import Adapters
    from clients.models.formats import content
    from clients.models.head import Head
    from fa_core.rollout import models
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        found = models.find(opened, model).manifest
        adapters = content(found, opened.artefact(found.sha256))
        if not isinstance(adapters, Adapters):
            raise BadInput(f"{model} holds no adapters of groups: it is of kind {found.kind}")
        if group not in adapters.groups:
            raise BadInput(f"--group {group}: one of {', '.join(adapters.groups)}")
        below = models.find(opened, found.base).manifest
        base = content(below, opened.artefact(below.sha256))
    assert isinstance(base, Head)
    base.adapted(adapters.chosen(group)).save(out)
    typer.echo(f"{out}: {found.version} as devices of {group} run it")


@app.command()
def clip(
    release: Meant,
    quantile: Annotated[float, typer.Option(help="Share of the devices that are not clipped.")] = 0.9,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Propose a clip from a release of norm_histogram, as a plan has it."""
    from fa_core.store import open_store
    from fa_core.training.clip import proposal

    with open_store(store, create=False) as opened:
        found = opened.release(release)
    said = proposal(found, quantile)
    if as_json:
        typer.echo(json.dumps({"release": found.id, **asdict(said)}, indent=2))
        return
    typer.echo(f"clip: {said.clip:g}")
    typer.echo(f'clip_from: "{found.id}"')


@app.command()
def center(public: Public, as_json: AsJson = False) -> None:
    """Print the centre of public speech, as a plan has it."""
    from fa_core.training.public import PublicSpeech, center_of

    numbers = [round(float(each), 3) for each in center_of(PublicSpeech.load(public).of("wake"))]
    typer.echo(
        json.dumps({"center": numbers}) if as_json else f"center: [{', '.join(f'{n:g}' for n in numbers)}]"
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of training plans, for an editor (docs/train-plan.schema.json)."""
    from fa_core.plan.editor import training_schema_text

    typer.echo(training_schema_text(), nl=False)


def _plan(path: Path) -> TrainPlan:
    found = load(path)
    if not isinstance(found, TrainPlan):
        raise BadInput(f"{path}: this is an {found.kind}; `fa train` reads `kind: TrainPlan`")
    return found


def _require_means(plan: Path | None) -> Path:
    """Return a plan's file. Raises BadInput where it is of no training plan that trains something."""
    assert plan is not None
    if (method := _plan(plan).method) != "one_shot_means":
        raise BadInput(f"{plan}: {method} trains nothing; `fa run` asks it, `fa train clip` reads it")
    return plan


def _before(store: "Store", release: "Release") -> "Release | None":
    """Return the newest earlier release whose sums mean the same."""
    from fa_core.store.catalogue import Query
    from fa_core.training.candidate import comparable
    from fa_core.training.step import plan_of

    plan = plan_of(release)
    for entry in store.releases(Query(plan=plan.metadata.name, population=release.population)):
        if entry.id == release.id or entry.created >= release.created:
            continue
        found = store.release(entry.id)
        try:
            if comparable(plan, plan_of(found)):
                return found
        except BadInput:
            continue
    return None


def _shares(given: list[str], plan: TrainPlan) -> dict[str, float]:
    shares = {}
    for text in given:
        group, _, number = text.partition("=")
        try:
            shares[group] = float(number)
        except ValueError:
            shares[group] = -1.0
        if group not in plan.blocks or not 0 < shares[group] <= 1:
            raise BadInput(
                f"--share {text}: a group of the plan and its share, such as {plan.blocks[0]}=0.07"
            )
    if sum(shares.values()) > 1:
        raise BadInput(
            f"--share: together these are {sum(shares.values()):.0%} of the devices; write at most 100%"
        )
    return shares


def _groups(blocks: Any, weights: Any) -> list[dict[str, Any]]:
    return [
        {
            "group": label,
            "devices": round(float(blocks.devices[at])),
            "devices_sd": round(float(blocks.devices_sd), 1),
            "length": round(float(blocks.lengths[at]), 3),
            "noise": round(float(97**0.5 * blocks.sd[at] / blocks.clip), 3),
            "weight": round(float(weights[at]), 3),
        }
        for at, label in enumerate(blocks.labels)
    ]


def _print_groups(release: "Release", groups: list[dict[str, Any]]) -> None:
    from fa_core.cli.text_table import table

    rows = [
        (
            each["group"],
            f"{each['devices']} ± {each['devices_sd']}",
            f"{each['length']:.0%}",
            f"{each['noise']:.0%}",
            f"{each['weight']:.0%}",
        )
        for each in groups
    ]
    title = f"release {release.id[:12]}, {release.participation.counted} devices"
    table(title, ("group", "devices", "mean, of the clip", "noise, of the clip", "own mean"), rows)


def _print(release: "Release", made: "Candidate", digest: str, *, as_json: bool) -> None:
    groups = _groups(made.blocks, made.weights)
    if as_json:
        said = {
            "release": release.id,
            "candidate": made.adapters.model_version,
            "artefact": digest,
            "held": bool(made.alarms),
            "alarms": [asdict(each) for each in made.alarms],
            "compared_with": made.compared,
            "groups": groups,
            "simulated": release.simulated,
        }
        typer.echo(json.dumps(said, indent=2))
        return
    _print_groups(release, groups)
    beside = f"release {made.compared[:12]}" if made.compared else "nothing: it is the first of its kind"
    typer.echo(f"compared with {beside}")
    for each in made.alarms:
        typer.echo(f"alarm: {each.sentence}")
    if not made.alarms:
        typer.echo(f"candidate {made.adapters.model_version}: {digest}, in the registry, run by nobody")
        typer.echo("next: `fa train head` and `fa testset run` for each group, then `fa rollout`")
