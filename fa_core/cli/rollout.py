"""`fa rollout`: take a candidate model to a population in stages, behind a gate that the witness recomputes.

`decide` ends with 0 where the rollout expands, 3 where it holds, 4 where it is rolled back.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fa_core.cli import rollout_files as files
from fa_core.errors import BadInput, Refused, RoundFailed

if TYPE_CHECKING:
    from fa_core.rollout.document import Rollout
    from fa_core.rollout.record import Context, Outcome
    from fa_core.store import Store

app = typer.Typer(
    help="Take a candidate model to devices in stages, behind a gate that the witness computes again.",
    no_args_is_help=True,
)

HERE = ".unheard"
DEVICES, EVENTS = 20_000, 20.0
"""What a check is for where neither their number nor a fleet is given."""

File = Annotated[Path, typer.Argument(help="A rollout, in YAML.", show_default=False)]
Meant = Annotated[
    str,
    typer.Argument(help="A rollout's name, name@revision, or first digits of its hash.", show_default=False),
]
Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
Published = Annotated[
    Path | None,
    typer.Option("--publish", help="The publication directory; else `published` in the store's folder."),
]
LogKey = Annotated[
    Path | None, typer.Option(help="The log's private key; else the store's own.", show_default=False)
]
WitnessSocket = Annotated[
    Path | None,
    typer.Option("--witness", help="The witness's socket; else the store's own.", show_default=False),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME",
        show_default=False,
        help="Set the clock (UTC), with the store's own keys only.",
    ),
]
Why = Annotated[str, typer.Option(help="The reason, for the log: it is public.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

CODES = {"expand": 0, "hold": Refused.exit_code, "roll_back": RoundFailed.exit_code}


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
        _print_json({"rollout": document.name, "hash": document.hash.hex(), "devices": size, "groups": groups,
                     "exposure": weak, "cost": files.costs(document, plans)})  # fmt: skip
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
def start(
    rollout: File,
    test_set: Annotated[
        Path,
        typer.Option(
            help="The result of the controlled test set, from `fa testset run`.", show_default=False
        ),
    ],
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
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

    now = _clock(at, log_key)
    draft = load(rollout, today=now.date())
    plans = files.plans(draft, rollout, store)
    signed = files.signature(rollout, canonical(draft.rollout))
    if signed is None and log_key is None:
        own = local_keys(keys_folder(store)).plan
        signed = SignedDocument.sign("rollout", canonical(draft.rollout), own)
    if signed is None:
        raise BadInput(f"{rollout}: nobody signed it, so no device would believe it; `fa rollout sign` does")
    result, about = read_result(test_set), signed
    _act(
        lambda context: control.start(context, draft.rollout, about, result, plans),
        store, publish, log_key, witness, now, as_json,
    )  # fmt: skip


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
    from fa_core.rollout.states import histories
    from fa_core.store import open_store

    now = _clock(at, None)
    with open_store(store, create=False) as opened:
        if rollout is None:
            every = [rollout_text.row(each, now) for each in histories(opened.rollouts()).values()]
            if as_json:
                _print_json({"rollouts": every})
            else:
                rollout_text.print_rows(every)
            return
        history = control.find(opened, rollout)
        charges = opened.charges(history.document.population)
    if as_json:
        _print_json(rollout_text.whole(history, charges, now))
    else:
        rollout_text.print_whole(history, charges, now)


@app.command()
def decide(
    rollout: Meant,
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Decide what is due on the planned release. Exit code 0: expands, 3: holds, 4: is rolled back.

    Run it as often as you like, from a timer: where nothing is due it renews the lease, and ends with 3.
    """
    from fa_core.rollout import control

    _on(rollout, control.decide, (publish, log_key, witness, at, store, as_json), codes=True)


