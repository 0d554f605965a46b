"""The checks of a place: a store, a federation's directory, a gateway's, or the machine alone."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from fa_core.doctor import machine, stores
from fa_core.doctor.finding import Finding, State, broken, good, look
from fa_core.doctor.superlink import superlink
from fa_core.errors import BadInput, UnheardError
from fa_core.federation.directory import CONFIG as FEDERATION
from fa_core.federation.directory import Federation, open_federation
from fa_core.federation.lab import find_lab
from fa_core.gateway.settings import CONFIG as GATEWAY
from fa_core.gateway.settings import Home, read_home
from fa_core.store.database import FILE
from fa_core.trust.enrolment import read_hex, read_key
from fa_core.trust.witness_service import WitnessClient

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


def examine(place: str) -> Iterator[Finding]:
    """Yield what is found at a place: a folder or the name of a federation, or postgresql://…

    Raises BadInput where there is nothing of ours.
    """
    yield machine.python()
    yield machine.packages(LOCK)
    yield from machine.programs()
    folder = Path(place)
    if "://" in place:
        yield from stores.store(place)
    elif (folder / GATEWAY).is_file():
        yield from _gateway(folder)
    elif (folder / FEDERATION).is_file() or not folder.exists():
        yield from _federation(folder)
    elif (folder / FILE).is_file() and (folder / "releases").is_dir():
        yield from _store(folder)
    else:
        raise BadInput(
            f"{place}: neither a store ({FILE}), nor a federation ({FEDERATION}), nor a gateway ({GATEWAY})"
        )


def _store(folder: Path) -> Iterator[Finding]:
    yield machine.disk(folder)
    yield machine.private_files(folder)
    found = list(stores.store(str(folder)))
    yield from found
    key = folder / "local" / "witness.key"
    if key.is_file() and found[0].state is State.GOOD:
        yield stores.clock(str(folder), None, read_key(key).public_key().public_bytes_raw())


def _federation(place: Path) -> Iterator[Finding]:
    federation = open_federation(place)
    yield good("federation", f"{federation.settings.name} at {federation.folder}")
    yield machine.disk(federation.folder)
    yield machine.private_files(federation.folder)
    yield from machine.certificates(federation.folder)
    yield from superlink(federation.address, federation.certificate)
    found = list(stores.store(federation.store))
    yield from found
    if found[0].state is not State.GOOD:
        # Opening such a store would create or migrate its tables before there is a back-up.
        yield look("budget, clock", "not looked at", "mend the store first")
        return
    if find_lab(federation) is None:
        authority = federation.folder / "authority" / "authority.pub"
        yield stores.budget(federation.store, federation.settings.population, authority)
    yield _clock(federation)


def _clock(federation: Federation) -> Finding:
    public = federation.folder / "witness" / "witness.pub"
    if not public.is_file():
        return look("clock", f"{public} is not here", "copy the witness's public key there")
    live = WitnessClient(federation.witness_socket) if federation.witness_socket.is_socket() else None
    return stores.clock(federation.store, live, read_hex(public))


def _gateway(folder: Path) -> Iterator[Finding]:
    home = read_home(folder)
    yield good("gateway", f"{home.settings.name}, workers: {home.settings.workers}")
    yield machine.disk(folder)
    yield machine.private_files(folder)
    yield from machine.certificates(folder)
    yield _authority(home)
    yield from _database(home)
    yield _ready(home)


def _authority(home: Home) -> Finding:
    try:
        return good("authority", f"admits devices certified by {home.authority().hex()[:16]}…")
    except BadInput as error:
        return broken("authority", str(error), "copy the enrolment authority's authority.pub there")


def _database(home: Home) -> Iterator[Finding]:
    try:
        database = home.database()
        try:
            revision = database.revision()
        finally:
            database.close()
    except UnheardError as error:
        yield broken("database", str(error), "start its server, or correct `database` in gateway.toml")
        return
    if revision == database.lineage.head:
        yield good("database", f"{database.name}, tables {revision}")
    elif revision is None:
        yield look("database", f"{database.name} has no tables yet", "`fa gateway serve` makes them")
    else:
        yield stores.tables(database, revision)


def _ready(home: Home) -> Finding:
    where = f"http://{home.settings.operations}/ready"
    try:
        with urllib.request.urlopen(where, timeout=5):
            return good("service", f"ready, says {where}")
    except OSError as error:
        return look("service", f"{where}: {error}", f"start it: `fa gateway serve {home.folder}`")


def as_object(findings: list[Finding]) -> str:
    """Return findings as one JSON object."""
    checks = [
        {"check": each.check, "state": each.state.value, "found": each.found, "mend": each.mend}
        for each in findings
    ]
    return json.dumps(
        {"good": not any(each.state == "broken" for each in findings), "checks": checks}, indent=2
    )
