"""A PostgreSQL server of the tests' own: a temporary folder, a Unix socket, no network, no durability."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    home = Path(tempfile.mkdtemp(prefix="unheard-pg-"))
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(home, entry.pw_uid, entry.pw_gid)
    # Not by the locale of whoever tests: it may not exist here, and C alone would mean another encoding.
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
