"""A run ends as one release or one failure, charged before any device is asked, and exact before noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from clients import party
from clients.device.interface import Declined, Device, Reason
from clients.evaluate import device_vectors, seeded_randomness
from fa_core.errors import Refused, RoundFailed
from fa_core.layout import compile_plan, require_headroom
from fa_core.plan import Plan, parse
from fa_core.privacy.distributed import Share, shares_of
from fa_core.privacy.ledger import DEFAULT_POLICIES, Charge, claim_holds
from fa_core.privacy.reservations import Planned, Reservation
from fa_core.rounds import run as running
from fa_core.rounds.run import check_range, invite
from fa_core.secagg import Result
from fa_core.values import Int64Array, Layout
from fa_core.wire.invitation import decode
from tests.rounds.fakes import CANARY
from tests.rounds.small import NOW, POPULATION, SEED, UNTIL, World, plan_text, small_plan

DEVICES = 10
STAGES = ("join", "shares", "confirm", "masked", "unmask")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, DEVICES)
    yield made
    made.store.close()


@pytest.fixture
def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the noise away, so that what is below it can be compared bit for bit."""

    def factored(layout: Layout, vector: Int64Array, shares: tuple[Share, ...]) -> Int64Array:
        return vector * np.repeat([share.scale for share in shares], [block.cells for block in layout.blocks])

    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    monkeypatch.setattr(party, "noise_share", factored)


@dataclass
class Spoiled:
    """A device that does something else at one stage."""

    device: Device
    stage: str
    instead: Callable[[bytes], bytes]

    def handle(self, stage: str, request: bytes) -> bytes:
        if stage == self.stage:
            return self.instead(request)
        return self.device.handle(stage, request)


def decline(request: bytes) -> bytes:
    raise Declined(Reason.CONSENT)


def crash(request: bytes) -> bytes:
    raise RuntimeError(CANARY)


def garbage(request: bytes) -> bytes:
    return request[::-1]


def echo(request: bytes) -> bytes:
    return request


def some(stage: str, instead: Callable[[bytes], bytes], *numbers: int) -> Callable[[int, Device], Device]:
    """Spoil these devices at this stage."""
    return lambda number, device: Spoiled(device, stage, instead) if number in numbers else device


@pytest.mark.usefixtures("noiseless")
@pytest.mark.parametrize("fault", [decline, crash, garbage, echo])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("noise", "secure"), [("central", True), ("distributed", True), ("central", False)])
def test_the_sum_equals_numpys_over_the_devices_that_completed_the_round(
    world: World, noise: str, secure: bool, stage: str, fault: Callable[[bytes], bytes]
) -> None:
    plan = small_plan(noise=noise, secure=secure)
    release, _ = world.run(plan, some(stage, fault, 3, 7))
    touched = secure or stage in ("join", "masked")
    gone = [3, 7] if touched and stage != "unmask" else []
    exact = np.delete(world.vectors(plan), gone, axis=0).sum(axis=0)
    scales = np.repeat(release.scales, [block.cells for block in release.layout.blocks])
    assert np.array_equal(release.sums, exact * scales)
    assert release.participation.invited == DEVICES
    assert release.participation.joined == DEVICES - (2 if stage == "join" else 0)
    assert release.participation.counted == DEVICES - len(gone)
    assert release.secure_aggregation is secure
    layout, counted = release.layout, release.participation.counted
    if noise == "distributed":
        shares = shares_of(layout, release.participation.joined, Fraction(3, 10), Fraction(0))
        expected = [float(counted * share.variance / share.scale**2) for share in shares]
    else:
        expected = [float(block.variance) for block in layout.blocks]
    assert release.noise_variance.tolist() == expected


@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_a_release_is_stored_with_its_noise_and_its_charge(world: World, noise: str) -> None:
    plan = small_plan(noise=noise)
    release, estimates = world.run(plan)
    found = world.store.find("latest")
    stored, numbers = world.store.read(found)
    assert (found.id, found.simulated, found.synthetic, found.counted) == (release.id, True, True, DEVICES)
    assert np.array_equal(stored.sums, release.sums)
    assert numbers == estimates
    (charge,) = world.store.charges("small")
    assert (charge.release, charge.cost) == (release.id, release.layout.cost)
    assert (charge.cost, charge.alpha) == (plan.privacy.rho, plan.privacy.alpha)
    assert claim_holds(charge)
    kinds = ["ledger", "key", "plan", "ledger", "key", "release"]
    assert [entry.kind for entry in world.store.entries()] == kinds
    assert world.store.verify_ledger() == world.store.verify_log() == []


