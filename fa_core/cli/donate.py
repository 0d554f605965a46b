"""`fa device donate`: samples that the owner offers on purpose, one by one, and takes back."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.errors import BadInput, Refused

if TYPE_CHECKING:
    from clients.device.owner import DeviceHome
    from clients.donation.offering import Post
    from clients.donation.records import Donation
    from fa_core.donation.recording import Recording
    from fa_core.donation.request import DonationRequest

app = typer.Typer(
    no_args_is_help=True,
    help="Offer samples to two reviewers, each one after you have seen it; see what you gave; take it back.",
)

Folder = Annotated[
    Path, typer.Option("--dir", envvar="UNHEARD_DEVICE", help="The device's folder, with its device.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Request = Annotated[
    Path, typer.Argument(help="The donation request, signed by the enrolment authority.", show_default=False)
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", help="The authority of the vault's certificate; else the system's.", show_default=False
    ),
]
HERE = Path()


@app.command("list")
def list_samples(
    request: Request,
    files: Annotated[
        list[Path], typer.Argument(help="Recordings, 16 kHz mono, or folders of them.", show_default=False)
    ],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what a donation request asks for, and which recordings could be offered. Nothing leaves."""
    from clients.donation.offering import check
    from clients.donation.showing import read_recording
    from fa_core.cli.text_table import table

    home = _open(folder)
    found = _request(home, request)
    rows: list[tuple[Path, float | None, int | None, str]] = []
    for path in _paths(files):
        try:
            recording = read_recording(path)
            rows.append((path, round(recording.seconds, 2), len(recording.padded()), ""))
        except BadInput as error:
            rows.append((path, None, None, str(error)))
    try:
        check(home.store, found, _now())
        why = ""
    except Refused as refused:
        why = str(refused)
    if as_json:
        samples = [
            {"file": str(path), "seconds": seconds, "bytes": size, "problem": problem or None}
            for path, seconds, size, problem in rows
        ]
        typer.echo(json.dumps({**_scope(found), "refused": why or None, "samples": samples}, indent=2))
        return
    _print_scope(found)
    shown = [
        (str(p), "" if s is None else f"{s:.2f}", "" if b is None else f"{b:,}", w) for p, s, b, w in rows
    ]
    table(f"{len(rows)} recordings", ("file", "seconds", "bytes that would leave", "problem"), shown)
    typer.echo(why or "these can be offered: fa device donate offer")


@app.command()
def offer(
    request: Request,
    files: Annotated[
        list[Path], typer.Argument(help="Recordings, 16 kHz mono, or folders of them.", show_default=False)
    ],
    said: Annotated[
        str, typer.Option(help="A line that goes with the sample, of one file alone: what was said, say.")
    ] = "",
    player: Annotated[
        str | None,
        typer.Option(help="A command that plays a WAV file, as `aplay -q`.", show_default=False),
    ] = None,
    ca: Authority = None,
    folder: Folder = HERE,
) -> None:
    """Show or play each sample, ask, and send what you agreed to: sealed for two reviewers together."""
    from clients.donation.offering import check
    from clients.donation.showing import need_terminal, read_recording
    from fa_core.donation.exchange import post, reach, trust_of

    home = _open(folder)
    found, paths = _request(home, request), _paths(files)
    check(home.store, found, _now())
    if said and len(paths) != 1:
        raise BadInput("--said goes with one sample; offer the files one by one")
    need_terminal()
    trust = trust_of(ca)
    reach(found.vault, trust)
    recordings = [(path, read_recording(path, said)) for path in paths]
    _print_scope(found)
    sent = 0
    for number, (path, recording) in enumerate(recordings, start=1):
        typer.echo(f"\nsample {number} of {len(recordings)}: {path}")
        sent += _offer_one(home, found, recording, player, partial(post, found.vault, trust))
    typer.echo(f"\n{sent} of {len(recordings)} samples were sent; `fa device donate status` lists them")


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """List what you gave: for what, to which vault, until when, and what you took back."""
    from clients.device.consent import allows
    from clients.donation.records import Donations
    from fa_core.cli.text_table import table
    from fa_core.donation.request import PURPOSE

    home = _open(folder)
    found, live = Donations(home.store).all(), allows(home.store.grants(), PURPOSE, _now())
    if as_json:
        typer.echo(json.dumps({"consent": live, "samples": [_object(each) for each in found]}, indent=2))
        return
    rows = [tuple(str(value or "") for value in _object(each).values()) for each in found]
    table(f"{len(rows)} samples", ("sample", "area", "vault", "agreed to", "kept until", "state"), rows)
    typer.echo("consent to debug: " + ("yes" if live else "no; nothing can leave"))
    if not live and any(each.state in ("sent", "kept") for each in found):
        typer.echo("what was sent stays in its vault until its day, or until `fa device donate withdraw`")


