"""A PostgreSQL server of the tests' own: a temporary folder, a Unix socket, no network, no durability."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GUARD = 900
"""Seconds: a guard against hanging, not a measure."""

PATIENT = ("-w", "-t", str(GUARD))


def binaries() -> Path | None:
    """Return the folder with `initdb`: on the path, or where Debian puts it."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return candidates[-1].parent if candidates else None


@contextmanager
def server(folder: Path) -> Iterator[Path]:
    """Run a server with the programs in `folder`; yield the folder of its socket."""
    home = Path(tempfile.mkdtemp(prefix="unheard-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(home, entry.pw_uid, entry.pw_gid)
    # Not the locale of this machine: it may not exist here, and C alone would mean another encoding.
    locale = ("--locale=C", "--encoding=UTF8")
    _call(folder, home, "initdb", "-D", f"{home}/data", "-U", "unheard", "-A", "trust", "--no-sync", *locale)
    start(folder, home)
    try:
        yield home
    finally:
        _call(folder, home, "pg_ctl", "-D", f"{home}/data", *PATIENT, "-m", "immediate", "stop")
        shutil.rmtree(home)


def start(folder: Path, home: Path) -> None:
    """Start the server in `home`, also after it was killed."""
    options = f"-k {home} -c listen_addresses='' -c fsync=off -c max_connections=50"
    _call(
        folder, home, "pg_ctl", "-D", f"{home}/data", "-l", f"{home}/server.log", *PATIENT, "-o", options,
        "start",
    )  # fmt: skip


def postmaster(home: Path) -> int:
    """Return the process id of the server in `home`."""
    return int((home / "data" / "postmaster.pid").read_text().split()[0])


@dataclass(frozen=True)
class Database:
    """A server that can be killed and started again."""

    programs: Path
    home: Path

    @property
    def url(self) -> str:
        """The address of its database."""
        return f"postgresql://unheard@/postgres?host={self.home}"

    def kill(self) -> None:
        """kill -9."""
        os.kill(postmaster(self.home), signal.SIGKILL)

    def start(self) -> None:
        """Start again, as soon as the processes of the killed one are gone."""
        end = time.monotonic() + GUARD
        while True:
            try:
                return start(self.programs, self.home)
            except subprocess.CalledProcessError:
                assert time.monotonic() < end, "waited in vain"
            time.sleep(0.5)


@contextmanager
def mortal() -> Iterator[Database]:
    """Run a server for tests that kill it."""
    programs = binaries()
    assert programs is not None, "PostgreSQL is not installed; scripts/setup postgresql installs it"
    with server(programs) as home:
        yield Database(programs, home)


def _call(folder: Path, home: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; it refuses to run as root, and then runs as the user `postgres`."""
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with (home / "calls.log").open("a") as log:
        subprocess.run(
            [folder / program, *arguments],
            cwd=home,
            check=True,
            stdout=log,
            stderr=log,
            timeout=GUARD,
            **account,
        )
