"""`fa device personalise`: what this device learns of its owner, what that gained, how to take it back."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.errors import Refused

if TYPE_CHECKING:
    from clients.device.owner import DeviceHome
    from clients.personal.learning import Learner
    from clients.personal.status import Compared, InUseStatus, Share, WordStatus

app = typer.Typer(
    no_args_is_help=True,
    help="See what this device learned of its owner; have it learn, take that back, forget it.",
)

Folder = Annotated[
    Path, typer.Option("--dir", envvar="UNHEARD_DEVICE", help="The device's folder, with its device.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WakeWord = Annotated[str, typer.Option(help="The wake word.")]
HERE = Path()
KNOWN = (
    "shares have exact 95% limits, and are of moments with a label: a wake word that had to be said again\n"
    "always has one, one that was heard at once only where a reaction showed that it was meant"
)


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Show what is kept to learn from, what was learned and gained, when, and why nothing is learned now."""
    from clients.personal.status import status as status_of

    found = status_of(_learner(_open(folder)), _now())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    until = found.consent_until
    typer.echo(f"personalisation: on until {until}" if until else "personalisation: off; nothing is kept")
    for each in found.wake_words:
        typer.echo("\n".join(_word_lines(each)))
    if any(each.adapter for each in found.wake_words):
        typer.echo(KNOWN)
    if until and not found.wake_words:
        typer.echo("no moment was kept to learn from yet")


@app.command()
def on(
    days: Annotated[int, typer.Option(min=1, help="For how many days.")] = 180,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Consent to personalisation: features of a few moments are kept on this device, and learned from."""
    home, now = _open(folder), _now()
    until = now + timedelta(days=days)
    home.store.grant("personalisation", until, now)
    said = f"personalisation is on until {until.isoformat()}; nothing of it ever leaves this device"
    typer.echo(json.dumps({"until": until.isoformat()}) if as_json else said)


@app.command()
def off(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Revoke the consent to personalisation, and delete what was kept and learned."""
    from clients.device.journal import sentence
    from clients.device.owner import entry_object

    entry = _open(folder).store.revoke("personalisation", _now())
    typer.echo(json.dumps(entry_object(entry), indent=2) if as_json else sentence(entry))


@app.command()
def learn(wake_word: WakeWord = "okay_nabu", folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Learn now, whether or not the device is charging and idle. Exit code 3 where nothing is learned."""
    from clients.personal.learn import Candidate

    learner = _learner(_open(folder))
    found = learner.learn(wake_word, _now, fetch=False, goes_on=lambda _: True)
    if not isinstance(found, Candidate):
        raise Refused(f"nothing is learned for {wake_word}: {found.value}")
    gain = found.gain
    if as_json:
        typer.echo(json.dumps({"wake_word": wake_word, "gain": asdict(gain)}, indent=2))
        return
    typer.echo(
        f"learned: of {gain.moments} moments that it was not fitted on, the model as it came wakes for "
        f"{gain.base}, the adapted one for {gain.adapted}; from now on it is tried out beside the model"
    )


@app.command()
def revert(wake_word: WakeWord = "okay_nabu", folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Take back what acts for a wake word, at once: the model acts as it came. The moments stay."""
    from clients.personal import stages

    done = stages.revert(_open(folder).store, wake_word, "you took it back", _now())
    said = "the model acts as it came" if done else f"no adapter is in use for {wake_word}"
    typer.echo(json.dumps({"wake_word": wake_word, "reverted": done}) if as_json else said)


@app.command()
def forget(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Delete all that was kept and learned, and leave a proof for `fa device verify`. The consent stays."""
    from clients.device.journal import sentence
    from clients.device.owner import entry_object
    from clients.device.store import Scope

    home = _open(folder)
    if not yes:
        typer.confirm("delete what was kept to learn from, and what was learned?", abort=True)
    entry = home.store.forget(Scope("personalisation"), _now())
    if as_json:
        typer.echo(json.dumps(entry_object(entry), indent=2))
        return
    typer.echo(sentence(entry))
    typer.echo(f"proof: journal entry {entry.sequence}, {entry.hash}")


def _word_lines(found: "WordStatus") -> list[str]:
    kept = found.wanted + found.unwanted
    lines = [
        f"{found.wake_word}: {kept} moments are kept ({found.wanted} meant for it, {found.unwanted} not), "
        f"{found.counting} of them count"
        + (f"; the oldest goes on {found.oldest_goes[:10]}" if found.oldest_goes else "")
    ]
    lines += [f"  {line}" for line in _adapter_lines(found.adapter)]
    if kept and not found.anchors:
        lines.append("  there is no public anchor set for its model here, so nothing is learned")
    lines.append(
        f"  it learned last on {found.learned_at}: {found.learned}"
        if found.learned_at
        else "  it never learned"
    )
    return [*lines, f"  not now: {found.not_now}" if found.not_now else "  it learns at the next look"]


def _adapter_lines(adapter: "InUseStatus | None") -> list[str]:
    if adapter is None:
        return ["the model acts as it came"]
    stage = {
        "candidate": "is learned, and waits to be heard beside the model",
        "shadow": "is tried out beside the model, which acts",
        "active": f"acts, until {(adapter.until or '')[:10]} at the latest",
        "reset": "has acted for its time; the model acts as it came",
    }[adapter.stage]
    lines = [f"adapter {adapter.number} {stage} (since {adapter.since})"]
    if adapter.wrong is not None:
        return [*lines, f"it will not be loaded: {adapter.wrong}"]
    if adapter.before is not None:
        lines += _compared("on moments that it was not fitted on", adapter.before)
    return lines + _compared("in this stage", adapter.since_then)


def _compared(where: str, found: "Compared") -> list[str]:
    lines = []
    if found.missed_base.of:
        lines.append(
            f"{where}, of {found.missed_base.of} meant for it: missed {_share(found.missed_base)} as it "
            f"came, {_share(found.missed_adapted)} adapted"
        )
    if found.false_base.of:
        lines.append(
            f"{where}, of {found.false_base.of} not meant for it: woke in {_share(found.false_base)} as it "
            f"came, {_share(found.false_adapted)} adapted"
        )
    return lines


def _share(found: "Share") -> str:
    return f"{found.count} ({found.low:.0%} to {found.high:.0%})"


def _learner(home: "DeviceHome") -> "Learner":
    from contextlib import nullcontext

    from clients.personal.learning import Learner

    return Learner(home, None, nullcontext())


def _open(folder: Path) -> "DeviceHome":
    from clients.device.owner import DeviceHome

    return DeviceHome.open(folder, _now())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
