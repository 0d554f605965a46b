"""`fa rollout`: take a candidate model to a population in stages, behind a gate that the witness recomputes.

`decide` ends with 0 where the rollout expands, 3 where it holds, 4 where it is rolled back.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.cli import rollout_files as files
from fa_core.cli.rollout_acting import CODES, HERE, AsJson, At, Options, Where, acting, clock, print_object
from fa_core.errors import BadInput

if TYPE_CHECKING:
    from fa_core.rollout.decision import Action

app = typer.Typer(
    help="Take a candidate model to devices in stages, behind a gate that the witness computes again.",
    no_args_is_help=True,
)

DEVICES, EVENTS = 20_000, 20.0
"""What a check is for where neither their number nor a fleet is given."""

File = Annotated[Path, typer.Argument(help="A rollout, in YAML.", show_default=False)]
Meant = Annotated[
    str,
    typer.Argument(help="A rollout's name, name@revision, or first digits of its hash.", show_default=False),
]
Why = Annotated[str, typer.Option(help="The reason, for the log: it is public.")]


@app.command()
def check(
    rollout: File,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help=f"Devices that take part: {DEVICES:,}, or as many as --fleet has."),
    ] = None,
    events: Annotated[
        float | None, typer.Option(min=1, help=f"Moments of one device in a window, a guess: {EVENTS:g}.")
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(
            help="A fleet directory whose events are used in place of the guess.", show_default=False
        ),
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with a rollout, and the smallest regression that each group can show.

    Refused where the design can see nothing. The two plans are looked for beside the file, then in the log.
    """
    from fa_core.estimate.expect import guessed
    from fa_core.rollout.document import load
    from fa_core.rollout.reach import exposure, reach

    draft = load(rollout)
    plans = files.plans(draft, rollout, store)
    document, plan = draft.rollout, plans[draft.rollout.gate.plan]
    size, source = devices or DEVICES, guessed(events or EVENTS)
    if fleet is not None:
        from fa_core.cli.pilot import read_pilot

        pilot = read_pilot(fleet)
        size, source = devices or pilot.devices, pilot.sources.whole
    found, weak = reach(document, plan, size, source), exposure(document)
    if as_json:
        groups = {name: {"smallest": list(r.smallest), "ships": r.ships} for name, r in found.items()}
        print_object(
            {
                "rollout": document.name,
                "hash": document.hash.hex(),
                "devices": size,
                "groups": groups,
                "exposure": weak,
                "cost": files.costs(document, plans),
            }
        )
        return
    typer.echo(f"{rollout}: good, {document.name} {document.hash.hex()[:12]}")
    those = f"like those in {fleet}" if fleet else f"of {events or EVENTS:g} moments each (a guess)"
    files.print_reach(document, found, f"Smallest regression, in points, with {size:,} devices {those}")
    cost = files.costs(document, plans)
    typer.echo(f"Each look costs {cost['look']}, each live stage {cost['stage']}, the whole {cost['total']}.")
    for stage in weak:
        share = float(document.stages[stage].share)
        typer.echo(f"Live stage {stage} ({share:.0%}) is exposure, not evidence: its test has no power.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of rollouts, which gives completion in an editor (docs/rollout.schema.json)."""
    from fa_core.rollout.editor import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def sign(
    rollout: File,
    key: Annotated[Path, typer.Option(help="A plan key, from `fa plan keygen`.", show_default=False)],
    store: Where = HERE,
) -> None:
    """Sign a rollout: checks it and its plans, and writes ROLLOUT.sig beside it."""
    from fa_core.publication.signed import SignedDocument
    from fa_core.rollout.document import canonical, load
    from fa_core.trust.enrolment import read_key

    draft = load(rollout)
    files.plans(draft, rollout, store)
    made = SignedDocument.sign("rollout", canonical(draft.rollout), read_key(key))
    beside = files.beside(rollout)
    body = {"rollout": made.hash.hex(), "key": made.key.hex(), "signature": made.signature.hex()}
    try:
        beside.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{beside}: cannot be written: {error.strerror}") from None
    typer.echo(f"{beside}: {draft.rollout.name} {made.hash.hex()} signed by {made.key.hex()}")


@app.command()
@acting
def start(
    options: Options,
    rollout: File,
    test_set: Annotated[
        Path,
        typer.Option(
            help="The result of the controlled test set, from `fa testset run`.", show_default=False
        ),
    ],
) -> None:
    """Start a rollout in shadow: both models score on every device, and the baseline acts.

    The file's signature is ROLLOUT.sig beside it; a store of its own keys signs with its plan key. Refused
    unless the test set is passed, both models are in the log, and the budgets have room for all looks.
    """
    from fa_core.publication.signed import SignedDocument
    from fa_core.rollout import control
    from fa_core.rollout.controlled import read_result
    from fa_core.rollout.document import canonical, load
    from fa_core.rounds.keys import keys_folder, local_keys

    draft = load(rollout, today=options.now.date())
    plans = files.plans(draft, rollout, options.store)
    signed = files.signature(rollout, canonical(draft.rollout))
    if signed is None and options.log_key is None:
        own = local_keys(keys_folder(options.store)).plan
        signed = SignedDocument.sign("rollout", canonical(draft.rollout), own)
    if signed is None:
        raise BadInput(f"{rollout}: nobody signed it, so no device would believe it; `fa rollout sign` does")
    result, about = read_result(test_set), signed
    options.act(lambda context: control.start(context, draft.rollout, about, result, plans))


@app.command()
def status(
    rollout: Annotated[
        str | None, typer.Argument(help="A rollout; left out: all of them.", show_default=False)
    ] = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Show where rollouts are: state, share, next decision, lease; of one also its groups and its history."""
    from fa_core.cli import rollout_text
    from fa_core.rollout import control
    from fa_core.rollout.publish import cosigned
    from fa_core.rollout.states import histories
    from fa_core.store import open_store

    now = clock(at, None)
    with open_store(store, create=False) as opened:
        if rollout is None:
            every = [rollout_text.row(each, now) for each in histories(opened.rollouts()).values()]
            if as_json:
                print_object({"rollouts": every})
            else:
                rollout_text.print_rows(every)
            return
        history = control.find(opened, rollout)
        known = history.manifest is not None and cosigned(opened, history)
        charges = opened.charges(history.document.population)
    if as_json:
        print_object(rollout_text.whole(history, charges, now, cosigned=known))
    else:
        rollout_text.print_whole(history, charges, now, cosigned=known)


@app.command()
@acting
def decide(options: Options, rollout: Meant) -> None:
    """Decide what is due on the planned release. Exit code 0: expands, 3: holds, 4: is rolled back.

    Run it as often as you like, from a timer: where nothing is due it renews the lease, and ends with 3.
    """
    from fa_core.rollout import control

    raise typer.Exit(CODES[options.act_on(rollout, control.decide).verdict])


@app.command()
@acting
def hold(options: Options, rollout: Meant, why: Why = "an operator holds it") -> None:
    """Hold a rollout: nothing expands until it is resumed. Devices keep the stage that they are in.

    The witness is informed, and grants no stage meanwhile. Where it does not answer, the hold stands all the
    same.
    """
    _operate(options, rollout, "hold", why)


@app.command()
@acting
def resume(options: Options, rollout: Meant, why: Why = "an operator resumes it") -> None:
    """Let a rollout that is held expand again."""
    _operate(options, rollout, "resume", why)


@app.command()
@acting
def rollback(options: Options, rollout: Meant, why: Why = "an operator takes the candidate back") -> None:
    """Take the candidate back, for good: devices go back to the baseline. A new try is a new revision.

    Connected devices do within 300 s, whether or not the witness answers.
    """
    _operate(options, rollout, "roll_back", why)


@app.command()
@acting
def kill(options: Options, rollout: Meant, why: Why = "an operator ends the rollout") -> None:
    """End a rollout for good for another reason than its candidate. Devices go back to the baseline, as with
    `rollback`."""
    _operate(options, rollout, "kill", why)


@app.command()
@acting
def complete(options: Options, rollout: Meant) -> None:
    """Make the candidate the baseline, once the last stage is passed. The witness grants it."""
    from fa_core.rollout import control

    options.act_on(rollout, control.complete)


@app.command()
def verify(
    rollout: Meant,
    witness_key: Annotated[
        str | None, typer.Option(help="The witness's public key, 64 hex digits; else the store's own.")
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Make every decision of a rollout again from the log, and derive every manifest again."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from fa_core.rollout import control
    from fa_core.rollout.judging import Gate
    from fa_core.rollout.verify import verify as verify_rollout
    from fa_core.rounds.keys import keys_folder, local_keys
    from fa_core.store import open_store
    from fa_core.trust.enrolment import parse_hex

    if witness_key is None:
        key = local_keys(keys_folder(store)).witness.public_key().public_bytes_raw()
    else:
        key = parse_hex(witness_key)
    with open_store(store, create=False) as opened:
        history = control.find(opened, rollout)
        problems = opened.verify_log(None, Ed25519PublicKey.from_public_bytes(key))
        problems += verify_rollout(opened, history, Gate(), key)
    if as_json:
        print_object({"good": not problems, "rollout": history.document.name, "problems": problems})
    if problems:
        raise BadInput("the rollout does not verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        count = len(history.decisions), len(history.manifests)
        typer.echo(
            f"{history.document.name}: {count[0]} decisions and {count[1]} manifests follow from the log"
        )


def _operate(options: Options, rollout: str, action: "Action", why: str) -> None:
    from fa_core.rollout import control

    options.act_on(rollout, lambda context, document: control.operate(context, document, action, why))
