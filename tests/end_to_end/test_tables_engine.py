"""The engine `tables`: releases of a fleet directory without a protocol, on a clock that may be set."""

import json
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner, Result

from clients.evaluate import fleet_sum, seeded_randomness, system_randomness
from fa_core.cli.run import run
from fa_core.engines.tables import count
from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan
from fa_core.plan import SignedPlan
from fa_core.privacy.distributed import noise_share, shares_outside_a_ring, simulated_noise
from fa_core.privacy.guarantee import guarantee
from fa_core.privacy.ledger import Policy
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, RunContext
from fa_core.store import open_store
from fa_core.values import Estimates, Release
from tests.rounds.small import POPULATION, SEED, UNTIL, World, small_plan, write_fleet, write_plan

DEVICES = 60


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fleet(tmp_path_factory.mktemp("small") / "fleet", DEVICES)


@pytest.fixture
def fa_run(tmp_path: Path, fleet: Path) -> Callable[..., Result]:
    """Return `fa run` on the small fleet, with a store of its own."""
    app = typer.Typer()
    app.command()(run)

    def invoke(plan: Path, *arguments: str) -> Result:
        places = ["--fleet", str(fleet), "--store", str(tmp_path / "store")]
        return CliRunner().invoke(app, [str(plan), *places, *arguments])

    return invoke


def counted(world: World, sample: str = "1", **options: object) -> tuple[Release, Estimates]:
    """Run a plan over a world's cohort on the engine."""
    plan = small_plan(sample=sample, **options)
    job = Job(
        plan, SignedPlan.of(plan, world.plan_key), POPULATION, UNTIL, "tables", True, True, 0, world.devices
    )
    watch = Watch(lambda _: None, lambda: False)
    context = RunContext(world.store, world.signers, Pace(1, 1), MonotonicClock(), world.today, watch)
    return count(job, world.cohort, context, system_randomness)


def test_a_release_says_that_no_device_was_asked(fa_run: Callable[..., Result], tmp_path: Path) -> None:
    result = fa_run(write_plan(tmp_path, groups="[[]]", noise="distributed"), "--engine", "tables", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["engine"], shown["simulated"]) == ("tables", True)
    assert shown["devices"] == {"invited": 60, "joined": 60, "dropped": 0, "counted": 60}
    with open_store(str(tmp_path / "store")) as store:
        release, _ = store.read(store.find("latest"))
        assert store.verify_log() == store.verify_ledger() == []
        assert [each.release for each in store.charges(POPULATION)] == [release.id]
    said = " ".join(guarantee(release))
    assert "no device was asked" in said
    assert "devices added the noise" not in said


def test_windows_in_a_row_are_charged_on_the_clock_that_is_set(
    fa_run: Callable[..., Result], tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, groups="[[]]")
    ends = [UNTIL - timedelta(days=number) for number in (2, 1, 0)]
    for end in ends:
        result = fa_run(plan, "--engine", "tables", "--until", end.isoformat())
        assert result.exit_code == 0, result.output
    with open_store(str(tmp_path / "store")) as store:
        charges = store.charges(POPULATION)
        assert [(each.window_end, each.at) for each in charges] == [(end, end) for end in ends]
        assert store.verify_log() == store.verify_ledger() == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "local", "--until", "2026-11-22T03:00:00Z"), "the clock of the engine `tables`"),
        (("--engine", "tables", "--until", "2026-11-22T03:30:00Z"), "--until: must be a whole hour in UTC"),
        (("--engine", "tables", "--until", "yesterday"), "--until: must be a whole hour in UTC"),
    ],
)
def test_a_clock_that_cannot_be_set_is_refused(
    fa_run: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = fa_run(write_plan(tmp_path), *arguments)
    assert isinstance(result.exception, BadInput)
    assert sentence in str(result.exception)


def test_what_is_over_budget_is_not_counted(tmp_path: Path) -> None:
    world = World.make(tmp_path, DEVICES)
    world.give(Policy(*[Fraction(1, 10**6)] * 5))
    with world.store, pytest.raises(Refused, match="has not enough budget"):
        counted(world)
    assert world.store.failures() == ()


def test_fewer_devices_than_the_least_cohort_are_not_counted(tmp_path: Path) -> None:
    world = World.make(tmp_path, 10)
    with world.store, pytest.raises(Refused, match="would ask 5 of 10 devices"):
        counted(world, sample="0.5")
    assert world.store.charges(POPULATION) == ()


def test_a_sample_is_of_whole_devices(tmp_path: Path) -> None:
    world = World.make(tmp_path, DEVICES)
    chosen = np.array([1, 5, 59])
    some = world.cohort.choose(chosen)
    plan = small_plan()
    sums = fleet_sum(plan, compile_plan(plan), some, UNTIL, seeded_randomness(SEED))
    assert some.ids == tuple(world.cohort.ids[number] for number in chosen)
    assert (sums == world.vectors(plan)[chosen].sum(axis=0)).all()
    assert not (sums == world.vectors(plan)[chosen - 1].sum(axis=0)).all()
    with world.store:
        release, _ = counted(world, sample="0.5")
    assert release.participation.counted == DEVICES // 2


def test_the_noise_is_as_large_as_that_of_all_shares() -> None:
    """Variances of 1,000 draws each way against each other: an F test at 1e-9, twice."""
    plan = small_plan(noise="distributed", cohort=20)
    layout = compile_plan(plan)
    devices, draws = 20, 1_000 // layout.length + 1
    shares = shares_outside_a_ring(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    zero = np.zeros(layout.length, np.int64)
    at_once = np.stack([simulated_noise(layout, zero, shares, devices) for _ in range(draws)])
    one_by_one = np.stack(
        [sum(noise_share(layout, zero, shares) for _ in range(devices)) for _ in range(draws)]  # type: ignore[misc]
    )
    sizes = np.concatenate(
        [np.full(block.cells, (devices * float(share.variance)) ** 0.5)
         for block, share in zip(layout.blocks, shares, strict=True)]
    )  # fmt: skip
    ratio = float(np.mean((at_once / sizes) ** 2) / np.mean((one_by_one / sizes) ** 2))
    least, most = stats.f.ppf((5e-10, 1 - 5e-10), at_once.size, one_by_one.size)
    assert least < ratio < most
    assert not least < 1 / devices < most  # the control: the noise of one share alone
