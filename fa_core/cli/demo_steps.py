"""What the demos share: steps that are commands, printed as they are typed, and the dashboard at the end."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import typer

from fa_core.errors import BadInput

FA: Final = (sys.executable, "-m", "fa_core.cli")
PORTS: Final = range(8501, 8521)
START_SECONDS: Final = 60.0


def title(text: str) -> None:
    """Print the title of a step."""
    typer.echo(f"\n== {text} ==\n")


def typed(arguments: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(["fa", *arguments])


def fa(*arguments: str, codes: Collection[int] = (0,)) -> int:
    """Run one command as a person would, and end where its exit code is none of `codes`."""
    typer.echo(f"$ {typed(arguments)}\n")
    code = subprocess.run([*FA, *arguments], check=False).returncode
    if code not in codes:
        raise typer.Exit(code)
    return code


def fa_lines(*arguments: str) -> str:
    """Run one command as `fa` does, and return what it printed, which is shown too."""
    typer.echo(f"$ {typed(arguments)}\n")
    done = subprocess.run([*FA, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    typer.echo(done.stdout, nl=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def dashboard(out: Path, *arguments: str) -> tuple[str, int]:
    """Start the dashboard on a free port, as a process that outlives this one; its address and number.

    Its log and its number are kept in `out`.
    """
    port = next(_free())
    log = out / "dashboard.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FA, "dashboard", *arguments, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (out / "dashboard.pid").write_text(str(process.pid), encoding="ascii")
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return f"http://127.0.0.1:{port}", process.pid
        time.sleep(0.2)
    typer.echo(f"fa: the dashboard did not start; {log} says:\n{log.read_text(errors='replace')}", err=True)
    raise typer.Exit(1)


def _free() -> Iterator[int]:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                yield port
    raise BadInput(f"no port from {PORTS[0]} to {PORTS[-1]} is free")


def stop_dashboard(file: Path) -> None:
    """End the dashboard that an earlier demo left running, if the number is still a dashboard's."""
    with suppress(OSError, ValueError):
        number = int(file.read_text(encoding="ascii"))
        if b"dashboard" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
            os.kill(number, signal.SIGTERM)
