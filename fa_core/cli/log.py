"""`fa log`: the transparency log, shown, proved and verified."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core.cli import render
from fa_core.errors import BadInput
from fa_core.merkle import leaf_hash, verify_inclusion
from fa_core.privacy.ledger import UNITS
from fa_core.privacy.ledger import show as exact
from fa_core.store import DEFAULT, LogEntry, Store, open_store
from fa_core.trust.checkpoint import parse

app = typer.Typer(help="Show the transparency log, prove entries, and verify it.", no_args_is_help=True)

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest entries to show.")] = 30,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Print only the newest checkpoint; keep it to verify later.")
    ] = False,
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show every plan, key, charge, release and failure, oldest first, and the newest checkpoint."""
    with open_store(store, create=False) as opened:
        note, size = opened.note(), opened.log_size()
        entries = opened.entries(max(0, size - limit), size)
    if checkpoint:
        if note is None:
            raise BadInput("the log has no checkpoint yet; a run makes one")
        typer.echo(note, nl=False)
        return
    if as_json:
        shown = [{"index": each.index, "kind": each.kind, "body": each.body} for each in entries]
        render.as_json(
            {"size": size, "entries": shown, "checkpoint": None if note is None else note.decode()}
        )
        return
    rows = [(str(each.index), each.kind, _summary(each)) for each in entries]
    render.table(f"{size} entries", ("entry", "kind", "what"), rows)
    if note is not None:
        found = parse(note)
        signers = " and ".join(name for name, _ in found.lines)
        typer.echo(f"\nnewest checkpoint: {found.size} entries, root {found.root.hex()}, signed by {signers}")


@app.command()
def prove(
    entry: Annotated[str, typer.Argument(help="An entry's number, or a release's first digits.")],
    since: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint kept before: prove, too, that the log extends it.", show_default=False
        ),
    ] = None,
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Prove that an entry stands in the log under its newest checkpoint (RFC 6962)."""
    with open_store(store, create=False) as opened:
        found = opened.prove(_index(opened, entry))
        at = parse(found.note)
        kept = None if since is None else parse(_read(since))
        path = None if kept is None else opened.consistency(kept.size, at.size)
    leaf = leaf_hash(found.entry.entry)
    if not verify_inclusion(leaf, found.entry.index, at.size, found.proof, at.root):
        raise BadInput(f"entry {found.entry.index} does not stand under the newest checkpoint")
    shown: dict[str, Any] = {
        "index": found.entry.index,
        "entry": found.entry.entry.decode(),
        "leaf": leaf.hex(),
        "inclusion": [each.hex() for each in found.proof],
        "checkpoint": found.note.decode(),
    }
    if kept is not None and path is not None:
        shown["consistency"] = {"from": kept.size, "proof": [each.hex() for each in path]}
    if as_json:
        render.as_json(shown)
        return
    typer.echo(f"entry {shown['index']}, a {found.entry.kind}: {_summary(found.entry)}")
    typer.echo(f"leaf {shown['leaf']}")
    for each in shown["inclusion"]:
        typer.echo(f"  with {each}")
    typer.echo(f"gives the root {at.root.hex()} of the checkpoint of {at.size} entries")


@app.command()
def verify(
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint kept before, which the log must extend; may be repeated."),
    ] = None,
    log_key: Annotated[
        str | None, typer.Option(help="The log's public key, 64 hex digits; else the one it names itself.")
    ] = None,
    witness_key: Annotated[
        str | None, typer.Option(help="The witness's public key: every checkpoint must be cosigned with it.")
    ] = None,
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Recompute the log from its bytes, check every checkpoint, and compare catalogue and files with it."""
    notes = [_read(path) for path in earlier or ()]
    keys = _key("--log-key", log_key), _key("--witness-key", witness_key)
    with open_store(store, create=False) as opened:
        problems = opened.verify_log(*keys, notes)
        size = opened.log_size()
    if as_json:
        render.as_json({"good": not problems, "size": size, "problems": problems})
    if problems:
        raise BadInput("the log does not verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        typer.echo(f"{size} entries: history, checkpoints, catalogue and files agree")
        if log_key is None or witness_key is None:
            typer.echo("To rule out another log, give --log-key and --witness-key from elsewhere.")


def _index(store: Store, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 8:
        return int(text)
    entry = store.find(text)
    matches = [each.index for each in store.entries() if each.kind == "release" and each.subject == entry.id]
    if not matches:
        raise BadInput(f"release {entry.id} is not in the log")
    return matches[0]


def _key(option: str, text: str | None) -> Ed25519PublicKey | None:
    if text is None:
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise BadInput(f"{option} {text}: an Ed25519 public key of 64 hex digits is expected") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def _summary(entry: LogEntry) -> str:
    body = entry.body
    if entry.kind == "plan":
        return f"plan {entry.subject[:12]} signed by {body['key'][:12]}"
    if entry.kind == "key":
        return f"{body['name']} uses {body['key'][:12]}"
    if entry.kind == "failure":
        return f"round {body['release'][:12]} of {body['plan']} failed at {body['stage']}: {body['reason']}"
    if entry.kind == "release":
        return f"release {body['release'][:12]} of {body['plan']}, {body['counted']:,} devices"
    if entry.kind in ("model", "rollout"):
        return f"{entry.kind} {entry.subject[:12]} signed by {body['key'][:12]}"
    if entry.kind in ("decision", "manifest"):
        return f"{entry.kind} of rollout {entry.subject[:12]}"
    if entry.kind == "access":
        return f"{body['action']} of donated sample {entry.subject[:12]} by reviewer {body['reviewer'][:12]}"
    row = body["row"]
    if row["kind"] == "declare":
        limits = ", ".join(f"{name} {exact(Fraction(limit))}" for name, limit in row["policy"].items())
        return f"{row['population']} has budgets of {UNITS[row['currency']]}: {limits}"
    cost = f"{UNITS[row['currency']]} {exact(Fraction(row['cost']))}"
    return f"release {row['release'][:12]} of {row['family']} costs {row['population']} {cost}"
