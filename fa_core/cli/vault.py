"""`fa vault`: it keeps donated samples that it cannot open; two reviewers read one together."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fa_core.errors import BadInput, Refused

if TYPE_CHECKING:
    from fa_core.store import Store
    from fa_core.vault.access_log import AccessLog
    from fa_core.vault.reviewer import Review
    from fa_core.vault.settings import Home

app = typer.Typer(help="Keep donated samples that two reviewers open together.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The vault's folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Own = Annotated[Path, typer.Option("--dir", help="The reviewer's folder.", show_default=False)]
Request = Annotated[Path, typer.Option("--request", help="The donation request's file.", show_default=False)]
ReadName = Annotated[str, typer.Argument(help="A read, as `fa vault ask` prints it.", show_default=False)]


@app.command()
def init(
    folder: Folder,
    name: Annotated[
        str, typer.Option(help="HOST:PORT that devices and reviewers connect to.", show_default=False)
    ],
    authority: Annotated[
        Path, typer.Option(help="File with the enrolment authority's public key.", show_default=False)
    ],
    store: Annotated[
        str, typer.Option(help="The store with the transparency log: a folder, or postgresql://…")
    ],
    as_json: AsJson = False,
) -> None:
    """Make a vault's folder: settings, keys, an empty file and key store, a TLS certificate (ca.crt)."""
    from fa_core.vault.settings import PUBLIC
    from fa_core.vault.setup import init as make

    home = make(folder, name, authority, store)
    public = (folder / PUBLIC).read_text("ascii").strip()
    wraps = folder.resolve() / home.settings.wraps
    if as_json:
        typer.echo(
            json.dumps({"vault": str(folder), "name": name, "public_key": public, "wraps": str(wraps)})
        )
        return
    typer.echo(f"{folder}: made; its public key is {public}")
    typer.echo(f"{wraps} is the key store: keep it out of every backup and snapshot")
    typer.echo(
        f"put signed donation requests into {folder / home.settings.requests}, then `fa vault serve {folder}`"
    )