@app.command()
def hold(
    rollout: Meant,
    why: Why = "an operator holds it",
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Hold a rollout: nothing expands until it is resumed. Devices keep the stage that they are in."""
    _operate("hold", rollout, why, (publish, log_key, witness, at, store, as_json))


@app.command()
def resume(
    rollout: Meant,
    why: Why = "an operator resumes it",
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Let a rollout that is held expand again."""
    _operate("resume", rollout, why, (publish, log_key, witness, at, store, as_json))


@app.command()
def rollback(
    rollout: Meant,
    why: Why = "an operator takes the candidate back",
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Take the candidate back, for good: devices go back to the baseline. A new try is a new revision."""
    _operate("roll_back", rollout, why, (publish, log_key, witness, at, store, as_json))


@app.command()
def kill(
    rollout: Meant,
    why: Why = "an operator ends the rollout",
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """End a rollout for good for another reason than its candidate. Devices go back to the baseline."""
    _operate("kill", rollout, why, (publish, log_key, witness, at, store, as_json))


@app.command()
def complete(
    rollout: Meant,
    publish: Published = None,
    log_key: LogKey = None,
    witness: WitnessSocket = None,
    at: At = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Make the candidate the baseline, once the last stage is passed. The witness grants it."""
    from fa_core.rollout import control

    _on(rollout, control.complete, (publish, log_key, witness, at, store, as_json))


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
        _print_json({"good": not problems, "rollout": history.document.name, "problems": problems})
    if problems:
        raise BadInput("the rollout does not verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        count = len(history.decisions), len(history.manifests)
        typer.echo(
            f"{history.document.name}: {count[0]} decisions and {count[1]} manifests follow from the log"
        )


_ASKED = "an operator asked for it in the dashboard"
"""Why, in the public log: who it was is in the dashboard's own."""


def operated(store: str, rollout: str, action: str) -> str:
    """Do what an operator of the dashboard says with a rollout, with the store's own signers.

    Args:
        rollout: the hash of its document. action: hold, resume, rollback or decide.

    Returns what came of it, a sentence. Raises Refused or RoundFailed where nothing did.
    """
    from fa_core.cli import rollout_text
    from fa_core.rollout import control
    from fa_core.store import open_store

    now = _clock(None, None)
    with open_store(store, create=False) as opened:
        context = _context(opened, store, None, None, None, now)
        document = control.find(opened, rollout).document
        if action == "decide":
            outcome = control.decide(context, document)
        else:
            asked: Any = "roll_back" if action == "rollback" else action
            outcome = control.operate(context, document, asked, _ASKED)
    where = rollout_text.where(outcome.history, now)
    late = f" Devices do not have it yet: {outcome.undelivered}." if outcome.undelivered else ""
    return f"{outcome.verdict.replace('_', ' ')}: {outcome.why}. {where}{late}"


# What the commands share

_Shared = tuple[Path | None, Path | None, Path | None, str | None, str, bool]
"""Options: the publication directory, the log's key, the witness's socket, the clock, the store, --json."""


def _operate(action: Any, rollout: str, why: str, shared: _Shared) -> None:
    from fa_core.rollout import control

    _on(rollout, lambda context, document: control.operate(context, document, action, why), shared)


def _on(
    rollout: str, what: "Callable[[Context, Rollout], Outcome]", shared: _Shared, *, codes: bool = False
) -> None:
    """Act on a rollout in the log."""
    from fa_core.rollout import control

    publish, log_key, witness, at, store, as_json = shared
    _act(
        lambda context: what(context, control.find(context.store, rollout).document),
        store, publish, log_key, witness, _clock(at, log_key), as_json, codes=codes,
    )  # fmt: skip


def _act(
    what: "Callable[[Context], Outcome]",
    store: str,
    publish: Path | None,
    log_key: Path | None,
    witness: Path | None,
    now: datetime,
    as_json: bool,
    *,
    codes: bool = False,
) -> None:
    """Act with the store's signers, and say what came of it."""
    from fa_core.cli import rollout_text
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        outcome = what(_context(opened, store, publish, log_key, witness, now))
    if as_json:
        _print_json(rollout_text.outcome(outcome, now))
    else:
        typer.echo(f"{outcome.history.document.name}: {outcome.verdict.replace('_', ' ')}: {outcome.why}")
        typer.echo(rollout_text.where(outcome.history, now))
    if outcome.undelivered:
        typer.echo(f"warning: devices do not have it yet: {outcome.undelivered}", err=True)
    if codes:
        raise typer.Exit(CODES[outcome.verdict])


def _context(
    opened: "Store",
    store: str,
    publish: Path | None,
    log_key: Path | None,
    witness: Path | None,
    now: datetime,
) -> "Context":
    from fa_core.rollout.judging import Gate
    from fa_core.rollout.record import Context
    from fa_core.rounds.app import WITNESS_SECONDS
    from fa_core.rounds.keys import keys_folder, local_keys, local_witness
    from fa_core.trust.enrolment import read_key
    from fa_core.trust.witness_service import WitnessClient

    if (log_key is None) != (witness is None):
        raise BadInput("--log-key and --witness belong together: the log signs, the witness cosigns")
    folder = publish or (None if "://" in store else Path(store) / "published")
    if log_key is not None and witness is not None:
        client = WitnessClient(witness, WITNESS_SECONDS)
        return Context(opened, read_key(log_key), client, Gate(), folder, now)
    keys = local_keys(keys_folder(store))
    used = opened.keys("log")
    if used and keys.log.public_key().public_bytes_raw() not in used:
        raise BadInput("another key signs this store's log; give --log-key and --witness")
    return Context(opened, keys.log, local_witness(keys, lambda: now), Gate(), folder, now)


def _clock(at: str | None, log_key: Path | None) -> datetime:
    """Return the time, a whole second. BadInput for a clock that is set beside keys of a deployment."""
    if at is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        raise BadInput(f"--at: {at!r} is no time; write it as 2026-12-08T09:00Z") from None
    if log_key is not None or found.tzinfo is None:
        raise BadInput("--at sets the clock of a store's own keys, with a zone, as 2026-12-08T09:00Z")
    return found.astimezone(UTC).replace(microsecond=0)


def _print_json(value: dict[str, Any]) -> None:
    from fa_core.cli.render import as_json

    as_json(value)