@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_the_noise_is_as_large_as_the_release_says(world: World, noise: str) -> None:
    """Chi-square over 38 cells: outside [6, 115] with probability under 2e-9."""
    plan = small_plan(noise=noise)
    release, _ = world.run(plan)
    cells = [block.cells for block in release.layout.blocks]
    scales, variance = np.repeat(release.scales, cells), np.repeat(release.noise_variance, cells)
    off = release.sums / scales - world.vectors(plan).sum(axis=0)
    assert 6 < float((off**2 / variance).sum()) < 115


def test_under_distributed_noise_the_server_never_has_an_exact_sum(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the protocol hands to the server is noised already; without the devices' shares it is not.

    A noised cell is exact by chance with probability under 0.05, 12 of 38 with one under 1e-6.
    """
    plan = small_plan(noise="distributed")
    totals: list[Int64Array] = []
    real = running.noised

    def watched(layout: Layout, result: Result, *shares: Fraction) -> object:
        totals.append(result.total)
        return real(layout, result, *shares)

    monkeypatch.setattr(running, "noised", watched)
    release, _ = world.run(plan)
    monkeypatch.setattr(party, "noise_share", lambda layout, vector, shares: vector)
    world.run(plan)
    exact, cells = world.vectors(plan).sum(axis=0), [block.cells for block in release.layout.blocks]
    assert int((totals[0] == exact * np.repeat(release.scales, cells)).sum()) < 12
    assert np.array_equal(totals[1], exact)


def nothing_released(world: World) -> None:
    assert world.store.count() == 0
    assert not list((world.folder / "store" / "releases").iterdir())


@pytest.mark.parametrize("stage", STAGES)
def test_too_many_dropouts_release_nothing(world: World, stage: str) -> None:
    needed = 6 if stage == "join" else 7
    with pytest.raises(RoundFailed, match=f"at {stage}: .*(at least 7|needs 6)") as caught:
        world.run(small_plan(), some(stage, crash, *range(needed - 1, DEVICES)))
    assert caught.value.exit_code == 4
    nothing_released(world)
    (failure,) = world.store.failures()
    assert (failure.stage, failure.reason) == (stage, str(caught.value))
    assert [charge.release for charge in world.store.charges("small")] == [failure.release]
    kinds = ["ledger", "key", "plan", "ledger", "key", "failure"]
    assert [entry.kind for entry in world.store.entries()] == kinds
    assert CANARY not in failure.reason


def test_the_next_run_after_a_failure_works(world: World) -> None:
    with pytest.raises(RoundFailed):
        world.run(small_plan(), some("masked", crash, *range(6)))
    release, _ = world.run(small_plan())
    assert world.store.find("latest").id == release.id
    assert len(world.store.charges("small")) == 2


def test_over_budget_no_device_is_asked_and_nothing_is_charged(world: World) -> None:
    tight = replace(DEFAULT_POLICIES["zcdp"], release=Fraction(1, 10**6))
    world.give(tight)
    asked: list[int] = []

    def note(number: int, device: Device) -> Device:
        asked.append(number)
        return device

    with pytest.raises(Refused, match="release budget") as caught:
        world.run(small_plan(), note)
    assert caught.value.exit_code == 3
    nothing_released(world)
    assert not asked
    assert not world.store.failures()
    assert not world.store.charges("small")
    (refusal,) = world.store.refusals()
    assert (refusal.plan, refusal.population, refusal.reason) == ("small", "small", str(caught.value))


def test_the_charge_is_in_the_ledger_before_a_device_is_asked(world: World) -> None:
    charged: list[int] = []

    def note(number: int, device: Device) -> Device:
        charged.append(len(world.store.charges("small")))
        return device

    world.run(small_plan(), note)
    assert set(charged) == {1}


def test_too_few_devices_are_not_asked_at_all(world: World) -> None:
    with pytest.raises(Refused, match="would ask 10 of 10 devices"):
        world.run(small_plan(cohort=11))
    assert [entry.kind for entry in world.store.entries()] == ["ledger"], "its budgets and nothing more"
    assert [refusal.plan for refusal in world.store.refusals()] == ["small"]


def test_a_sum_that_no_honest_devices_make_is_not_released(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = party.SimulatedFleet._counts
    monkeypatch.setattr(party.SimulatedFleet, "_counts", lambda *args: real(*args) + 10**6)
    with pytest.raises(RoundFailed, match="more than 10 devices may add"):
        world.run(small_plan())
    nothing_released(world)
    assert len(world.store.failures()) == 1


def test_the_range_check_uses_the_noised_sum_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is public: if it depended on the exact sum, a device that adds just enough could read it."""
    layout = compile_plan(small_plan())
    tail = int(40 * float(layout.blocks[0].variance) ** 0.5) + 1
    over = np.zeros(layout.length, np.int64)
    over[0] = 10 * layout.blocks[0].linf + tail
    share = Fraction(1, 10)
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums - 2)
    running.noised(layout, Result(over, 10, tuple(range(10)), {}), share, share)
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums + 2)
    with pytest.raises(RoundFailed, match="more than 10 devices may add"):
        running.noised(layout, Result(over - 2, 10, tuple(range(10)), {}), share, share)