@app.command()
def reviewer(
    folder: Annotated[Path, typer.Argument(help="A new folder for the reviewer's keys.", show_default=False)],
    name: Annotated[
        str, typer.Option(help="The reviewer's name, as owners of devices read it.", show_default=False)
    ],
    authority: Annotated[
        Path, typer.Option(help="File with the enrolment authority's public key.", show_default=False)
    ],
    log: Annotated[
        Path, typer.Option(help="File with the transparency log's public key.", show_default=False)
    ],
    witness: Annotated[Path, typer.Option(help="File with the witness's public key.", show_default=False)],
    ca: Annotated[
        Path | None,
        typer.Option(help="The authority of the vault's certificate; else the system's.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a reviewer's keys. The public halves, reviewer.json, go into a donation request."""
    from fa_core.vault.reviewer import AUTHORITY, CA, LOG, PUBLIC, WITNESS, make

    pinned = {AUTHORITY: authority, LOG: log, WITNESS: witness} | ({CA: ca} if ca else {})
    made = make(folder, name, pinned)
    if as_json:
        typer.echo(json.dumps({**made.body(), "file": str(folder / PUBLIC)}))
        return
    typer.echo(f"{folder}: made. Its {PUBLIC} goes into donation requests; the keys stay here")


@app.command("request")
def make_request(
    area: Annotated[str, typer.Option(help="The product area, as owners read it.", show_default=False)],
    samples: Annotated[int, typer.Option(min=1, help="Samples of one device, at most.", show_default=False)],
    retention_days: Annotated[
        int, typer.Option(min=1, help="How long a sample is kept, at most.", show_default=False)
    ],
    vault: Annotated[str, typer.Option(help="The vault's HOST:PORT.", show_default=False)],
    vault_key: Annotated[Path, typer.Option(help="The vault's vault.pub.", show_default=False)],
    reviewers: Annotated[
        list[Path],
        typer.Option("--reviewer", help="A reviewer's reviewer.json; two of them.", show_default=False),
    ],
    directory: Annotated[
        Path, typer.Option("--authority", help="The authority's directory.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where to write the request.", show_default=False)],
    days: Annotated[int, typer.Option(min=1, help="For how many days from now samples are offered.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Sign a donation request: scope, vault and reviewers. The enrolment authority does this."""
    import secrets

    from fa_core.donation.request import TICKET_SIZE, DonationRequest, sign
    from fa_core.federation.certificates import write_private
    from fa_core.trust import enrolment
    from fa_core.vault.reviewer import public_from

    if len(reviewers) != 2:
        raise BadInput(f"two reviewers open a sample together; {len(reviewers)} were named")
    one, other = (public_from(_bytes(path)) for path in reviewers)
    now = datetime.now(UTC).replace(microsecond=0)
    asked = DonationRequest(
        area,
        now,
        now + timedelta(days=days),
        samples,
        retention_days,
        vault,
        enrolment.read_hex(vault_key),
        (one, other),
        secrets.token_bytes(TICKET_SIZE),
    )
    write_private(out, sign(asked, enrolment.load(directory).key))
    if as_json:
        typer.echo(json.dumps({"request": asked.hash.hex(), "file": str(out), "end": asked.end.isoformat()}))
        return
    typer.echo(
        f"{out}: for the vault's folder `requests`, the two reviewers and the owners of the cohort alone"
    )


@app.command()
def serve(folder: Folder) -> None:
    """Serve devices and reviewers until stopped. Logs are JSON on standard error."""
    from fa_core.store import open_store
    from fa_core.vault.process import serve as run
    from fa_core.vault.settings import read_home

    home = read_home(folder)
    with open_store(_log_store(home), create=False) as store:
        run(home, _log(home, store))


@app.command("list")
def list_samples(folder: Folder, as_json: AsJson = False) -> None:
    """List what is kept: ids, areas, days and sizes. What is in a sample the vault cannot know."""
    from fa_core.cli.text_table import table
    from fa_core.vault.settings import read_home

    keeper = read_home(folder).open()
    try:
        found = keeper.samples()
    finally:
        keeper.close()
    if as_json:
        typer.echo(json.dumps({"samples": [asdict(each) for each in found]}, indent=2))
        return
    rows = [(s.sample, s.area, s.day, s.until, f"{s.size:,}", str(s.reads)) for s in found]
    table(f"{len(rows)} samples", ("sample", "area", "since", "until", "bytes", "reads"), rows)


@app.command()
def expire(folder: Folder, as_json: AsJson = False) -> None:
    """Destroy every sample whose last day is over, as the serving vault does every hour."""
    from fa_core.vault.settings import read_home

    keeper = read_home(folder).open()
    try:
        gone = keeper.expire(datetime.now(UTC))
    finally:
        keeper.close()
    typer.echo(json.dumps({"destroyed": gone}) if as_json else f"{gone} samples were destroyed")


@app.command()
def ask(
    sample: Annotated[str, typer.Argument(help="A sample's id, from `fa vault list`.", show_default=False)],
    request: Request,
    folder: Own,
    as_json: AsJson = False,
) -> None:
    """Ask to read a sample. The log names it; the other reviewer must release it."""
    from fa_core.vault.reviewer import parse_sample

    review, identity = _review(folder, request), parse_sample(sample)
    with _refusals():
        read, entry = review.ask(identity)
    if as_json:
        typer.echo(json.dumps({"read": str(read), "entry": entry}))
        return
    typer.echo(f"asked, log entry {entry}. {review.other.name} releases it with: fa vault release {read}")


@app.command()
def release(
    read: ReadName,
    request: Request,
    folder: Own,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Release a sample to the other reviewer, for one read, if the log holds that it was asked for."""
    from fa_core.vault.reviewer import Read

    review, meant = _review(folder, request), Read.parse(read)
    with _refusals():
        asked, wrap = review.asked(meant)
        if not yes:
            what = f"sample {meant.sample.hex()} of {review.request.area!r}"
            typer.confirm(
                f"release {what} to {review.other.name}, who asked at {asked.at:%Y-%m-%d %H:%M} UTC?",
                abort=True,
            )
        review.release(meant, wrap)
    if as_json:
        typer.echo(json.dumps({"read": str(meant), "released_to": review.other.name}))
        return
    typer.echo(f"released to {review.other.name}, for 24 hours")


@app.command("read")
def read_sample(
    read: ReadName,
    request: Request,
    folder: Own,
    out: Annotated[Path, typer.Option(help="A new WAV file, readable by you alone.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Open a sample that the other reviewer released, and write it to a file."""
    from fa_core.federation.certificates import write_private
    from fa_core.vault.reviewer import Read

    if out.exists():
        raise BadInput(f"{out} exists already; it is not written over")
    review, meant = _review(folder, request), Read.parse(read)
    with _refusals():
        recording = review.read(meant)
    write_private(out, recording.wav())
    if as_json:
        typer.echo(json.dumps({"file": str(out), "seconds": recording.seconds, "said": recording.said}))
        return
    typer.echo(
        f"{out}: {recording.seconds:.2f} s"
        + (f"; the owner says: {recording.said}" if recording.said else "")
    )
    typer.echo(
        "this copy is outside the vault, and its owner's withdrawal does not reach it: delete it when done"
    )


def _review(folder: Path, request: Path) -> "Review":
    from fa_core.vault.reviewer import open_review

    return open_review(folder, request)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn a vault's refusal into a sentence and its exit code."""
    from fa_core.donation.refusal import RefusedByVault

    try:
        yield
    except RefusedByVault as error:
        raise Refused(f"the vault refuses: {error.refusal.words}") from None


def _log_store(home: "Home") -> str:
    where = home.settings.log.store
    return where if "://" in where else str(home.folder / where)


def _log(home: "Home", store: "Store") -> "AccessLog":
    from fa_core.trust.enrolment import read_key
    from fa_core.trust.witness_service import WitnessClient
    from fa_core.vault.access_log import StoreLog

    said = home.settings.log
    if said.key is None or said.witness is None:
        return StoreLog(store)
    return StoreLog(store, read_key(home.folder / said.key), WitnessClient(home.folder / said.witness))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
