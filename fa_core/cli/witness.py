"""`fa witness`: the witness as a process with a key of its own, run beside the enrolment authority."""

import json
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.rollout import recompute_gate
from fa_core.trust.enrolment import Owners, read_hex, read_key, write_key
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessServer

app = typer.Typer(
    help="Sign one roster and one survivor list a release, so that no server chooses them alone.",
    no_args_is_help=True,
)

Directory = Annotated[
    Path, typer.Argument(help="Where the witness keeps its key and journal.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(directory: Directory, as_json: AsJson = False) -> None:
    """Make a witness: a private key, readable by its owner only, and the public key that devices pin."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    write_key(directory / "witness.key", key)
    public = key.public_key().public_bytes_raw().hex()
    (directory / "witness.pub").write_text(public + "\n", encoding="ascii")
    typer.echo(json.dumps({"witness": str(directory), "public_key": public}) if as_json else public)


@app.command()
def serve(
    directory: Directory,
    authority: Annotated[
        Path, typer.Option(help="File with the enrolment authority's public key.", show_default=False)
    ],
    listen: Annotated[
        Path, typer.Option("--socket", help="The Unix socket to listen on.", show_default=False)
    ],
    log: Annotated[
        Path, typer.Option(help="File with the transparency log's public key.", show_default=False)
    ],
    devices: Annotated[
        Path, typer.Option(help="The authority's register: who owns which device.", show_default=False)
    ],
) -> None:
    """Answer the aggregator until stopped. What was signed is in DIRECTORY/journal, and is signed once."""
    witness = Witness(
        read_key(directory / "witness.key"),
        read_hex(authority),
        directory / "journal",
        read_hex(log),
        owner_of=Owners(devices),
        recompute=recompute_gate,
    )
    with WitnessServer(witness, listen) as server:
        typer.echo(f"the witness {witness.public_key.hex()} listens on {listen}")
        try:
            server.serve_forever()
        finally:
            listen.unlink(missing_ok=True)
