"""The store's records of rounds: the device's identity, its contributions, its replies, the log it saw.

The same file as the events, so that a contribution (charge, receipt, reply) is one transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device.database import Connection
from clients.device.interface import Stage
from clients.device.odometer import Charge
from clients.device.policy import Past
from clients.device.rows import micros, moment
from clients.device.store import Store
from fa_core.errors import BadInput
from fa_core.publication import proofs as publications
from fa_core.secagg import DeviceIdentity

_TRAINING = 16 + 8
"""Bytes of one contribution to a training plan: its release, and microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one release took from this device. `rho` is 0 where the budget was used up and zeros were sent.

    Attributes:
        release: 16 bytes; `attempt` as in the invitation.
        plan: hex hash of the plan; `family` its name without the revision.
        start, end: the plan's window, [start, end).
        timestamp: the odometer's time of the charge; `at` the device's clock, `took` the time it ran.
    """

    release: bytes
    attempt: int
    plan: str
    family: str
    start: datetime
    end: datetime
    rho: Fraction
    timestamp: datetime
    at: datetime
    took: timedelta


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest log checkpoint and witness's times that this device believed.

    Attributes:
        size, root: of the newest checkpoint; 0 and empty before the first.
        latest: the highest witnessed time; `first` the timestamp of the first; None before it.
    """

    size: int
    root: bytes
    latest: datetime | None
    first: datetime | None


