"""Faults of a deployment, and what must be true after each: released once, or failed and nothing released.

`STAGES` name the moment: a fault strikes when the first node has received the message of that stage. What is
killed is a real process, by its id, with SIGKILL; the lab's supervisor starts it again.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fa_core.federation import runs
from fa_core.federation.directory import open_federation
from tests.deployment.lab import ENVIRONMENT, GUARD, Lab, start
from tests.store.postgres import Database

OWN_NETWORK = "UNHEARD_TEST_OWN_NETWORK"
CUT_SECONDS = 30.0
HUNG_SECONDS = 120.0
"""Long enough for a handshake to be given up."""

AWRY = """
import os, sys

if "LD_PRELOAD" not in os.environ:
    for what, library in {libraries!r}.items():
        if any(what in word for word in sys.orig_argv):
            os.environ["LD_PRELOAD"] = library
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
"""
"""A process begins again under another clock, and its children have it too."""
CLOCK = """
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{{
    int before = errno, file = open("{file}", O_RDONLY | O_CLOEXEC);
    char text[16] = "";
    if (file >= 0) {{
        if (read(file, text, sizeof text - 1) < 0)
            text[0] = 0;
        close(file);
    }}
    errno = before;
    return atol(text);
}}

int clock_gettime(clockid_t which, struct timespec *now)
{{
    long failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return failed;
}}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{{
    struct timespec read;
    int failed = clock_gettime(CLOCK_REALTIME, &read);
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return failed;
}}

time_t time(time_t *now)
{{
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    return now ? (*now = read.tv_sec) : read.tv_sec;
}}
"""
"""The clock on the wall is off by the seconds in a file, for OpenSSL as for Python; what measures durations
is not."""
STAGES = ("join", "shares", "confirm", "masked", "unmask")

Fault = Callable[[Lab], Callable[[], None]]
"""Strikes, and returns a function that undoes it."""


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    fault: str
    stage: str
    outcome: str
    counted: int | None
    seconds: float
    reason: str


def strike(up: Lab, name: str, fault: Fault, stage: str) -> Result:
    """Run a plan, strike at a stage, and return how the run ended, after checking all that must hold."""
    began = time.monotonic()
    plan = up.plan(f"{name}-{stage}")
    process = start("run", str(plan), "--engine", str(up.folder))
    undo: Callable[[], None] = nothing
    try:
        wait_for_stage(up, stage, process)
        undo = fault(up)
        _, err = process.communicate(timeout=GUARD)
    finally:
        undo()
        process.kill()
    seconds = time.monotonic() - began
    assert "Traceback" not in err, err
    assert process.returncode in (0, 4), err
    return check(up, name, stage, process.returncode == 0, seconds, err.strip().splitlines()[-1])


def check(up: Lab, name: str, stage: str, released: bool, seconds: float, reason: str) -> Result:
    """Check that the run ended once, that store, ledger and log say the same, and return its line."""
    federation = open_federation(up.folder)
    run = runs.find(federation, "latest")
    assert run.plan.startswith(f"{name}-{stage}")
    with up.store() as store:
        ended = [entry for entry in store.releases(limit=1000) if entry.id == run.release]
        failed = [each for each in store.failures(limit=1000) if each.release == run.release]
        charged = [each for each in store.charges("small") if each.release == run.release]
        assert len(ended) == (1 if released else 0)
        assert len(ended) + len(failed) == len(charged) == 1
        logged = [
            each.kind
            for each in store.entries()
            if each.body.get("release", each.body.get("id")) == run.release
        ]
        assert sorted(set(logged) & {"release", "failure"}) == ["release" if released else "failure"]
        assert store.verify_ledger() == store.verify_log() == []
    counted = ended[0].counted if ended else None
    why = "" if released else reason.removeprefix("fa: ")
    return Result(name, stage, "released" if released else "failed", counted, seconds, why)


def wait_for_stage(up: Lab, stage: str, process: "subprocess.Popen[str]") -> None:
    """Return when a node receives the message of a stage in the run that `process` launched."""
    log = up.folder / "log" / "node-00.log"
    start_at = log.stat().st_size
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        with log.open("rb") as file:
            file.seek(start_at)
            if f"Receiving: query.{stage} ".encode() in file.read():
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"the stage {stage} never came")


def wait_until_ready(up: Lab) -> None:
    """Return when every node is back.

    A SuperLink whose clock was fast takes nodes for online until that time comes, and refuses their keys.
    """
    end = time.monotonic() + 2 * GUARD
    while not up.status()["ready"]:
        assert time.monotonic() < end, up.status()
        time.sleep(5)


def nothing() -> None:
    """Undo nothing."""


def kill(name: str) -> Fault:
    """Return the fault that kills a process of the supervisor's."""

    def strike_it(up: Lab) -> Callable[[], None]:
        os.kill(up.pid(name), signal.SIGKILL)
        return nothing

    return strike_it


