"""What the commands that act on a rollout share: their options, and the store with its signers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fa_core.errors import BadInput, Refused, RoundFailed

if TYPE_CHECKING:
    from fa_core.rollout.document import Rollout
    from fa_core.rollout.record import Context, Outcome
    from fa_core.store import Store

HERE = ".unheard"

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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

CODES = {"expand": 0, "hold": Refused.exit_code, "roll_back": RoundFailed.exit_code}


@dataclass(frozen=True)
class Options:
    """The options of every command that acts on a rollout; their fields are Typer's parameters."""

    publish: Published = None
    log_key: LogKey = None
    witness: WitnessSocket = None
    at: At = None
    store: Where = HERE
    as_json: AsJson = False

    @cached_property
    def now(self) -> datetime:
        """The time, a whole second. Raises BadInput for a clock that is set beside keys of a deployment."""
        return clock(self.at, self.log_key)

    def act(self, what: "Callable[[Context], Outcome]") -> "Outcome":
        """Act with the store's signers, say what came of it, and return that."""
        from fa_core.cli import rollout_text
        from fa_core.store import open_store

        now = self.now
        with open_store(self.store, create=False) as opened:
            outcome = what(context(opened, self))
        if self.as_json:
            print_object(rollout_text.outcome(outcome, now))
        else:
            typer.echo(f"{outcome.history.document.name}: {outcome.verdict.replace('_', ' ')}: {outcome.why}")
            typer.echo(rollout_text.where(outcome.history, now))
            if reach := rollout_text.reach(outcome):
                typer.echo(reach)
        for each in rollout_text.late(outcome):
            typer.echo(f"warning: {each}", err=True)
        return outcome

    def act_on(self, rollout: str, what: "Callable[[Context, Rollout], Outcome]") -> "Outcome":
        """Act on the rollout in the log that is meant by a name or the first digits of its hash."""
        from fa_core.rollout import control

        return self.act(lambda context: what(context, control.find(context.store, rollout).document))


def acting(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer that has the `Options` too; they are its first argument."""
    own, shared = list(signature(command).parameters.values())[1:], signature(Options).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        command(Options(**{name: given.pop(name) for name in shared}), **given)

    parameters = [*own, *shared.values()]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def clock(at: str | None, log_key: Path | None) -> datetime:
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


def context(opened: "Store", options: Options) -> "Context":
    """Return what an action needs: the signers that the options name, or else the store's own."""
    from fa_core.rollout.judging import Gate
    from fa_core.rollout.record import Context
    from fa_core.rounds.app import WITNESS_SECONDS
    from fa_core.rounds.keys import keys_folder, local_keys, local_witness
    from fa_core.trust.enrolment import read_key
    from fa_core.trust.witness_service import WitnessClient

    log_key, witness, store, now = options.log_key, options.witness, options.store, options.now
    if (log_key is None) != (witness is None):
        raise BadInput("--log-key and --witness belong together: the log signs, the witness cosigns")
    folder = options.publish or (None if "://" in store else Path(store) / "published")
    if log_key is not None and witness is not None:
        client = WitnessClient(witness, WITNESS_SECONDS)
        return Context(opened, read_key(log_key), client, Gate(), folder, now)
    keys = local_keys(keys_folder(store))
    used = opened.keys("log")
    if used and keys.log.public_key().public_bytes_raw() not in used:
        raise BadInput("another key signs this store's log; give --log-key and --witness")
    return Context(opened, keys.log, local_witness(keys, lambda: now), Gate(), folder, now)


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

    options = Options(store=store)
    with open_store(store, create=False) as opened:
        document = control.find(opened, rollout).document
        given = context(opened, options)
        if action == "decide":
            outcome = control.decide(given, document)
        else:
            asked: Any = "roll_back" if action == "rollback" else action
            outcome = control.operate(given, document, asked, _ASKED)
    where = rollout_text.where(outcome.history, options.now)
    late = "".join(f" Note: {each}." for each in rollout_text.late(outcome))
    reach = f" {found}" if (found := rollout_text.reach(outcome)) else ""
    return f"{outcome.verdict.replace('_', ' ')}: {outcome.why}. {where}{reach}{late}"


def print_object(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    from fa_core.cli.render import as_json

    as_json(value)
