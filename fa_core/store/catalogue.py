"""The catalogue: which releases there are, which rounds failed, which requests were refused, and the facts of
each without its body."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from fa_core.canonical_json import canonical, utc_text
from fa_core.errors import BadInput, Refused, UnheardError
from fa_core.store import chain, translog
from fa_core.store.bodies import Bodies, body_name, fetch
from fa_core.store.files import estimates_bytes, read_estimates, read_release, release_bytes
from fa_core.store.schema import failures, refusals, releases
from fa_core.trust.checkpoint import entry
from fa_core.values import Accounting, Estimates, Release

DEFAULT = ".unheard"
"""The folder of a store that no option names."""

LEAST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One release as the catalogue lists it.

    Attributes:
        id: 32 hex digits.
        plan: name of the plan, without its revision.
        synthetic: whether the voices were synthetic.
        cost: what every device was charged, in the currency `accounting`.
        results: how many numbers it has (cells not counted); `suppressed` of them are not shown.
        broken: how many guardrails it breaks.
        release_sha256, estimates_sha256: hex digests of its two Parquet files.
    """

    id: str
    plan: str
    plan_hash: str
    population: str
    engine: str
    simulated: bool
    synthetic: bool
    created: datetime
    window_start: datetime
    window_end: datetime
    invited: int
    joined: int
    dropped: int
    counted: int
    accounting: Accounting
    cost: Fraction
    results: int
    suppressed: int
    broken: int
    release_sha256: str
    estimates_sha256: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One round that ended without a release: at which stage, and why. Its charge, if any, stands."""

    release: str
    plan: str
    plan_hash: str
    population: str
    stage: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request that budgets or policy refused before anything was charged or a device asked.

    `release` is the id that the release would have had. Refusals are not in the transparency log.
    """

    release: str
    plan: str
    plan_hash: str
    population: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Query:
    """Which releases: of this plan, this population, made in [since, until). None asks nothing."""

    plan: str | None = None
    population: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def save(
    connection: Connection, bodies: Bodies, release: Release, estimates: Estimates, *, synthetic: bool
) -> Entry:
    """Write a release, its estimates, its log entry, and last its catalogue row.

    The connection must be a writing one. Raises Refused where the release was not charged, was charged for
    less or for something else, or ended before.
    """
    if estimates.release != release.id:
        raise ValueError(f"estimates of {estimates.release} do not belong to release {release.id}")
    if sha256(release.plan).hexdigest() != release.layout.plan_hash:
        raise ValueError(f"release {release.id} holds another plan than its layout was compiled from")
    _check_open(connection, release.id)
    _check_charged(connection, release)
    parts = {"release": release_bytes(release), "estimates": estimates_bytes(estimates)}
    digests = {part: sha256(data).hexdigest() for part, data in parts.items()}
    for part, data in parts.items():
        bodies.write(connection, body_name(release.id, part, digests[part]), data)
    row = _row(release, estimates, digests, synthetic)
    translog.append(connection, "release", release.id, entry("release", canonical(logged(row))))
    connection.execute(insert(releases).values(**row))
    return Entry(**row)


def fail(connection: Connection, failure: Failure) -> None:
    """Write that a round failed, and its log entry. Raises Refused where the release ended before."""
    _check_open(connection, failure.release)
    row = asdict(failure)
    body = canonical(row | {"at": utc_text(failure.at)})
    translog.append(connection, "failure", failure.release, entry("failure", body))
    connection.execute(insert(failures).values(**row))


def refuse(connection: Connection, refusal: Refusal) -> None:
    """Write that a request was refused."""
    connection.execute(insert(refusals).values(**asdict(refusal)))


def refused(connection: Connection, limit: int, offset: int) -> tuple[Refusal, ...]:
    """Return the requests that were refused, newest first."""
    newest = refusals.c.at.desc(), refusals.c.release
    rows = connection.execute(select(refusals).order_by(*newest).limit(limit).offset(offset))
    return tuple(Refusal(**row._asdict()) for row in rows)


