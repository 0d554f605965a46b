"""The ledger as rows: each carries a hash over the one before, so that history cannot be rewritten quietly.

Rows are the bytes of `fa_core.privacy.ledger_rows`.
The transparency log repeats every row, so that the last ones cannot be cut off quietly either.
What may be charged is not decided here but by the pure rules of `fa_core.privacy.ledger`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused, UnheardError
from fa_core.privacy.ledger import Charge, admit
from fa_core.privacy.ledger_rows import START, Declaration, decode, digest, encode
from fa_core.privacy.reservations import Reservation, require_kept
from fa_core.store import translog
from fa_core.store.schema import ledger
from fa_core.store.translog import LogEntry
from fa_core.trust.checkpoint import entry


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the ledger: what was declared or charged, and its place in the chain."""

    seq: int
    hash: bytes
    value: Declaration | Charge


@dataclass(frozen=True, slots=True)
class Written:
    """A row as it was just written, and the index of the log's entry that repeats it."""

    row: Row
    log_index: int


SetAside = Callable[[Sequence[LogEntry], str, Sequence[Charge], datetime], tuple[Reservation, ...]]
"""Returns what is set aside of a population's budgets, from the log's entries of rollouts, the name of the
population, its charges and the time (UTC)."""


def nothing_set_aside(
    entries: Sequence[LogEntry], population: str, charges: Sequence[Charge], at: datetime
) -> tuple[Reservation, ...]:
    """Return that nothing is: a `SetAside` for a ledger beside which there are no rollouts."""
    return ()


def charge(connection: Connection, asked: Charge, set_aside: SetAside) -> Written:
    """Check a charge against every budget and what is set aside, and write it; or raise Refused, and write
    nothing.

    The connection must be a writing one. A population must have declared its budgets before.
    """
    if translog.find(connection, "plan", asked.plan_hash) is None:
        raise Refused(
            f"plan {asked.plan_hash[:12]} is not in the transparency log; it must be before it is charged"
        )
    if charge_of(connection, asked.release) is not None:
        raise Refused(
            f"release {asked.release} was charged before; another attempt after that needs a new release id"
        )
    declared = declaration(connection, asked.population)
    if declared is None:
        raise Refused(
            f"population {asked.population!r} has no budgets in this ledger; `fa ledger declare` sets them"
        )
    past = charges(connection, asked.population)
    admit(declared.policy, declared.currency, past, asked)
    entries = translog.of_kinds(connection, translog.ROLLOUTS)
    before, after = (set_aside(entries, asked.population, made, asked.at) for made in (past, (*past, asked)))
    require_kept(declared.policy, past, asked, before, after)
    return _append(connection, asked)


def declare(connection: Connection, declared: Declaration) -> Written:
    """Write a population's budgets, in force from here on. Raises Refused for another kind of ledger."""
    before = declaration(connection, declared.population)
    if before is not None and before.currency != declared.currency:
        raise Refused(
            f"population {declared.population} has a ledger of {before.currency}; it cannot become one of "
            f"{declared.currency}"
        )
    return _append(connection, declared)


def declaration(connection: Connection, population: str) -> Declaration | None:
    """Return what a population last declared, or None."""
    query = (
        select(ledger.c.body)
        .where(ledger.c.population == population, ledger.c.kind == "declare")
        .order_by(ledger.c.seq.desc())
        .limit(1)
    )
    body = connection.execute(query).scalar()
    if body is None:
        return None
    value = decode(body)
    assert isinstance(value, Declaration)
    return value


def charges(connection: Connection, population: str) -> tuple[Charge, ...]:
    """Return every charge of a population, oldest first."""
    query = (
        select(ledger.c.body)
        .where(ledger.c.population == population, ledger.c.kind == "charge")
        .order_by(ledger.c.seq)
    )
    values = (decode(body) for body in connection.execute(query).scalars())
    return tuple(value for value in values if isinstance(value, Charge))


