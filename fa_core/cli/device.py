"""`fa device`: what is stored and what was sent in your name, and how to say no."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fa_core.cli import donate, personalise
from fa_core.errors import BadInput, Refused

if TYPE_CHECKING:
    from clients.device.owner import DeviceHome
    from clients.runtime.listening import Started

app = typer.Typer(
    no_args_is_help=True,
    help="See what this device stores and what was sent in your name; consent, forget, verify, serve.",
)
app.add_typer(donate.app, name="donate")

app.add_typer(personalise.app, name="personalise")

Folder = Annotated[
    Path, typer.Option("--dir", envvar="UNHEARD_DEVICE", help="The device's folder, with its device.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The detector's version, or the SHA-256 of a published one that is here; else the one that "
        "acts in a rollout, or micro-1.",
        show_default=False,
    ),
]
HERE = Path()


@app.command()
def init(folder: Folder = HERE) -> None:
    """Make the device's store and its keys, after device.toml. Nothing that is there is ever replaced."""
    from clients.device.owner import DeviceHome
    from clients.device.records import Records

    home = DeviceHome.make(folder, _now())
    with home.store.transaction(_now()):
        public = Records(home.store).key().public_key().public_bytes_raw()
    home.store.close()
    typer.echo(f"{folder}: made. Have the enrolment authority certify this key, then `fa device enrolled`:")
    typer.echo(public.hex())


@app.command()
def enrolled(
    certificate: Annotated[str, typer.Argument(help="The authority's certificate, 192 hexadecimal digits.")],
    folder: Folder = HERE,
) -> None:
    """Keep the enrolment authority's certificate, after checking it."""
    from clients.device.records import Records
    from fa_core.secagg.identity import CERTIFICATE_SIZE, certified

    home = _open(folder)
    with home.store.transaction(_now()):
        records = Records(home.store)
        public = records.key().public_key().public_bytes_raw()
        data = bytes.fromhex(certificate) if _is_hex(certificate, CERTIFICATE_SIZE) else b""
        if not certified(public, data, home.config.trust.authority):
            raise BadInput("this is no certificate of this device's key by the authority in device.toml")
        records.certify(data)
    typer.echo(f"{folder}: enrolled")


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Show consents, what is stored, what was spent, and the journal's head to note down."""
    from clients.device.owner import status as status_of

    home, now = _open(folder), _now()
    found, acting = status_of(home, now), _acting(home, now)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "acting": acting}, indent=2))
        return
    table = Table("", "", title=f"device {found.name}", show_header=False)
    for purpose, until in found.consents.items():
        table.add_row(f"consent to {purpose}", f"until {until}" if until else "no")
    for name, purposes in found.rows.items():
        kept = ", ".join(f"{count:,} for {purpose}" for purpose, count in purposes.items())
        table.add_row(f"stored {name}", kept or "nothing")
    table.add_row("budget", found.budget)
    table.add_row("spent", found.spent + (f", frees up from {found.frees_up}" if found.frees_up else ""))
    table.add_row("contributions", str(found.contributions))
    table.add_row("takes part from", found.takes_part_from or "it has not been invited yet")
    table.add_row("central noise", "allowed" if found.central_noise else "declined")
    needs = f"helper {str(found.helper)[:16]}, kappa of at least {found.min_kappa}"
    table.add_row("two aggregators", needs if found.helper else "declined: device.toml names no helper")
    for release, state in found.reports.items():
        table.add_row(f"report to {release[:12]}", state)
    table.add_row("enrolled", "yes" if found.enrolled else "no")
    for wake_word, why in acting.items():
        table.add_row(f"model for {wake_word}", why)
    table.add_row("journal", f"{found.journal_entries} entries")
    Console().print(table)
    typer.echo(f"this device's public key: {found.key}")
    typer.echo(f"note this down, for `fa device verify --head`: {found.journal_head}")