class Records:
    """Contributions, replies and the newest log state, in a store. Writers run in its transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def _connection(self) -> Connection:
        return self._store.connection

    def contributions(self) -> list[Contribution]:
        """Return everything that was ever contributed, oldest first."""
        rows = self._connection.execute(
            "SELECT release, attempt, plan, family, window_start, window_end, rho, stamp, at, took "
            "FROM contribution ORDER BY rowid"
        ).fetchall()
        return [
            Contribution(
                release, attempt, plan, family, moment(start), moment(end), Fraction(rho), moment(timestamp),
                moment(at), timedelta(microseconds=took),
            )
            for release, attempt, plan, family, start, end, rho, timestamp, at, took in rows
        ]  # fmt: skip

    def charges(self, *, training: bool) -> list[Charge]:
        """Return every charge of training plans, or of all others, as the odometer reads them."""
        trained = self.trainings()
        return [
            Charge(each.rho, each.timestamp)
            for each in self.contributions()
            if (each.release in trained) == training
        ]

    def trainings(self) -> dict[bytes, datetime]:
        """Return which contributions were to training plans: release, and when by the device's clock."""
        row = self._connection.execute("SELECT value FROM state WHERE name = 'trainings'").fetchone()
        data = b"" if row is None else bytes(row[0])
        rows = (data[at : at + _TRAINING] for at in range(0, len(data), _TRAINING))
        return {each[:-8]: moment(_number(each[-8:])) for each in rows}

    def train(self, release: bytes, at: datetime) -> None:
        """Write that a contribution is to a training plan. `release`: 16 bytes."""
        rows = {**self.trainings(), release: at}
        data = b"".join(key + micros(when).to_bytes(8, "big") for key, when in rows.items())
        self._connection.execute("INSERT OR REPLACE INTO state VALUES ('trainings', ?)", (data,))

    def past(self) -> list[Past]:
        """Return every run, as the policy reads them."""
        return [Past(each.at, each.took) for each in self.contributions()]

    def contribute(self, contribution: Contribution) -> None:
        """Write a contribution. A second one of the same release fails."""
        row = (
            contribution.release,
            contribution.attempt,
            contribution.plan,
            contribution.family,
            micros(contribution.start),
            micros(contribution.end),
            str(contribution.rho),
            micros(contribution.timestamp),
            micros(contribution.at),
            contribution.took // timedelta(microseconds=1),
        )
        places = "INSERT INTO contribution VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._connection.execute(places, row)

    def joins(self) -> list[datetime]:
        """Return when this device joined rounds, by its own clock: all of the last day, maybe some before."""
        row = self._connection.execute("SELECT value FROM state WHERE name = 'joins'").fetchone()
        times = b"" if row is None else bytes(row[0])
        return [moment(_number(times[at : at + 8])) for at in range(0, len(times), 8)]

    def join(self, at: datetime, since: datetime) -> None:
        """Write that this device joins a round at `at`; joins before `since` are dropped."""
        kept = [each for each in self.joins() if each > since] + [at]
        times = b"".join(micros(each).to_bytes(8, "big") for each in kept)
        self._connection.execute("INSERT OR REPLACE INTO state VALUES ('joins', ?)", (times,))

    def forget_replies(self, keep: Collection[bytes]) -> None:
        """Delete the replies of all releases but those in `keep`."""
        for (release,) in self._connection.execute("SELECT DISTINCT release FROM reply").fetchall():
            if release not in keep:
                self._connection.execute("DELETE FROM reply WHERE release = ?", (release,))

    def reply(self, stage: Stage, request: bytes) -> bytes | None:
        """Return the stored reply to a request (by its SHA-256) at a stage."""
        row = self._connection.execute(
            "SELECT reply FROM reply WHERE stage = ? AND request = ?", (stage, request)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def keep_reply(self, release: bytes, attempt: int, stage: Stage, request: bytes, reply: bytes) -> None:
        """Write a reply, before it is sent. A second one of the same release, attempt and stage fails."""
        row = (release, attempt, stage, request, reply)
        self._connection.execute("INSERT INTO reply VALUES (?, ?, ?, ?, ?)", row)

    def key(self) -> Ed25519PrivateKey:
        """Return the device's own signing key, made here when it is first asked for."""
        row = self._connection.execute("SELECT value FROM state WHERE name = 'key'").fetchone()
        if row is not None:
            return Ed25519PrivateKey.from_private_bytes(bytes(row[0]))
        key = Ed25519PrivateKey.generate()
        self._connection.execute("INSERT INTO state VALUES ('key', ?)", (key.private_bytes_raw(),))
        return key

    def certify(self, certificate: bytes) -> None:
        """Write the enrolment authority's signature on this device's key, 64 bytes."""
        self._connection.execute("INSERT OR REPLACE INTO state VALUES ('certificate', ?)", (certificate,))

    def enrolled(self) -> bool:
        """Return whether the authority has certified this device's key."""
        return bool(self._connection.execute("SELECT 1 FROM state WHERE name = 'certificate'").fetchone())

    def identity(self) -> DeviceIdentity:
        """Return the device's certified key. Raises BadInput where it was never enrolled."""
        row = self._connection.execute("SELECT value FROM state WHERE name = 'certificate'").fetchone()
        if row is None:
            raise BadInput("this device is not enrolled; have `fa enrol device` certify its key")
        return DeviceIdentity(self.key(), bytes(row[0]))

    def seen(self) -> Seen:
        """Return what this device last believed of the log."""
        said = dict(self._connection.execute("SELECT name, value FROM state").fetchall())
        latest, first = (
            moment(_number(said[name])) if name in said else None for name in ("latest", "first")
        )
        return Seen(_number(said.get("size", b"\0")), bytes(said.get("root", b"")), latest, first)

    def see(self, seen: Seen) -> None:
        """Write what this device believes of the log from now on."""
        assert seen.latest is not None
        assert seen.first is not None
        values = {"size": seen.size, "latest": micros(seen.latest), "first": micros(seen.first)}
        rows = [(name, value.to_bytes(8, "big")) for name, value in values.items()] + [("root", seen.root)]
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)

    def publication_seen(self) -> publications.Seen:
        """Return the log as publications showed it last; nothing before the first."""
        said = dict(self._connection.execute("SELECT name, value FROM state").fetchall())
        size = _number(said.get("published_size", b"\0"))
        return publications.Seen(size, bytes(said.get("published_root", b"")))

    def see_publication(self, seen: publications.Seen) -> None:
        """Write the log as a publication showed it."""
        rows = [("published_size", seen.size.to_bytes(8, "big")), ("published_root", seen.root)]
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)

    def revision(self, family: str) -> int:
        """Return the highest revision seen of a plan family, 0 before the first."""
        row = self._connection.execute("SELECT revision FROM revision WHERE family = ?", (family,)).fetchone()
        return 0 if row is None else int(row[0])

    def see_revision(self, family: str, revision: int) -> None:
        """Write the highest revision seen of a plan family."""
        self._connection.execute("INSERT OR REPLACE INTO revision VALUES (?, ?)", (family, revision))


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")