def page(connection: Connection, query: Query, limit: int, offset: int) -> tuple[Entry, ...]:
    """Return the releases that a query names, newest first, at most `limit` after the first `offset`."""
    newest = releases.c.created.desc(), releases.c.id
    rows = connection.execute(_where(select(releases), query).order_by(*newest).limit(limit).offset(offset))
    return tuple(Entry(**row._asdict()) for row in rows)


def count(connection: Connection, query: Query) -> int:
    """Return how many releases a query names."""
    return int(connection.execute(_where(select(func.count(releases.c.id)), query)).scalar_one())


def failed(connection: Connection, limit: int, offset: int) -> tuple[Failure, ...]:
    """Return the rounds that failed, newest first."""
    newest = failures.c.at.desc(), failures.c.release
    rows = connection.execute(select(failures).order_by(*newest).limit(limit).offset(offset))
    return tuple(Failure(**row._asdict()) for row in rows)


def find(connection: Connection, text: str) -> Entry:
    """Return the release that a person means by `latest`, an id, or the first digits of one.

    Raises BadInput where no release, or more than one, is meant.
    """
    if text == "latest":
        newest = page(connection, Query(), 1, 0)
        if not newest:
            raise BadInput("there is no release yet; `fa run PLAN` makes one")
        return newest[0]
    prefix = text.strip().lower()
    if len(prefix) < LEAST_PREFIX or set(prefix) - set("0123456789abcdef"):
        raise BadInput(
            f"{text!r} is not a release: give `latest`, or {LEAST_PREFIX} or more of its first hex digits"
        )
    rows = connection.execute(
        select(releases).where(releases.c.id.startswith(prefix)).order_by(releases.c.id).limit(4)
    )
    found = [Entry(**row._asdict()) for row in rows]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"more than one release starts with {prefix}: {', '.join(each.id for each in found)}")
    why = connection.execute(select(failures).where(failures.c.release.startswith(prefix)).limit(1)).first()
    if why is not None:
        raise BadInput(f"round {why.release} failed at {why.stage} and released nothing: {why.reason}")
    raise BadInput(f"no release starts with {prefix}; `fa results list` shows those there are")


def read(connection: Connection, bodies: Bodies, found: Entry) -> tuple[Release, Estimates]:
    """Return a release and its estimates from their files."""
    release = read_release(*_part(connection, bodies, found, "release"))
    return release, read_estimates(*_part(connection, bodies, found, "estimates"))


def glance(connection: Connection, bodies: Bodies, found: Entry) -> Estimates:
    """Return a release's estimates without the cells of its tables."""
    return read_estimates(*_part(connection, bodies, found, "estimates"), cells=False)


def _part(connection: Connection, bodies: Bodies, found: Entry, part: str) -> tuple[bytes, str]:
    """Return the bytes of a part of a release, and what errors call them."""
    digest = {"release": found.release_sha256, "estimates": found.estimates_sha256}[part]
    return fetch(bodies, connection, found.id, part, digest), body_name(found.id, part, digest)


def verify(connection: Connection, bodies: Bodies) -> list[str]:
    """Return where the catalogue, the files and the transparency log disagree, one sentence each."""
    ended = translog.ended(connection)
    try:
        rows = connection.execute(select(releases).order_by(releases.c.id)).all()
        failed = connection.execute(select(failures).order_by(failures.c.release)).all()
    except BadInput as error:
        return [str(error)]
    problems = []
    for row in rows:
        body = ended.pop(row.id, None)
        try:
            problems += _differences(connection, bodies, row._asdict(), body)
        except UnheardError as error:
            problems.append(f"release {row.id}: {error}")
    for row in failed:
        recorded = row._asdict() | {"at": utc_text(row.at)}
        if ended.pop(row.release, None) != recorded:
            problems.append(f"failure {row.release}: the catalogue and the transparency log differ")
    problems += [f"the transparency log ends {release}, the catalogue does not know it" for release in ended]
    return problems


