"""Checks of the machine: Python, packages, programs that commands call, disk space, files of a folder."""

import re
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Final

from cryptography import x509

from fa_core.doctor.finding import Finding, broken, good, look

PROGRAMS: Final = {
    "chromium": (
        ("chromium", "chromium-browser", "google-chrome"),
        "`fa report --pdf` and the browser tests",
    ),
    "espeak-ng": (("espeak-ng",), "`fa fleet make`"),
}
"""Programs beside Python's packages: what they may be called, and what needs them."""

LOW_BYTES, NO_BYTES = 2 << 30, 200 << 20
SOON = timedelta(days=30)
PRIVATE: Final = (".key", ".secret")
"""Endings of files that only their owner may read."""

_PINNED = re.compile(r"^([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==([^ ;\\]+)\s*(?:;\s*([^\\]+))?")


def python() -> Finding:
    """Say which Python this is; the package does not install under one that it does not support."""
    return good("python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def packages(lock: Path) -> Finding:
    """Check the installed packages against the lock file, where there is one (not beside a wheel)."""
    from packaging.markers import Marker
    from packaging.version import Version

    if not lock.is_file():
        return look("packages", "no requirements.lock beside the package", "compare it yourself: `pip check`")
    missing, other, seen = [], [], 0
    for line in lock.read_text(encoding="utf-8").splitlines():
        found = _PINNED.match(line)
        if found is None or (found[3] and not Marker(found[3].strip()).evaluate()):
            continue
        seen += 1
        try:
            installed = metadata.version(found[1])
        except metadata.PackageNotFoundError:
            missing.append(found[1])
            continue
        if Version(installed) != Version(found[2]):
            other.append(f"{found[1]} {installed} for {found[2]}")
    if not missing and not other:
        return good("packages", f"{seen} packages, as in {lock.name}")
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"another version: {', '.join(other)}"] if other else []
    return broken("packages", "; ".join(problems), "scripts/setup installs what the lock says")


def programs() -> Iterator[Finding]:
    """Check for the programs that some commands call."""
    for name, (names, needs) in PROGRAMS.items():
        place = next((found for each in names if (found := shutil.which(each))), None)
        if place is None:
            yield look(name, "not on the PATH", f"install it if you use {needs}: scripts/setup {name}")
        else:
            yield good(name, place)


def disk(place: Path) -> Finding:
    """Check the space that is left where a folder is."""
    free = shutil.disk_usage(place).free
    found = f"{free / (1 << 30):.1f} GiB free at {place}"
    mend = "free some, or move the folder: a store that cannot write ends a round as failed"
    if free < NO_BYTES:
        return broken("disk", found, mend)
    return look("disk", found, mend) if free < LOW_BYTES else good("disk", found)


def private_files(folder: Path) -> Finding:
    """Check that nobody but their owner can read the private files under a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in PRIVATE and path.is_file()]
    open_to_others = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_to_others:
        names = " ".join(str(path) for path in open_to_others)
        return broken("key files", f"others can read {names}", f"chmod 600 {names}, and make those keys anew")
    return good("key files", f"{len(found)} private files, readable by their owner alone")


def certificates(folder: Path, now: datetime | None = None) -> Iterator[Finding]:
    """Check when the TLS certificates under a folder end."""
    now = now or datetime.now(UTC)
    for path in sorted(folder.rglob("*.crt")):
        try:
            end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except (ValueError, OSError):
            yield broken(
                "certificate", f"{path} is no certificate", "make it anew; docs/operations.md says how"
            )
            continue
        found = f"{path} ends {end.date().isoformat()}"
        mend = "make a new one before that day; docs/operations.md says how"
        if end <= now:
            yield broken("certificate", found, mend.replace(" before that day", ""))
        else:
            yield look("certificate", found, mend) if end - now < SOON else good("certificate", found)
