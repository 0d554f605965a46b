"""No population and no device goes over its budget, whatever the clocks do: random schedules.

The witness counts by its own clock, which may be wrong by up to E, and is put right or wrong at any time. In
its own time no week, no year and no window holds more than the budget; so in true time no interval does that
is shorter by 2E. The server stamps its charges with a clock that jumps by years. A device of the population
takes part in each round that was signed for: its clock jumps too, the checkpoints that it is shown are up to
a day old by the witness's time, and it is reinstalled now and then.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import odometer
from fa_core.errors import Refused
from fa_core.privacy.ledger import WEEK, YEAR, Charge, Policy
from fa_core.privacy.ledger_rows import Declaration
from fa_core.trust import witness as module
from fa_core.trust.witness import Witness

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = Ed25519PrivateKey.generate()
STEPS = 16
ODOMETER = odometer.Budget(Fraction(1, 2), timedelta(days=28), timedelta(days=28))


class MemoryJournal:
    """A journal that needs no disk; it outlives its witness as the real one does."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def keep(self, name: str, entry: bytes) -> bytes:
        return self._entries.setdefault(name, entry)

    def read(self, name: str) -> bytes | None:
        return self._entries.get(name)

    def replace(self, name: str, entry: bytes) -> None:
        self._entries[name] = entry

    def entries(self, ending: str) -> list[bytes]:
        return [entry for name, entry in self._entries.items() if name.endswith(ending)]

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True)
def entries_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The witness decodes its whole journal for each roster; here that would be most of the time."""
    monkeypatch.setattr(module, "_charge", lru_cache(maxsize=64)(module._charge))


@dataclass
class Schedule:
    """What happened: for each charge that was signed its true time and the witness's."""

    policy: Policy
    error: timedelta
    true: list[tuple[datetime, Charge]] = field(default_factory=list)
    counted: list[tuple[datetime, Charge]] = field(default_factory=list)
    device: list[tuple[datetime, Charge]] = field(default_factory=list)
    refused: int = 0


class Clocks:
    """True time, and how far the clocks of server, witness and device are off."""

    def __init__(self, chance: random.Random, error: timedelta) -> None:
        self._chance, self._error = chance, error
        self.now = START
        self._server = self._witness = self._device = timedelta(0)

    def step(self) -> None:
        self.now += self._chance.choice([timedelta(0), timedelta(hours=1), DAY, 4 * DAY, 100 * DAY])
        if self._chance.random() < 0.3:
            self._server = self._chance.choice([0, -400, -8, 8, 400]) * DAY
        if self._chance.random() < 0.3:
            self._witness = self._chance.choice([-1, 0, 1]) * self._error
        if self._chance.random() < 0.3:
            self._device = self._chance.choice([-0.9, 0, 0.9, 400]) * DAY

    def server(self) -> datetime:
        return self.now + self._server

    def witness(self) -> datetime:
        return self.now + self._witness

    def device(self) -> datetime:
        return self.now + self._device


class Device:
    """The odometer of one device, as `clients.device` drives it. A reinstallation makes a new one."""

    def __init__(self) -> None:
        self.charges: list[odometer.Charge] = []
        self.first: datetime | None = None
        self.latest: datetime | None = None

    def contributes(self, cost: Fraction, local: datetime, witnessed: datetime) -> bool:
        """Whether it counts, and pays, in a round at `local` by its clock."""
        moment = odometer.Moment(local, witnessed, max(witnessed, self.latest or witnessed), DAY)
        if not moment.agrees:
            return False
        self.latest, self.first = moment.latest, self.first or moment.timestamp
        if not (
            odometer.settled(self.first, moment, ODOMETER)
            and odometer.affords(self.charges, cost, moment, ODOMETER)
        ):
            return False
        self.charges.append(odometer.Charge(cost, moment.timestamp))
        return True


