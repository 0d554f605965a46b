"""Showing a sample to its owner: what would leave is written to a private file, played, and described.

The question is put on a terminal, for each sample, after it was shown; there is no option that answers it.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clients.runtime.sources import file_pieces, file_seconds
from fa_core.donation.recording import LONGEST_SECONDS, Recording
from fa_core.errors import BadInput, Refused

YES = "donate"
"""What the owner types to agree."""


def read_recording(path: Path, said: str = "") -> Recording:
    """Return the samples of an audio file, and nothing else of it. Raises BadInput for one that cannot be."""
    if (seconds := file_seconds(path)) > LONGEST_SECONDS:
        raise BadInput(f"{path} lasts {seconds:.1f} s; a sample lasts at most {LONGEST_SECONDS} s")
    try:
        pieces = b"".join(piece.astype("<i2").tobytes() for piece in file_pieces(path))
        return Recording(pieces, said)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def need_terminal() -> None:
    """Raise Refused where nobody can be asked: standard input and output are not both a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("each sample is shown to you and asked about, on a terminal; this is none")


@contextmanager
def shown(recording: Recording, player: str | None) -> Iterator[Path]:
    """Write exactly what would leave to a private file, play it where there is a player, and yield the file.

    Raises BadInput where the player cannot be run or fails: then the sample was not heard. The file is gone
    afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="unheard-", dir=_memory()) as folder:
        path = Path(folder) / "sample.wav"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(recording.wav())
        if player is not None:
            _play(player, path)
        yield path


def _memory() -> str | None:
    """Return a folder that is kept in memory, where there is one: a device that is killed leaves no file."""
    places = (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm")  # noqa: S108
    return next((each for each in places if each and os.access(each, os.W_OK)), None)


def agreed() -> bool:
    """Ask on the terminal; return whether the owner typed the word. What was typed before does not count."""
    with suppress(termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    sys.stdout.write(f'type "{YES}" to send this sample, anything else to keep it here: ')
    sys.stdout.flush()
    return sys.stdin.readline().strip() == YES


def _play(player: str, path: Path) -> None:
    try:
        code = subprocess.run([*shlex.split(player), str(path)], stdin=subprocess.DEVNULL).returncode
    except (OSError, ValueError):
        raise BadInput(f"the player {player} cannot be run") from None
    if code:
        raise BadInput(f"the player {player} ended with code {code}, so this sample was not heard")
