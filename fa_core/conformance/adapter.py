"""A foreign device as a process: a question a line on its input, an answer a line on its output."""

import json
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any, Final, Literal, Protocol

from fa_core.errors import BadInput

Json = dict[str, Any]
Outcome = Literal["passed", "failed", "not supported"]

ANSWER_SECONDS: Final = 60.0
"""How long a device may take for one answer."""

MAX_LINE: Final = 64 * 1024 * 1024
"""Characters of one answer at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried: `part` is the vectors' file or the round, `detail` "" where it passed."""

    part: str
    name: str
    outcome: Outcome
    detail: str = ""


class NoAnswer(Exception):
    """The device ended, took too long, or wrote something that is no answer; in words."""


class Device(Protocol):
    """What answers questions."""

    def ask(self, question: Json) -> Json:
        """Return the answer, an object. Raises NoAnswer where there is none."""
        ...


class Process:
    """A device that runs as a process, started anew with the next question after it gave no answer.

    Args:
        command: program and arguments; its standard error is this process's own.

    Raises BadInput from `ask` where it cannot be started.
    """

    def __init__(self, command: Sequence[str], seconds: float = ANSWER_SECONDS) -> None:
        self._command = tuple(command)
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str] = Queue()

    def ask(self, question: Json) -> Json:
        """See `Device`."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=self._seconds)
        except OSError:
            raise self._lost("the device ended") from None
        except Empty:
            raise self._lost(f"the device gave no answer in {self._seconds:g} s") from None
        if not line:
            raise self._lost("the device ended")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._lost("the device's answer is no JSON object")
        return answer

    def close(self) -> None:
        """End the device."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._command[0]} cannot be started: {error}") from None
        self._process, self._lines = process, Queue()
        threading.Thread(target=_read, args=(process, self._lines), daemon=True).start()
        return process

    def _lost(self, why: str) -> NoAnswer:
        if self._process is not None:
            self._process.kill()
        self.close()
        return NoAnswer(why)


def _read(process: "subprocess.Popen[str]", lines: "Queue[str]") -> None:
    """Hand over each line that a process writes, then "" when it has ended."""
    assert process.stdout is not None
    with suppress(OSError, ValueError):
        while line := process.stdout.readline(MAX_LINE):
            lines.put(line)
    lines.put("")