def play(folder: Path, seed: int, by_server: bool = False) -> Schedule:
    """Play a schedule against the witness's own sum. `by_server`: its clock is the server's (a control)."""
    chance = random.Random(seed)
    unit = Fraction(1, 12)
    policy = Policy(12 * unit, 12 * unit, 12 * unit, 30 * unit, 20 * unit)
    done = Schedule(policy, chance.choice([timedelta(0), timedelta(minutes=5), DAY, 3 * DAY]))
    clocks, journal = Clocks(chance, done.error), MemoryJournal()
    declared = Declaration("homes", "zcdp", policy, START - 1000 * DAY)

    def started() -> Witness:
        made = Witness(KEY, bytes(32), folder, None, clocks.server if by_server else clocks.witness)
        made._journal = journal  # type: ignore[assignment]
        return made

    witness, device = started(), Device()
    for number in range(STEPS):
        clocks.step()
        if chance.random() < 0.2:
            witness = started()
        end = clocks.now.replace(minute=0) - chance.randint(0, 9) * DAY
        asked = Charge(
            "homes", chance.choice("ab"), f"{number:032x}", "0" * 64, "zcdp", chance.randint(1, 7) * unit,
            Fraction(1), Fraction(1, 10**8), end - chance.randint(1, 9) * DAY, end, clocks.server(),
        )  # fmt: skip
        try:
            witness._spend(asked, declared)
        except Refused:
            done.refused += 1
            continue
        done.true.append((clocks.now, asked))
        done.counted = [(each.at, each) for each in witness.charges()]
        if chance.random() < 0.1:
            device = Device()
        witnessed = clocks.witness() - chance.choice([0, 0.4, 1]) * DAY
        if device.contributes(asked.cost, clocks.device(), witnessed):
            done.device.append((clocks.now, asked))
    return done


def most(charges: Sequence[tuple[datetime, Charge]], length: timedelta) -> Fraction:
    """The most that any half-open interval of this length holds."""
    return max(
        (sum(b.cost for other, b in charges if at <= other < at + length) for at, _ in charges),
        default=Fraction(0),
    )


def problems(done: Schedule) -> list[str]:
    """The budgets that were exceeded, by the witness's time or in true time."""
    found = []
    if most(done.device, ODOMETER.window - 2 * done.error) > ODOMETER.rho:
        found.append("device in true time")
    for name, charges, less in (("witness", done.counted, 0 * DAY), ("true", done.true, 2 * done.error)):
        of_a = [each for each in charges if each[1].family == "a"]
        of_b = [each for each in charges if each[1].family == "b"]
        for budget, members, length in (
            ("week", charges, WEEK), ("year", charges, YEAR), ("family", of_a, YEAR), ("family", of_b, YEAR),
        ):  # fmt: skip
            if most(members, length - less) > done.policy.limit(budget):  # type: ignore[arg-type]
                found.append(f"{budget} in {name} time")
    windows = [each for _, each in done.true]
    if any(
        sum(b.cost for b in windows if b.window_start <= a.window_start < b.window_end) > done.policy.window
        for a in windows
    ):
        found.append("window")
    return found


def test_no_schedule_puts_a_population_over_its_budget(tmp_path: Path) -> None:
    played = [play(tmp_path, seed) for seed in range(500)]
    assert [each for each in map(problems, played) if each] == []
    signed, refused = sum(len(each.true) for each in played), sum(each.refused for each in played)
    assert min(signed, refused) > 1000, "the budgets matter in these schedules"
    answered = sum(len(each.device) for each in played)
    assert 300 < answered < signed - 300, "and so does the device's own"


@pytest.mark.long
def test_no_schedule_of_many_puts_a_population_over_its_budget(tmp_path: Path) -> None:
    for seed in range(10_000):
        assert problems(play(tmp_path, 1000 + seed)) == []


def caught(folder: Path, **options: Any) -> set[str]:
    return {each for seed in range(50) for each in problems(play(folder, seed, **options))}


def test_a_device_that_forgets_what_it_spent_when_it_is_reinstalled_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odometer, "settled", lambda *_: True)
    assert caught(tmp_path) == {"device in true time"}


def test_a_witness_that_takes_the_servers_time_is_caught(tmp_path: Path) -> None:
    assert {"week in true time", "year in true time"} <= caught(tmp_path, by_server=True)


def test_a_witness_whose_time_goes_back_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control stamps a charge with the clock as it is, and counts only what lies before that."""

    def careless(policy: Policy, currency: Any, past: Sequence[Charge], asked: Charge) -> None:
        real(policy, currency, [each for each in past if each.at <= asked.at], asked)

    def newest(times: Any) -> datetime:
        return next(iter(times))

    real = module.admit
    monkeypatch.setattr(module, "admit", careless)
    monkeypatch.setattr(module, "max", newest, raising=False)
    assert caught(tmp_path) != set()


def test_a_witness_that_keeps_no_windows_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.admit
    monkeypatch.setattr(
        module, "admit", lambda policy, *rest: real(replace(policy, window=Fraction(10**6)), *rest)
    )
    assert caught(tmp_path) == {"window"}
