"""`fa model`: what devices load, signed, logged, kept and published."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fa_core.errors import BadInput
from fa_core.publication.artefact import ArtefactKind, ArtefactManifest

if TYPE_CHECKING:
    import numpy as np
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from numpy.typing import NDArray

    from fa_core.rollout.models import Model
    from fa_core.rounds.keys import Signers
    from fa_core.store import Store

app = typer.Typer(
    help="Sign, keep and publish what devices load: heads, adapters, thresholds, policies.",
    no_args_is_help=True,
)

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Meant = Annotated[
    str, typer.Argument(help="A model's version, or first digits of its hash.", show_default=False)
]
HERE = ".unheard"


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="A head's .npz or published form, thresholds or a policy in JSON, or any bytes; or the "
            "version of a head that came with this program.",
            show_default=False,
        ),
    ],
    version: Annotated[
        str, typer.Option(help="As `model_version` of events will have it.", show_default=False)
    ],
    licence: Annotated[str, typer.Option(help="SPDX identifier.", show_default=False)],
    trained_by: Annotated[str, typer.Option(help="Who made it, from what, in words.", show_default=False)],
    kind: Annotated[ArtefactKind, typer.Option(help="What it is.")] = "head",
    name: Annotated[
        str | None, typer.Option(help="What people call it; else the version.", show_default=False)
    ] = None,
    wake_word: Annotated[str, typer.Option(help="The wake word that it is for; left out: for all.")] = "",
    runtime: Annotated[
        str | None,
        typer.Option(
            help="What a device must have to run it; else its base's, policy-1 or livekit-embedding-1.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The model that it changes: a version, or digits of a hash.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The plan key that signs; else the store's own.", show_default=False),
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Check an artefact's form, sign its manifest, put it in the log and keep its bytes."""
    from hashlib import sha256

    from clients.models.formats import EMBEDDING_RUNTIME, POLICY_RUNTIME, content, published_form
    from fa_core.rollout import models
    from fa_core.store import open_store

    usual = POLICY_RUNTIME if kind == "policy" else EMBEDDING_RUNTIME
    if kind == "head" and not file.exists() and str(file) == version:
        data, usual = _shipped(version, wake_word)
    else:
        data = published_form(kind, file, version)
    with open_store(store) as opened:
        below = None if base is None else models.find(opened, base).manifest
        manifest = ArtefactManifest(
            kind=kind,
            name=name or version,
            version=version,
            wake_word=wake_word,
            runtime=runtime or (below.runtime if below else usual),
            base=below.sha256 if below else "",
            sha256=sha256(data).hexdigest(),
            size=len(data),
            licence=licence,
            trained_by=trained_by,
        )
        try:
            content(manifest, data)
        except BadInput as error:
            raise BadInput(f"{file}: {error}") from None
        added = models.add(opened, manifest, data, _signing_key(store, key))
    if as_json:
        _print_json(_object(added))
        return
    typer.echo(f"{kind} {version}: {manifest.sha256}, {manifest.size:,} bytes, log entry {added.entry.index}")
    typer.echo("`fa model publish DIR` puts it where devices fetch it")


@app.command("list")
def list_models(store: Where = HERE, as_json: AsJson = False) -> None:
    """List the models of a store, oldest first."""
    from fa_core.cli.text_table import table
    from fa_core.rollout import models
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        found = models.newest(models.models(opened))
    if as_json:
        _print_json({"models": [_object(each) for each in found]})
        return
    said = [each.manifest for each in found]
    rows = [
        (m.version, m.kind, m.wake_word or "all", m.runtime, m.base[:12], m.sha256[:12], f"{m.size:,}")
        for m in said
    ]
    table(
        f"{len(rows)} models", ("version", "kind", "wake word", "runtime", "base", "artefact", "bytes"), rows
    )


@app.command()
def show(model: Meant, store: Where = HERE, as_json: AsJson = False) -> None:
    """Show a model's manifest, who signed it, and where it stands in the log."""
    from fa_core.rollout import models
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        shown = _object(models.find(opened, model))
    if as_json:
        _print_json(shown)
        return
    for field, value in shown.items():
        typer.echo(f"{field.replace('_', ' ')}: {value if value != '' else 'none'}")