def test_more_devices_than_sums_are_laid_out_for_are_not_asked_for_a_vector(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_COHORT", DEVICES - 1)
    with pytest.raises(RoundFailed, match="sums are laid out for 9"):
        world.run(small_plan())
    nothing_released(world)


def test_a_round_that_is_stopped_is_a_failure_in_the_store(world: World) -> None:
    asked: list[int] = []

    def note(number: int, device: Device) -> Device:
        asked.append(number)
        return device

    world.stopped = lambda: len(asked) > DEVICES
    with pytest.raises(RoundFailed, match="stopped at stage"):
        world.run(small_plan(), note)
    nothing_released(world)
    assert len(world.store.failures()) == 1


def test_a_round_that_would_use_up_what_is_set_aside_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked, and nothing is charged; the control is every other test here."""
    cost = compile_plan(small_plan()).cost

    def of_a_rollout(entries: object, population: str, charges: object, at: datetime) -> tuple[Reservation]:
        rest = DEFAULT_POLICIES["zcdp"].week - cost / 2
        asked = Charge(
            population, "gate", "look 1", "", "zcdp", rest, Fraction(0), Fraction(0),
            at - timedelta(days=7), at, at,
        )  # fmt: skip
        return (Reservation("rollout embed-2@1", (Planned("look 1", asked),)),)

    monkeypatch.setattr(running, "set_aside", of_a_rollout)
    with pytest.raises(Refused, match="rollout embed-2@1 has set budget aside"):
        world.run(small_plan())
    assert not world.store.charges(POPULATION)
    (refusal,) = world.store.refusals()
    assert "look 1 of rollout embed-2@1" in refusal.reason


def test_a_round_that_is_stopped_before_it_begins_costs_nothing(world: World) -> None:
    world.stopped = lambda: True
    with pytest.raises(RoundFailed, match="stopped"):
        world.run(small_plan())
    assert not world.store.charges("small")


@pytest.mark.parametrize("error", [ZeroDivisionError(CANARY), KeyboardInterrupt()])
def test_a_defect_after_the_charge_is_a_failure_too(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(release: object) -> None:
        raise error

    monkeypatch.setattr(running, "estimate", broken)
    with pytest.raises(type(error)):
        world.run(small_plan())
    nothing_released(world)
    (failure,) = world.store.failures()
    assert failure.stage == "release"
    assert CANARY not in failure.reason


def test_a_devices_vector_does_not_depend_on_the_other_devices(world: World, tmp_path: Path) -> None:
    plan = small_plan()
    few = World.make(tmp_path / "few", DEVICES)
    part = few.cohort.part(4, 7)
    alone = device_vectors(plan, compile_plan(plan), part, UNTIL, seeded_randomness(SEED))
    few.store.close()
    assert np.array_equal(alone, world.vectors(plan)[4:7])


@pytest.mark.parametrize(("sample", "size"), [("1", 40), ("0.5", 20), ("0.26", 11)])
def test_as_many_nodes_are_invited_as_the_plan_says(sample: str, size: int) -> None:
    invited = invite(list(range(1, 41)), Fraction(sample))
    assert len(set(invited)) == len(invited) == size
    assert set(invited) <= set(range(1, 41))


def test_a_sample_that_is_too_small_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="would ask 5 of 10 devices"):
        world.run(small_plan(sample="0.45"))


def test_a_cohort_that_no_protocol_can_serve_costs_nothing(tmp_path: Path) -> None:
    world = World.make(tmp_path, 11)
    with pytest.raises(
        Refused, match=r"no secure sum can tolerate `dropout` 0\.4 and `corrupt` 0\.095; ask 12"
    ):
        world.run(small_plan(dropout="0.4", corrupt="0.095"))
    assert [entry.kind for entry in world.store.entries()] == ["ledger"], "its budgets and nothing more"
    world.store.close()


def test_every_node_is_invited_about_equally_often() -> None:
    """2,000 draws of 20 of 40: each count is within 6.5 sigma of 1,000, but for one run in 10^8."""
    often = np.zeros(40)
    for _ in range(2000):
        often[invite(list(range(40)), Fraction(1, 2))] += 1
    assert np.abs(often - 1000).max() < 6.5 * np.sqrt(500)


def test_the_range_check_knows_the_scale() -> None:
    layout = compile_plan(small_plan(noise="distributed"))
    ones = np.ones(len(layout.blocks))
    sums = np.zeros(layout.length, np.int64)
    sums[0] = 10 * layout.blocks[0].linf * 4
    check_range(layout, sums, 10, 4 * ones.astype(np.int64), 0 * ones)
    with pytest.raises(RoundFailed):
        check_range(layout, sums, 10, 2 * ones.astype(np.int64), 0 * ones)


def crowded(linf: int, variance: Fraction, bits: int) -> Layout:
    """A layout of one block."""
    whole = compile_plan(small_plan())
    block = replace(whole.blocks[0], linf=linf, variance=variance)
    return replace(whole, blocks=(block,), modulus_bits=bits)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [32, 64])
def test_a_ring_holds_the_sum_and_the_servers_noise_up_to_its_sign(bits: int) -> None:
    """To one unit of the bound of ten devices: 40 standard deviations of noise fit beside their sum."""
    tail, sign = 40 * (2**20 + 1), 2 ** (bits - 1)
    most = (sign - 1 - tail) // 10
    slack = 0 if bits == 32 else 2**10  # what a float of that size cannot distinguish
    require_headroom(crowded(most - slack, Fraction(2**40), bits), 10)
    for layout, devices in (
        (crowded(most + 1 + slack, Fraction(2**40), bits), 10),
        (crowded(most - slack, Fraction(2**40), bits), 11),
        (crowded(most - slack, Fraction(2**42), bits), 10),
    ):
        with pytest.raises(Refused, match=f"noise included, does not fit {bits} bits"):
            require_headroom(layout, devices)


def test_too_many_joined_for_the_ring_are_not_summed_up() -> None:
    layout, share = crowded(2**27, Fraction(2**40), 32), Fraction(0)
    total = np.zeros(layout.length, np.int64)
    running.noised(layout, Result(total, 15, tuple(range(15)), {}), share, share)
    with pytest.raises(Refused, match="does not fit 32 bits"):
        running.noised(layout, Result(total, 16, tuple(range(15)), {}), share, share)


def at_the_bound(*_: object) -> Int64Array:
    layout = compile_plan(means())
    return np.concatenate([np.full(block.cells, block.linf) for block in layout.blocks])


def means() -> Plan:
    text = plan_text(cohort=6, events=64).replace("kind: histogram", "kind: mean")
    text = text.replace("edges: {from: 0, to: 1, bins: 5}", "clip: {from: 0, to: 1}")
    return parse(text.encode(), "small.yaml", today=NOW.date(), policy=None)


def test_a_ring_that_is_too_small_is_refused_before_anything_is_charged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring that holds ten devices' counts and not their squares, as a careless compiler would choose it."""
    monkeypatch.setattr("fa_core.layout._modulus_bits", lambda _: 32)
    with pytest.raises(Refused, match="the sum of 10 devices, noise included, does not fit 32 bits"):
        world.run(means())
    assert world.store.charges(POPULATION) == ()


def test_without_the_check_a_sum_wraps_and_is_released(
    world: World, noiseless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control: nobody can tell the sum from another."""
    monkeypatch.setattr(party.SimulatedFleet, "_counts", at_the_bound)
    right = world.run(means())[0].sums
    monkeypatch.setattr("fa_core.layout._modulus_bits", lambda _: 32)
    monkeypatch.setattr(running, "require_headroom", lambda *_: None)
    wrapped = world.run(means())[0].sums
    assert right.tolist() == (DEVICES * at_the_bound()).tolist()
    assert np.any(wrapped != right)
    assert np.all((wrapped - right) % 2**32 == 0)


@pytest.mark.parametrize("cell", [-(2**63), 2**63 - 1])
def test_the_range_check_finds_what_has_no_absolute_value(cell: int) -> None:
    layout = crowded(2**20, Fraction(1), 64)
    sums = np.zeros(layout.length, np.int64)
    sums[0] = cell
    with pytest.raises(RoundFailed, match="more than 10 devices may add"):
        check_range(layout, sums, 10, np.ones(1, np.int64), np.ones(1))


def test_an_invitation_has_no_more_earlier_checkpoints_than_a_device_reads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def listening(number: int, device: Device) -> Device:
        def join(request: bytes) -> bytes:
            asked.append(request)
            return device.handle("join", request)

        return Spoiled(device, "join", join)

    plan = small_plan()
    world.run(plan)
    world.run(plan, listening)
    before = sorted(decode(asked[-1]).consistency)
    monkeypatch.setattr(running, "MAX_CHECKPOINTS", 1)
    world.run(plan, listening)
    (newest,) = decode(asked[-1]).consistency
    assert len(before) == 2
    assert newest > before[-1]