@app.command()
def withdraw(
    samples: Annotated[
        list[str] | None, typer.Argument(help="First digits of samples' ids.", show_default=False)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every sample that was not withdrawn yet.")
    ] = False,
    ca: Authority = None,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Have the vault destroy samples; its signed statement goes into the journal. Needs no consent."""
    from clients.donation.offering import withdraw as take_back
    from clients.donation.records import Donations
    from fa_core.donation.exchange import post, trust_of

    if bool(samples) == everything:
        raise BadInput("name samples, or say --all")
    home = _open(folder)
    donations, trust = Donations(home.store), trust_of(ca)
    meant = (
        [each for each in donations.all() if each.state != "withdrawn"]
        if everything
        else [donations.find(each) for each in samples or ()]
    )
    said = []
    for donation in meant:
        statement = take_back(home.store, donation, partial(post, donation.vault, trust), _now)
        said.append(json.loads(statement.document()))
        if not as_json:
            typer.echo(f"{donation.sample.hex()}: {said[-1]['words']} Reads before: {statement.reads}.")
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    elif not said:
        typer.echo("there is nothing to withdraw")


def _offer_one(
    home: "DeviceHome", request: "DonationRequest", recording: "Recording", player: str | None, post: "Post"
) -> bool:
    """Show one sample, ask, and send it; return whether it was sent."""
    from clients.donation.offering import check
    from clients.donation.offering import offer as send
    from clients.donation.showing import agreed, shown

    check(home.store, request, _now())
    with shown(recording, player) as path:
        typer.echo(f"{recording.seconds:.2f} s of audio; {len(recording.padded()):,} bytes leave, sealed")
        typer.echo(f"with the words: {recording.said}" if recording.said else "with no words")
        typer.echo(f"this is what leaves, to listen to: {path}" if player is None else "it was played")
        if not agreed():
            typer.echo("it stays here")
            return False
    donation = send(home.store, request, recording, post, _now)
    typer.echo(f"sent: {donation.vault} keeps sample {donation.sample.hex()} until {donation.until}")
    return True


def _paths(files: list[Path]) -> list[Path]:
    from clients.runtime.sources import folder_files

    return [path for each in files for path in (folder_files(each) if each.is_dir() else [each])]


def _request(home: "DeviceHome", path: Path) -> "DonationRequest":
    from fa_core.donation.request import read

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    try:
        return read(data, home.config.trust.authority)
    except (BadInput, Refused) as error:
        raise type(error)(f"{path}: {error}") from None


def _scope(request: "DonationRequest") -> dict[str, object]:
    return {
        "request": request.hash.hex(),
        "area": request.area,
        "first": request.first.isoformat(),
        "end": request.end.isoformat(),
        "samples_at_most": request.samples,
        "retention_days": request.retention_days,
        "vault": request.vault,
        "reviewers": [each.name for each in request.reviewers],
    }


def _print_scope(request: "DonationRequest") -> None:
    one, other = request.reviewers
    typer.echo(f"asked for: {request.area}, at most {request.samples} samples of this device")
    typer.echo(f"offered from {request.first:%Y-%m-%d %H:%M} to {request.end:%Y-%m-%d %H:%M} UTC")
    typer.echo(
        f"kept by {request.vault} for at most {request.retention_days} days; {one.name} and {other.name} can "
        "hear it, together. It is your voice: it can tell them who you are"
    )


def _object(donation: "Donation") -> dict[str, str | None]:
    return {
        "sample": donation.sample.hex(),
        "area": donation.area,
        "vault": donation.vault,
        "agreed": donation.at.isoformat(timespec="seconds"),
        "until": donation.until.isoformat() if donation.until else None,
        "state": donation.state,
    }


def _open(folder: Path) -> "DeviceHome":
    from clients.device.owner import DeviceHome

    return DeviceHome.open(folder, _now())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