@app.command()
def verify(
    key: Annotated[
        list[Path] | None,
        typer.Option(help="File with a plan key's public half; all models must be signed by one of these."),
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Check each model's signature, bytes and form. Exit code 2 where one is missing or was changed."""
    from clients.models.formats import content
    from fa_core.rollout import models
    from fa_core.store import open_store
    from fa_core.trust.enrolment import read_hex

    trusted = [read_hex(each) for each in key or ()]
    problems = []
    with open_store(store, create=False) as opened:
        found = models.newest(models.models(opened))
        for each in found:
            digest = each.manifest.sha256
            try:
                content(each.manifest, opened.artefact(digest))
            except BadInput as error:
                what = str(error)
                problems.append(what if digest in what else f"artefact {digest}: {what}")
            if trusted and each.signer not in trusted:
                problems.append(f"artefact {digest}: it is signed by {each.signer.hex()}, another key")
    if as_json:
        _print_json({"good": not problems, "models": len(found), "problems": problems})
    if problems:
        raise BadInput("not all models verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        typer.echo(f"{len(found)} models: signatures, bytes and forms are right")


@app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(help="The publication directory; a gateway serves it.", show_default=False)
    ],
    log_key: Annotated[
        Path | None, typer.Option(help="The log's private key; else the store's own.", show_default=False)
    ] = None,
    witness: Annotated[
        Path | None, typer.Option(help="The witness's socket; else the store's own.", show_default=False)
    ] = None,
    store: Where = HERE,
    as_json: AsJson = False,
) -> None:
    """Write every model with its proofs into a publication directory, file by file, each whole.

    Where the newest checkpoint does not cover a model yet, the log signs one and the witness cosigns it.
    """
    from fa_core.rollout import models
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        if not models.covered(opened, models.models(opened)):
            signers = _signers(opened, store, log_key, witness)
            opened.checkpoint(signers.log_key, signers.witness)
        written = models.publish(opened, folder)
    if as_json:
        _print_json({"folder": str(folder), "models": [each.manifest.sha256 for each in written]})
        return
    typer.echo(f"{folder}: {len(written)} models with their proofs")


@app.command()
def quantise(
    file: Annotated[Path, typer.Argument(help="A head: its .npz or published form.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The 8-bit form, to be added.", show_default=False)],
    version: Annotated[str, typer.Option(help="The version of the 8-bit head.", show_default=False)],
    clips: Annotated[
        Path,
        typer.Option(
            help="A folder with wake/ and other/: 16 kHz recordings, or embeddings (.npy, shape (k, 96)).",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write a head with 8-bit weights, and print what that costs on clips: scores and decisions."""
    from dataclasses import replace

    from clients.models import head
    from clients.models.formats import published_form

    whole = head.decode(published_form("head", file, version))
    data = head.encode(replace(whole, model_version=version), encoding="int8")
    lost = head.loss(whole, head.decode(data), _clips(clips))
    try:
        out.write_bytes(data)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from None
    before = len(head.encode(whole))
    if as_json:
        _print_json({"file": str(out), "bytes": len(data), "bytes_before": before, **asdict(lost)})
        return
    typer.echo(f"{out}: {len(data):,} bytes in place of {before:,}")
    typer.echo(f"scores differ by {lost.mean:.2g} on average, by {lost.largest:.2g} at most")
    typer.echo(
        f"of {lost.wake} clips with the wake word {lost.missed_after} are missed, before {lost.missed}; "
        f"of {lost.other} without it {lost.false_after} wake, before {lost.false}"
    )


def _shipped(version: str, wake_word: str) -> tuple[bytes, str]:
    """Return the bytes and the runtime of a model that came with this program."""
    from hashlib import sha256

    from clients.runtime.published import shipped, shipped_bytes

    data = shipped_bytes(version, wake_word)
    return data, shipped()[sha256(data).hexdigest()].runtime


def _clips(folder: Path) -> "list[tuple[NDArray[np.float32], bool]]":
    """Return the embeddings of each clip in a folder, and whether it holds the wake word."""
    found = []
    for name, wake in (("wake", True), ("other", False)):
        paths = sorted(each for each in (folder / name).glob("*") if each.is_file())
        if not paths:
            raise BadInput(f"{folder / name}: no clip is there; recordings or embeddings are expected")
        found += [(_embeddings(path), wake) for path in paths]
    return found


def _embeddings(path: Path) -> "NDArray[np.float32]":
    import numpy as np

    from clients.models.head import EMBEDDING_SIZE

    if path.suffix == ".npy":
        try:
            read = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise BadInput(f"{path} holds no array of numbers") from None
        if read.ndim != 2 or read.shape[1] != EMBEDDING_SIZE or read.dtype != np.float32:
            raise BadInput(f"{path}: embeddings are float32 of shape (k, {EMBEDDING_SIZE})")
        found: NDArray[np.float32] = read
        return found
    # Imported here: the models of the embeddings take a second to load.
    from clients.runtime.detectors import EmbeddingStream
    from clients.runtime.sources import file_pieces

    return EmbeddingStream().feed(np.concatenate(list(file_pieces(path))))


def _signing_key(store: str, file: Path | None) -> "Ed25519PrivateKey":
    from fa_core.rounds.keys import keys_folder, local_keys
    from fa_core.trust.enrolment import read_key

    return local_keys(keys_folder(store)).plan if file is None else read_key(file)


def _signers(opened: "Store", store: str, log_key: Path | None, witness: Path | None) -> "Signers":
    """Return who signs the log: those given, or the store's own where they signed it before."""
    from fa_core.rounds.keys import Signers, keys_folder, local_keys, local_signers
    from fa_core.trust.enrolment import read_key
    from fa_core.trust.witness_service import WitnessClient

    if (log_key is None) != (witness is None):
        raise BadInput("--log-key and --witness belong together: the log signs, the witness cosigns")
    if log_key is not None and witness is not None:
        return Signers(read_key(log_key), b"", WitnessClient(witness))
    folder, used = keys_folder(store), opened.keys("log")
    if used and not (folder / "log.key").exists():
        raise BadInput("the key that signs this store's log is not here; give --log-key and --witness")
    own = local_signers(local_keys(folder), lambda: datetime.now(UTC))
    if used and own.log_key.public_key().public_bytes_raw() not in used:
        raise BadInput("another key signs this store's log; give --log-key and --witness")
    return own


def _object(model: "Model") -> dict[str, Any]:
    return {**asdict(model.manifest), "signer": model.signer.hex(), "entry": model.entry.index}


def _print_json(value: dict[str, Any]) -> None:
    from fa_core.cli.render import as_json

    as_json(value)
