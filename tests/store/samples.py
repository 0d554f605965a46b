"""Releases, plans and witnesses for the store's tests; nothing here is random."""

import json
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.merkle import Proof
from fa_core.privacy.ledger import DEFAULT_POLICIES, Charge
from fa_core.store import Declaration, Entry, Store
from fa_core.trust.checkpoint import Checkpoint, cosign, parse
from fa_core.values import Block, Cell, Estimate, Estimates, Judgement, Layout, Participation, Release

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
AUTHOR_KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)


@dataclass
class KeepingWitness:
    """A witness that remembers the last checkpoint it signed."""

    last: Checkpoint | None = None
    at: datetime = NOW
    signed: list[bytes] = field(default_factory=list)

    def seen(self) -> int:
        return 0 if self.last is None else self.last.size

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        line = cosign(note, self.last, proof, LOG_KEY.public_key(), WITNESS_KEY, self.at)
        self.last = parse(note)
        self.signed.append(note + line)
        return line


def plan(name: str = "wake-word-weekly", revision: int = 1) -> bytes:
    """Canonical bytes of something that looks like a plan."""
    body = {
        "metadata": {"name": name, "revision": revision, "question": "Is any accent missed more?"},
        "source": "wake_events",
        "window": "7d",
        "where": {"wake_word": "okay_nabu"},
        "privacy": {"counters": "joint"},
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def release_id(number: int) -> str:
    return sha256(b"release %d" % number).hexdigest()[:32]


def make_release(
    number: int = 0,
    name: str = "wake-word-weekly",
    population: str = "homes",
    at: datetime = NOW,
    cost: Fraction = Fraction(1, 64),
) -> Release:
    """A release of two blocks, six cells."""
    data = plan(name)
    blocks = (
        Block(
            "false_reject_rate", ("accent",), "excess", 0, 4, 1216, 1478656, 1216, cost / 2, Fraction(7, 3)
        ),
        Block("false_reject_rate", (), "moments", 4, 2, 3**50, 3**90, 3**45, cost / 2, Fraction(10**30, 7)),
    )
    layout = Layout(
        sha256(data).hexdigest(), blocks, "zcdp", "discrete_gaussian", "central", cost,
        Fraction(1), Fraction(1, 10**8), 64, "narrower at this size",
    )  # fmt: skip
    return Release(
        release_id(number), data, layout, population, "local", True, at, at - 7 * DAY, at,
        Participation(1000, 900, 20, 880), np.array([1, -2, 2**62, 4, 5, -(2**63)]), np.array([1, 4]),
        np.array([7 / 3, 1e29 / 7]), False,
    )  # fmt: skip


def make_estimate(label: str, value: float | None, cells: tuple[Cell, ...] = ()) -> Estimate:
    shown = value is not None
    width = 0.01 if shown else None
    group = (("accent", label),) if label else ()
    return Estimate(
        "false_reject_rate", "histogram" if cells else "rate", "", group,
        value, value and value - 0.01, value and value + 0.01, value and value - 0.02, value and value + 0.02,
        value and value - 0.005, value and value + 0.005, 0.95, not shown,
        "" if shown else "fewer than 100 devices", 1234.5 if shown else None, width, 321.25, 4.5,
        "group" if shown else "", cells,
    )  # fmt: skip


def make_estimates(number: int = 0, worse: float = 0.0) -> Estimates:
    cells = tuple(
        Cell((("score", f"0.{bin}"),), bin / 10, 0.0, 1.0, 0.0, 1.0, False, "", 50.0, 0.1) for bin in range(3)
    )
    results = (
        make_estimate("", 0.05 + worse),
        make_estimate("en-US", 0.04 + worse),
        make_estimate("es-en", None),
        make_estimate("en-IN", 0.12 + worse, cells),
    )
    judgement = Judgement(
        "false_reject_rate", ("accent",), "max 0.08", "broken", (("accent", "en-IN"),), 0.09, 0.15,
        "en-IN misses more than 8 in 100",
    )  # fmt: skip
    return Estimates(release_id(number), 0.95, results, (judgement,))


def charge_for(release: Release, family: str | None = None) -> Charge:
    """The charge that a run of this release makes."""
    return Charge(
        population=release.population,
        family=family or json.loads(release.plan)["metadata"]["name"],
        release=release.id,
        plan_hash=release.layout.plan_hash,
        currency=release.layout.accounting,
        cost=release.layout.cost,
        epsilon=release.layout.epsilon,
        delta=release.layout.delta,
        window_start=release.window_start,
        window_end=release.window_end,
        at=release.created,
    )


def announce(store: Store, data: bytes) -> int:
    key = AUTHOR_KEY.public_key().public_bytes_raw()
    return store.announce(data, key, AUTHOR_KEY.sign(data)).index


def charge(store: Store, asked: Charge) -> None:
    """Charge a population, which is given the default budgets where it has none."""
    if store.declaration(asked.population) is None:
        policy = DEFAULT_POLICIES[asked.currency]
        store.declare(Declaration(asked.population, asked.currency, policy, asked.at))
    store.charge(asked)


def run(store: Store, release: Release, estimates: Estimates | None = None) -> Entry:
    """Announce, charge and save a release."""
    announce(store, release.plan)
    charge(store, charge_for(release))
    number = Estimates(release.id, 0.95, make_estimates().results, make_estimates().judgements)
    return store.save(release, estimates or number, synthetic=True)


def same(a: object, b: object) -> bool:
    """Whether two values are equal, arrays by dtype and content, NaN equal to itself."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, each.name), getattr(b, each.name)) for each in fields(a))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))