def _differences(
    connection: Connection, bodies: Bodies, row: dict[str, Any], body: dict[str, Any] | None
) -> list[str]:
    problems = []
    if body != logged(row):
        problems.append(f"release {row['id']}: the catalogue and the transparency log differ")
    fetch(bodies, connection, row["id"], "estimates", row["estimates_sha256"])
    release = read_release(*_part(connection, bodies, Entry(**row), "release"))
    _check_charged(connection, release)
    if any(row[key] != value for key, value in _facts(release).items()):
        problems.append(f"release {row['id']}: the catalogue and the release differ")
    return problems


def logged(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the transparency log says of a release: its catalogue row, times as text."""
    body = {key: utc_text(value) if isinstance(value, datetime) else value for key, value in row.items()}
    return body | {"release": body.pop("id"), "cost": str(row["cost"])}


def _row(
    release: Release, estimates: Estimates, digests: Mapping[str, str], synthetic: bool
) -> dict[str, Any]:
    return _facts(release) | {
        "synthetic": synthetic,
        "results": len(estimates.results),
        "suppressed": sum(result.suppressed for result in estimates.results),
        "broken": sum(judgement.verdict == "broken" for judgement in estimates.judgements),
        "release_sha256": digests["release"],
        "estimates_sha256": digests["estimates"],
    }


def _facts(release: Release) -> dict[str, Any]:
    """Return the part of a catalogue row that follows from the release alone."""
    return {
        "id": release.id,
        "plan": plan_name(release.plan),
        "plan_hash": release.layout.plan_hash,
        "population": release.population,
        "engine": release.engine,
        "simulated": release.simulated,
        "created": release.created,
        "window_start": release.window_start,
        "window_end": release.window_end,
        "invited": release.participation.invited,
        "joined": release.participation.joined,
        "dropped": release.participation.dropped,
        "counted": release.participation.counted,
        "accounting": release.layout.accounting,
        "cost": release.layout.cost,
    }


def verify_commands(release: str, store: str) -> tuple[str, ...]:
    """Return the commands that verify a release: its log, its own entry, the ledger, and its numbers."""
    options = "" if store == DEFAULT else f" --store {shlex.quote(store)}"
    parts = ("log verify", f"log prove {release}", "ledger verify", f"results show {release}")
    return tuple(f"fa {part}{options}" for part in parts)


def plan_name(plan: bytes) -> str:
    """Return the name in a plan's canonical bytes (JSON with `metadata.name`)."""
    document = translog.plan_document(plan)
    name = document.get("metadata", {}).get("name")
    if not isinstance(name, str):
        raise BadInput("the plan's canonical bytes hold no metadata.name")
    return name


def _where(statement: Select[Any], query: Query) -> Select[Any]:
    if query.plan is not None:
        statement = statement.where(releases.c.plan == query.plan)
    if query.population is not None:
        statement = statement.where(releases.c.population == query.population)
    if query.since is not None:
        statement = statement.where(releases.c.created >= query.since)
    if query.until is not None:
        statement = statement.where(releases.c.created < query.until)
    return statement


def _check_open(connection: Connection, release: str) -> None:
    """Raise Refused where a release of this id exists or failed."""
    for table, column in ((releases, releases.c.id), (failures, failures.c.release)):
        if connection.execute(select(func.count()).select_from(table).where(column == release)).scalar_one():
            raise Refused(f"release {release} has ended before; it exists once and is never changed")


def _check_charged(connection: Connection, release: Release) -> None:
    """Raise Refused unless the ledger holds at least what this release cost, for the same thing."""
    charge = chain.charge_of(connection, release.id)
    if charge is None:
        raise Refused(f"release {release.id} was not charged to the ledger; nothing may be released")
    asked = (release.population, release.layout.plan_hash, release.layout.accounting)
    window = (release.window_start, release.window_end)
    if (charge.population, charge.plan_hash, charge.currency) != asked or charge.cost < release.layout.cost:
        raise Refused(f"release {release.id} was charged for another plan, population or cost than its own")
    if (charge.window_start, charge.window_end) != window:
        raise Refused(f"release {release.id} was charged for another window than its own")