def charge_of(connection: Connection, release: str) -> Charge | None:
    """Return the charge of a release, or None."""
    body = connection.execute(select(ledger.c.body).where(ledger.c.release == release)).scalar()
    value = None if body is None else decode(body)
    return value if isinstance(value, Charge) else None


def rows(connection: Connection) -> Iterator[Row]:
    """Yield every row, oldest first."""
    query = select(ledger.c.seq, ledger.c.hash, ledger.c.body).order_by(ledger.c.seq)
    for seq, hashed, body in connection.execute(query):
        yield Row(seq, hashed, decode(body))


def populations(connection: Connection) -> tuple[str, ...]:
    """Return the names of all populations, sorted."""
    return tuple(connection.execute(select(ledger.c.population).distinct().order_by("population")).scalars())


def verify(connection: Connection) -> list[str]:
    """Return what is wrong with the ledger, one sentence each; empty where nothing is.

    Recomputes the chain, compares it with the transparency log, and decides every charge again.
    """
    problems: list[str] = []
    before, replay = START, _Replay()
    digests: list[str] = []
    for place, row in enumerate(connection.execute(select(ledger).order_by(ledger.c.seq))):
        if row.seq != place:
            problems.append(f"ledger row {place} is missing: the next is numbered {row.seq}")
            return problems
        if row.hash != digest(before, row.body):
            problems.append(
                f"ledger row {row.seq} was rewritten: its hash does not follow from the one before"
            )
            return problems
        before = row.hash
        digests.append(row.hash.hex())
        try:
            value = decode(row.body)
            if (row.kind, row.population, row.release) != _columns(value):
                problems.append(f"ledger row {row.seq}: the columns say something else than the body")
            replay.add(value)
        except UnheardError as error:
            problems.append(f"ledger row {row.seq}: {error}")
    try:
        logged = translog.ledger_hashes(connection)
    except BadInput as error:
        return [*problems, str(error)]
    if logged != digests:
        other = next((i for i, (a, b) in enumerate(zip(logged, digests, strict=False)) if a != b), None)
        problems.append(
            f"the transparency log has {len(logged)} ledger rows, the ledger {len(digests)}"
            if other is None
            else f"ledger row {other} is another than the transparency log's"
        )
    return problems


class _Replay:
    """Decides every row again, in order, from nothing but the rows before it."""

    def __init__(self) -> None:
        self._declared: dict[str, Declaration] = {}
        self._charged: dict[str, list[Charge]] = {}

    def add(self, value: Declaration | Charge) -> None:
        """Take the next row. Raises Refused where it should not have been written."""
        declared = self._declared.get(value.population)
        if isinstance(value, Declaration):
            if declared is not None and declared.currency != value.currency:
                raise Refused(f"population {value.population} changed its kind of ledger")
            self._declared[value.population] = value
            return
        if declared is None:
            raise Refused(f"population {value.population} was charged before it had a budget")
        past = self._charged.setdefault(value.population, [])
        admit(declared.policy, declared.currency, past, value)
        past.append(value)


def _columns(value: Declaration | Charge) -> tuple[str, str, str | None]:
    if isinstance(value, Declaration):
        return ("declare", value.population, None)
    return ("charge", value.population, value.release)


def _append(connection: Connection, value: Declaration | Charge) -> Written:
    last = connection.execute(
        select(ledger.c.seq, ledger.c.hash).order_by(ledger.c.seq.desc()).limit(1)
    ).first()
    seq, before = (0, START) if last is None else (last.seq + 1, last.hash)
    body = encode(value)
    hashed = digest(before, body)
    kind, population, release = _columns(value)
    connection.execute(
        insert(ledger).values(
            seq=seq, kind=kind, population=population, release=release, body=body, hash=hashed
        )
    )
    logged = canonical({"hash": hashed.hex(), "row": json.loads(body), "seq": seq})
    found = translog.append(connection, "ledger", release or population, entry("ledger", logged))
    return Written(Row(seq, hashed, value), found.index)