def kill_serverapp(up: Lab) -> Callable[[], None]:
    """Kill the aggregator itself."""
    found = below(up.pid("superexec"), "flwr-serverapp")
    assert len(found) == 1, found
    os.kill(found[0], signal.SIGKILL)
    return nothing


def hang(name: str) -> Fault:
    """Return the fault that stops a process and all below it, until the run is over."""

    def strike_it(up: Lab) -> Callable[[], None]:
        pids = [up.pid(name), *below(up.pid(name), "")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

        def undo() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

        return undo

    return strike_it


def hang_superlink(up: Lab) -> Callable[[], None]:
    """Stop the SuperLink for two minutes: it takes connections, and says nothing."""
    pid = up.pid("superlink")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(HUNG_SECONDS)
    os.kill(pid, signal.SIGCONT)
    return nothing


def kill_store(server: Database) -> Fault:
    """Return the fault that kills the store's PostgreSQL, which starts again at once."""

    def strike_it(up: Lab) -> Callable[[], None]:
        server.kill()
        server.start()
        return nothing

    return strike_it


def fill_disk(up: Lab) -> Callable[[], None]:
    """Fill the file system that the store is on."""
    ballast = up.folder / "store" / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"\0")
        except OSError:
            pass
    return lambda: ballast.unlink()


def cut_network(up: Lab) -> Callable[[], None]:
    """Take the network away for half a minute: only where it is a network of this test's own."""
    assert alone()
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    time.sleep(CUT_SECONDS)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return nothing


def slow_network(up: Lab) -> Callable[[], None]:
    """Make the network slow for the rest of the run: only where it is a network of this test's own."""
    assert alone()
    change = ["tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "2mbit", "burst", "32kbit"]
    subprocess.run([*change, "latency", "2s"], check=True)
    return lambda: subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True) and None


def alone() -> bool:
    """Whether this process has a network of its own: its parent says so, and it has only `lo`."""
    return OWN_NETWORK in os.environ and [name for _, name in socket.if_nameindex()] == ["lo"]


def loose_clocks(folder: Path, whose: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which `shift_clock` can shift the clocks of some processes: name -> a part of
    the command line of that process alone."""
    folder.mkdir()
    libraries = {}
    for name, what in whose.items():
        libraries[what] = str(folder / f"{name}.so")
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", libraries[what], "-x", "c", "-"]
        subprocess.run(build, input=CLOCK.format(file=folder / name), text=True, check=True)
    (folder / "sitecustomize.py").write_text(AWRY.format(libraries=libraries))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}


def shift_clock(folder: Path, name: str, minutes: int) -> Fault:
    """Return the fault that shifts a clock until the run is over."""

    def strike_it(up: Lab) -> Callable[[], None]:
        (folder / name).write_text(str(60 * minutes))
        return (folder / name).unlink

    return strike_it


def below(root: int, what: str) -> list[int]:
    """Return the living processes below `root` whose command line has `what` in it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(re.search(r"PPid:\t(\d+)", (entry / "status").read_text()).group(1))  # type: ignore[union-attr]
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, front = [], [root]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return [pid for pid in found if what in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def small_store(folder: Path, size: str = "24m") -> Iterator[None]:
    """Put a small file system of its own at `folder`, where this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


KILLED = {
    "superlink": kill("superlink"),
    "superexec": kill("superexec"),
    "serverapp": kill_serverapp,
    "node": kill("node-01"),
    "hub": kill("hub-01"),
    "witness": kill("witness"),
    "hung-node": hang("node-01"),
    "hung-hub": hang("hub-01"),
}
"""Faults of processes: each at every stage."""


def table(rows: list[Result]) -> str:
    """Return the rows as a table."""
    lines = [f"{'fault':<18}{'stage':<8}{'outcome':<10}{'counted':>8}{'seconds':>9}  why"]
    for row in rows:
        counted = "" if row.counted is None else str(row.counted)
        lines.append(
            f"{row.fault:<18}{row.stage:<8}{row.outcome:<10}{counted:>8}{row.seconds:>9.0f}  {row.reason}"
        )
    return "\n".join(lines)


APART = {"cut-network": cut_network, "slow-network": slow_network}
"""Faults of the network, each at every stage: in a namespace of its own, `lo` up with an MTU of 1500."""
