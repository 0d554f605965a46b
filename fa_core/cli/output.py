"""Standard output: whatever its characters and whatever becomes of it, a command ends with a sentence.

A terminal or a file without a character gets the nearest that it has ("+/-" for "±"), or its JSON escape, so
that what `--json` prints stays JSON. A write that fails ends the command: quietly where the reader has gone
away, as in `fa results list | head -1`, with a sentence for anything else.
"""

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, ClassVar, Final

from fa_core.errors import UnheardError

CLOSED_CODE: Final = 141
"""Exit code where the reader of a pipe has gone away: 128 and the number of SIGPIPE, as of other tools."""

_STDOUT: Final = 1
_TRANSLITERATE: Final = "unheard.transliterate"
_NEAREST: Final = {
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": ",",
    "…": "...",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "≈": "~",
    "’": "'",
    "“": '"',
    "”": '"',
    "✓": "ok",
    "ρ": "rho",
    "ε": "epsilon",
    "δ": "delta",
    "²": "2",
    "•": "*",
    "\u00a0": " ",
    "\u202f": " ",
}
_LIGHT_LINES: Final = {"─": "-", "━": "-", "═": "=", "│": "|", "┃": "|", "║": "|"}
_BOXES: Final = range(0x2500, 0x2580)


class OutputFailed(UnheardError):
    """Standard output cannot be written: the disk is full, or the file too large."""

    exit_code: ClassVar[int] = 2


class OutputClosed(UnheardError):
    """The reader of standard output has gone away. There is nobody to say it to."""

    exit_code: ClassVar[int] = CLOSED_CODE


class _Descriptor(io.FileIO):
    """File descriptor 1, whose failures are errors of ours. After one, everything is written to nowhere."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _to_nowhere(self.fileno())
            if error.errno == errno.EPIPE:
                raise OutputClosed("the reader of the output has gone away") from None
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OutputFailed(f"the output cannot be written: {reason}") from None


class _Text(io.TextIOWrapper):
    """Text in the characters that a terminal or file has.

    An ASCII stream is called UTF-8, which writes the same bytes: click replaces one that is called ASCII.
    """

    def __init__(self, descriptor: int, charset: str, *, line_buffering: bool) -> None:
        self._charset = charset
        called = "utf-8" if codecs.lookup(charset).name == "ascii" else charset
        super().__init__(
            io.BufferedWriter(_Descriptor(descriptor, "w", closefd=False)),
            encoding=called,
            line_buffering=line_buffering,
        )

    def write(self, text: str, /) -> int:
        super().write(text.encode(self._charset, _TRANSLITERATE).decode(self._charset))
        return len(text)


def prepare() -> None:
    """Put a standard output in place that transliterates, and whose failures are errors of ours."""
    codecs.register_error(_TRANSLITERATE, _transliterate)
    if sys.stdout is not sys.__stdout__:
        return  # another's: a test's, or a program's that runs a command in its own process
    if sys.stdout is None:
        # It was closed. The next file that is opened must not become it, and a write must fail.
        os.dup2(os.open(os.devnull, os.O_RDONLY), _STDOUT)
        sys.stdout = _Text(_STDOUT, "utf-8", line_buffering=False)
        return
    sys.stdout.flush()
    sys.stdout = _Text(sys.stdout.fileno(), sys.stdout.encoding, line_buffering=sys.stdout.isatty())


def finish() -> None:
    """Write what is left. Raises OutputFailed or OutputClosed."""
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a sentence to standard error, after whatever was printed. What cannot be written is lost."""
    with suppress(OutputFailed, OutputClosed):
        finish()
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_nearest, error.object[error.start : error.end])), error.end


def _nearest(character: str) -> str:
    if character in _NEAREST:
        return _NEAREST[character]
    if ord(character) in _BOXES:
        return _LIGHT_LINES.get(character, "+")
    return _escape(character)


def _escape(character: str) -> str:
    """Return the JSON escape of a character, two of them beyond the basic plane."""
    code = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[place : place + 4]}" for place in range(0, len(code), 4))
