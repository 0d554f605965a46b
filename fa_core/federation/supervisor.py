"""The supervisor of a lab: starts a federation's processes, restarts what dies, and leaves none behind.

It adopts what its children leave (PR_SET_CHILD_SUBREAPER), and its children die with it
(PR_SET_PDEATHSIG), so that nothing of a federation outlives it, however it ends. Its state is in
`run/supervisor.json`, rewritten at every change; `run/supervisor.lock` is locked while it lives.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from fa_core.errors import BadInput
from fa_core.federation import processes
from fa_core.federation.certificates import public_bytes
from fa_core.federation.directory import Federation, node_name, open_federation
from fa_core.federation.lab import Lab, read_lab
from fa_core.federation.processes import Process
from fa_core.flower.loopback import direct

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before a process that died is started again: doubled each time, up to the longest."""

SOUND_SECONDS = 60.0
"""A process that has lived so long starts with the first wait again."""

STOP_SECONDS = 10.0
TICK = 0.2
CONDITIONS_SECONDS = 20.0
READ_SECONDS = timedelta(seconds=5)
"""A device looks at its clock before it reads: conditions that are newer than that are from the future."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """One process that is kept alive."""

    process: Process
    running: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    wait: float = FIRST_WAIT
    again: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    since: str = ""


@dataclass(slots=True)
class Supervisor:
    """Keeps the processes of one lab alive until it is stopped."""

    federation: Federation
    lab: Lab
    children: dict[str, _Child] = field(default_factory=dict)
    registered: bool = False
    stopping: bool = False
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    _written: str = ""
    _conditions: float = 0.0

    def run(self) -> None:
        """Start everything in its order and keep it alive; stop it all at SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for process in (
            processes.witness(self.federation),
            processes.superlink(self.federation),
            processes.superexec(self.federation),
            *([processes.helper(self.federation)] if self.federation.helper_folder.is_dir() else []),
            *(processes.hub(self.federation, number) for number in range(self.lab.nodes)),
        ):
            self.children[process.name] = _Child(process)
        try:
            while not self.stopping:
                self._tick()
                time.sleep(TICK)
        finally:
            self._end()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _tick(self) -> None:
        now = time.monotonic()
        self._reap()
        for child in self.children.values():
            if child.running is None and now >= child.again:
                self._start(child, now)
        if now >= self._conditions:
            self._conditions = now + CONDITIONS_SECONDS
            write_conditions(self.federation, self.lab)
        if not self.registered and _listens(self.federation):
            self._register()
        self._write()

    def _register(self) -> None:
        """Admit the nodes' keys, once, then start the SuperNodes."""
        from fa_core.flower.superlink import SuperLink

        try:
            with SuperLink(self.federation.address, self.federation.certificate.read_bytes()) as link:
                known = {node.public_key for node in link.nodes()}
                for number in range(self.lab.nodes):
                    key = public_bytes(self.federation.node_key(number).with_suffix(".pub"))
                    if key not in known:
                        link.register(node_name(number), key)
        except BadInput as error:
            logger.warning("the nodes could not be registered yet: %s", error)
            return
        self.registered = True
        for number in range(self.lab.nodes):
            process = processes.node(self.federation, number, self.lab.devices)
            self.children[process.name] = _Child(process)

    def _start(self, child: _Child, now: float) -> None:
        process = child.process
        home = process.environment.get("FLWR_HOME")
        if home is not None:
            Path(home).mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.federation.folder / "log" / f"{process.name}.log").open("ab") as log:
            child.running = subprocess.Popen(
                process.command,
                cwd=self.federation.folder,
                env=os.environ | dict(process.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        child.started, child.since = now, datetime.now(UTC).isoformat()
        logger.info("%s started as %d", process.name, child.running.pid)

    def _reap(self) -> None:
        """Collect every process that has ended, adopted ones as well."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children.values():
                if child.running is not None and child.running.pid == pid:
                    self._note_death(child, os.waitstatus_to_exitcode(status))

    def _note_death(self, child: _Child, code: int) -> None:
        assert child.running is not None
        now = time.monotonic()
        _kill_group(child.running.pid)
        child.running.returncode = code
        child.running, child.last_exit = None, code
        if now - child.started > SOUND_SECONDS:
            child.wait = FIRST_WAIT
        child.again, child.wait = now + child.wait, min(2 * child.wait, LONGEST_WAIT)
        child.restarts += 1
        logger.warning("%s ended with %d; it is started again", child.process.name, code)

    def _end(self) -> None:
        """Stop everything, and wait until no process is left.

        SuperNodes go first: one that did not sign off is taken for alive for a minute, and its key refused.
        """
        nodes = {node_name(number) for number in range(self.lab.nodes)}
        for names in (nodes, set(self.children) - nodes):
            running = [self.children[name].running for name in names if name in self.children]
            self._terminate([each.pid for each in running if each is not None])
        for _ in range(100):
            for pid in _descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._forget_ended()
            if not _descendants(os.getpid()):
                break
            time.sleep(0.05)
        (self.federation.folder / "run" / "supervisor.json").unlink(missing_ok=True)

    def _terminate(self, pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and not set(pids).isdisjoint(_descendants(os.getpid())):
            self._forget_ended()
            time.sleep(0.05)
        for pid in pids:
            _kill_group(pid)

    def _forget_ended(self) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _write(self) -> None:
        state = {
            "pid": os.getpid(),
            "since": self.since,
            "registered": self.registered,
            "lab": asdict(self.lab),
            "processes": {
                name: {
                    "pid": child.running.pid if child.running else None,
                    "restarts": child.restarts,
                    "last_exit": child.last_exit,
                    "since": child.since,
                }
                for name, child in self.children.items()
            },
        }
        text = json.dumps(state, indent=1)
        if text != self._written:
            file = self.federation.folder / "run" / "supervisor.json"
            new = file.with_suffix(".new")
            new.write_text(text)
            new.replace(file)
            self._written = text


def write_conditions(federation: Federation, lab: Lab) -> None:
    """Write for every hub that its devices are charging, idle and not speaking: a lab's system service."""
    said = {
        "at": (datetime.now(UTC) - READ_SECONDS).isoformat(),
        "unmetered_network": True,
        "charging": True,
        "idle": True,
        "speaking": False,
    }
    for number in range(lab.nodes):
        file = federation.hub(number) / "conditions.json"
        new = file.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(said))
            new.replace(file)


def die_with(parent: int) -> Callable[[], None]:
    """Return what makes a new process die when the process `parent` does."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def lock(federation: Federation) -> IO[str] | None:
    """Return the locked lock file, None where another supervisor holds it."""
    folder = federation.folder / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / "supervisor.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _listens(federation: Federation) -> bool:
    try:
        socket.create_connection((federation.settings.host, federation.settings.port), 1.0).close()
    except OSError:
        return False
    return True


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(root: int) -> list[int]:
    """Return every living process below `root`, as /proc has it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, front = [], [root]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return found


def main(arguments: Sequence[str]) -> None:
    """Supervise the federation in the folder that is the one argument."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    os.umask(0o077)
    direct()
    federation = open_federation(Path(arguments[0]))
    held = lock(federation)
    if held is None:
        raise BadInput(f"{federation.folder} is up already")
    with held:
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        Supervisor(federation, read_lab(federation)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