@app.command()
def consent(
    purpose: Annotated[
        str | None, typer.Argument(help="quality_metrics, personalisation or debug; left out: show all.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="For how many days.")] = 180,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End the consent; deletes what it stored.")
    ] = False,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show consents, give one for a time, or revoke one. Without consent nothing is stored or sent."""
    from clients.device import consent as consents
    from clients.device.journal import sentence

    home, now = _open(folder), _now()
    if purpose is not None and revoke:
        said = sentence(home.store.revoke(consents.purpose(purpose), now))
        typer.echo(json.dumps({"said": said}) if as_json else said)
        return
    if purpose is not None:
        home.store.grant(consents.purpose(purpose), now + timedelta(days=days), now)
    held = {grant.purpose: grant.until.isoformat() for grant in home.store.grants()}
    if as_json:
        typer.echo(json.dumps({name: held.get(name) for name in consents.PURPOSES}, indent=2))
        return
    for name in consents.PURPOSES:
        typer.echo(f"{name}: {'until ' + held[name] if name in held else 'no'}")


@app.command()
def receipts(
    folder: Folder = HERE,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole journal, not contributions only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was sent in your name: which plan, whose key, which question, what it read and cost."""
    from clients.device.owner import entry_object

    entries = [
        entry_object(entry)
        for entry in _open(folder).store.entries()
        if everything or entry.kind == "contributed"
    ]
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    if not entries:
        typer.echo("nothing was ever sent")
    for entry in entries:
        typer.echo(f"{entry['sequence']}  {entry['at']}  {entry['sentence']}")


@app.command()
def forget(
    purpose: Annotated[str | None, typer.Option(help="Only what was kept for this purpose.")] = None,
    table: Annotated[str | None, typer.Option(help="Only this table.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Delete what is stored and leave a proof in the journal. What was sent cannot be called back."""
    from clients.device import consent as consents
    from clients.device.journal import sentence
    from clients.device.owner import entry_object
    from clients.device.store import Scope

    scope = Scope(consents.purpose(purpose) if purpose else None, table)
    home = _open(folder)
    if not yes:
        typer.confirm(f"delete {scope}?", abort=True)
    entry = home.store.forget(scope, _now())
    if as_json:
        typer.echo(json.dumps(entry_object(entry), indent=2))
        return
    typer.echo(sentence(entry))
    typer.echo(f"proof: journal entry {entry.sequence}, {entry.hash}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="A new folder.")], folder: Folder = HERE, as_json: AsJson = False
) -> None:
    """Write everything that is stored about you into plain files, readable by you alone."""
    from clients.device.owner import export as export_to
    from clients.donation.held import exported

    home = _open(folder)
    written = [str(path) for path in export_to(home, out, exported(home.store))]
    typer.echo(json.dumps(written, indent=2) if as_json else "\n".join(written))


@app.command()
def verify(
    head: Annotated[
        str | None, typer.Option(help="A journal head that you noted; it must still be there.")
    ] = None,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Check the journal's chain, deletions, consents, charges and donations. Exit code 3 if broken."""
    from clients.device.proof import problems
    from clients.donation import held

    home = _open(folder)
    found = problems(home.store, head) or held.problems(home.store)
    last = home.store.last_entry()
    assert last is not None
    if as_json:
        typer.echo(json.dumps({"holds": not found, "problems": found, "head": last.hash}, indent=2))
        raise typer.Exit(Refused.exit_code if found else 0)
    if found:
        raise Refused("\n".join(found))
    typer.echo(f"{last.sequence} entries hold; head {last.hash}")


@app.command()
def listen(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Audio files, folders of them, or - for raw samples from standard input."),
    ],
    wake_word: Annotated[str, typer.Option(help="The wake word to listen for.")] = "okay_nabu",
    model: ModelOption = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="A policy to follow: the SHA-256 of a published one that is here, or a file to try out.",
            show_default=False,
        ),
    ] = None,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Play 16 kHz audio to this device as if it were recorded now: events are stored, audio never is."""
    from clients.runtime.listening import play

    home = _open(folder)
    found = play(sources, _started(home, wake_word, model, policy), _now)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(f"{found.wakes} wakes and {found.near_misses} near misses in {found.seconds:,.1f} s of audio")
    if found.wakes + found.near_misses and not found.written:
        typer.echo("nothing was stored: there is no consent to quality_metrics")
    else:
        typer.echo(f"{found.written} rows were stored")


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="The SHA-256 of a published artefact.", show_default=False)],
    gateway: Annotated[
        str | None,
        typer.Option(
            help="A gateway, https://HOST:PORT; else the directory in device.toml.", show_default=False
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="The authority of the gateway's certificate; else the system's.", show_default=False
        ),
    ] = None,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Fetch a published model and keep it, if every check passes. Exit code 3 where it is refused."""
    from clients.device.records import Records
    from clients.device.remote import Unreachable, line
    from clients.models.believe import RefusedModel, Shipped
    from clients.models.sources import Gateway
    from clients.runtime.published import models_of

    if not _is_hex(model, 32):
        raise BadInput(f"{model}: the SHA-256 of an artefact is expected, 64 hexadecimal digits")
    home = _open(folder)
    source = None if gateway is None else Gateway(line(gateway, Records(home.store).identity(), ca))
    try:
        found = models_of(home, source).obtain(model.lower(), _now())
    except RefusedModel as refused:
        raise Refused(f"{model} is refused: {refused}") from None
    except Unreachable:
        raise BadInput(f"{gateway} does not answer, or does not admit this device") from None
    about = found if isinstance(found, Shipped) else found.manifest
    if as_json:
        typer.echo(json.dumps(asdict(about), indent=2))
        return
    how = "came with this program" if isinstance(found, Shipped) else f"is kept, signed by {found.signer}"
    typer.echo(f"{about.version} for {about.wake_word or 'all wake words'} {how}")


@app.command()
def serve(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="The devices of a hub, in the order of their slots.")
    ] = None,
    folder: Folder = HERE,
    hub: Annotated[
        Path | None,
        typer.Option(
            help="A folder of devices: all of them, in the order of their names.", show_default=False
        ),
    ] = None,
) -> None:
    """Hold store, keys, consent and budget in this process, and answer invitations at its socket."""
    from clients.device.process import serve as serve_devices
    from clients.personal import learning
    from clients.runtime import following

    if hub is not None:
        folders = sorted(each.parent for each in hub.glob("*/device.toml"))
        if not folders:
            raise BadInput(f"{hub} holds no device: no folder in it has a device.toml")
    serve_devices(folders or [folder], following.beside_hub, learning.beside_hub)


@app.command()
def connect(
    gateway: Annotated[str, typer.Argument(help="A gateway: https://HOST:PORT.", show_default=False)],
    ca: Annotated[
        Path | None,
        typer.Option(
            help="The authority of the gateway's certificate; else the system's.", show_default=False
        ),
    ] = None,
    folder: Folder = HERE,
) -> None:
    """Take part in rounds through a gateway. Nothing listens here: this device asks, and decides."""
    from clients.device.process import connect as connect_device
    from clients.personal import learning
    from clients.runtime import following

    beside = following.beside_gateway(gateway, ca), learning.beside_gateway(gateway, ca)
    connect_device(folder, gateway, ca, *beside)


@app.command()
def wyoming(
    uri: Annotated[
        str, typer.Option(help="Where to answer: tcp://HOST:PORT or unix:///PATH.")
    ] = "tcp://127.0.0.1:10400",
    model: ModelOption = None,
    folder: Folder = HERE,
) -> None:
    """Answer a voice assistant as its wake-word service (Wyoming protocol). Audio is never stored."""
    from clients.wake_service.process import serve as serve_assistants

    serve_assistants(folder, uri, typer.echo, model)


def _started(home: "DeviceHome", wake_word: str, model: str | None, policy: str | None) -> "Started":
    """Return what starts a stream: heard by the detector that was named, else by the one that acts, and by
    what this device learned on it."""
    from clients.personal.hearing import started
    from clients.runtime.published import models_of

    return started(home, models_of(home), wake_word, model, policy)


def _acting(home: "DeviceHome", now: datetime) -> dict[str, str]:
    """Return which model acts and why, by wake word, where there was ever a rollout for it."""
    from clients.device.records import Records
    from clients.rollout.state import wake_words

    if not Records(home.store).enrolled() or not (words := wake_words(home.store)):
        return {}
    # Imported here: a device without a rollout needs no detector to show its state.
    from clients.runtime.following import Chooser
    from clients.runtime.published import models_of

    models = models_of(home)
    return {word: Chooser(home, models, word)(now).why for word in words}


def _open(folder: Path) -> "DeviceHome":
    from clients.device.owner import DeviceHome

    return DeviceHome.open(folder, _now())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == 2 * length and all(digit in "0123456789abcdef" for digit in text.lower())
