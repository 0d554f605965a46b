"""No device answers what is not charged: row 1 of the privacy review, played through whole rounds.

The server is dishonest; devices and witness are the real ones, but for the broken controls beside each,
in which one of them looks at no charge. Every run says `simulated`: that is no way around the charge.
`opened` holds the sums that the server came to see.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients import party
from clients.device import trust
from clients.device.interface import Declined, Device, Reason, Stage
from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.plan import Plan, parse
from fa_core.privacy.ledger import BUDGETS, Charge, Policy
from fa_core.privacy.ledger_rows import Declaration, encode
from fa_core.rounds import run as running
from fa_core.secagg import MAX_ATTEMPTS, messages
from fa_core.secagg.identity import population_id
from fa_core.store import Inclusion, chain
from fa_core.trust import budgets, witness
from fa_core.trust.charges import ChargeProof, Keys, Round, paid
from fa_core.trust.witness import Witness
from fa_core.values import Release
from tests.rounds.small import NOW, POPULATION, World, plan_text, small_plan
from tests.secagg.lab import fresh_record

DEVICES = 8
PLAN = small_plan()
COST = PLAN.privacy.rho
AMPLE = Policy(*[Fraction(100)] * len(BUDGETS))
ONE_A_WEEK = replace(AMPLE, week=COST)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, DEVICES)
    made.give(AMPLE)
    store = made.store
    yield made
    store.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Release]:
    """The sums that the server has; it keeps them whatever its ledger says."""
    found: list[Release] = []
    monkeypatch.setattr(
        running, "write_release", lambda store, clock, release, *_, **__: found.append(release)
    )
    return found


class DishonestStore:
    """The aggregator's store, in which some methods do what the attack needs."""

    def __init__(self, store: Any, **instead: Any) -> None:
        self._store = store
        self.__dict__ |= instead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass(frozen=True)
class Row:
    """What `Store.charge` gives, as far as a run looks at it: where the log repeats the ledger's row."""

    log_index: int


@dataclass
class Listening:
    """Devices, and why they declined."""

    reasons: list[Reason] = field(default_factory=list)

    def __call__(self, number: int, device: Device) -> Device:
        return _Listened(device, self.reasons)


@dataclass
class _Listened:
    device: Device
    reasons: list[Reason]

    def handle(self, stage: Stage, request: bytes) -> bytes:
        try:
            return self.device.handle(stage, request)
        except Declined as declined:
            self.reasons.append(declined.reason)
            raise


def cheaper() -> Plan:
    text = plan_text(cohort=6).replace("epsilon: 1.0", "epsilon: 0.5")
    return parse(text.encode(), "small.yaml", today=NOW.date(), policy=None)


Patch = pytest.MonkeyPatch


def skips_the_charge(world: World, patch: Patch) -> None:
    world.store = DishonestStore(world.store, charge=lambda asked, _: Row(0))  # type: ignore[assignment]


def charges_less(world: World, patch: Patch) -> None:
    store, cheap = world.store, cheaper().privacy
    less = {"cost": cheap.rho, "epsilon": cheap.epsilon, "alpha": cheap.alpha}
    charge = lambda asked, _: store.charge(replace(asked, **less))  # noqa: E731
    world.store = DishonestStore(store, charge=charge)  # type: ignore[assignment]


def shows_another_releases_charge(world: World, patch: Patch) -> None:
    store, rows = world.store, []
    world.store = DishonestStore(store, charge=lambda asked, _: rows.append(store.charge(asked)) or rows[0])  # type: ignore[assignment]
    world.run(PLAN)
    world.store = DishonestStore(store, charge=lambda asked, _: rows[0])  # type: ignore[assignment]


def charges_population(name: str, signer: Callable[[World], Ed25519PrivateKey | None]) -> Callable[..., None]:
    """Return the attack that declares budgets by itself, or pays from those of another population."""

    def attack(world: World, patch: Patch) -> None:
        declared, key, store = Declaration(name, "zcdp", AMPLE, NOW), signer(world), world.store
        store.declare(declared if key is None else budgets.sign(declared, key))
        charge = lambda asked, _: store.charge(replace(asked, population=name))  # noqa: E731
        world.store = DishonestStore(store, charge=charge)  # type: ignore[assignment]
        patch.setattr(running, "require_budgets", lambda job, context: encode(store.declaration(name)))

    return attack


def charges_after_the_checkpoint(world: World, patch: Patch) -> None:
    """The log could still leave such a row out. The proof shown is that of the plan."""
    store, signers = world.store, world.signers

    def charge(asked: Charge, _: object) -> Row:
        store.checkpoint(signers.log_key, signers.witness)
        return Row(store.charge(asked).log_index)

    def prove(index: int) -> Inclusion:
        try:
            return store.prove(index)
        except BadInput:
            plan = store.prove(index - 1)
            return replace(plan, entry=store.entries(index, index + 1)[0])

    world.store = DishonestStore(store, charge=charge, prove=prove, checkpoint=lambda *_: None)  # type: ignore[assignment]


ATTACKS: dict[str, Callable[[World, Patch], None]] = {
    "skips the charge": skips_the_charge,
    "charges less than the plan costs": charges_less,
    "shows the charge of another release": shows_another_releases_charge,
    "pays from another population": charges_population("labs", lambda world: world.authority.key),
    "declares a second name": charges_population("small-2", lambda world: world.signers.log_key),
    "raises the budgets, unsigned": charges_population(POPULATION, lambda world: None),
    "raises the budgets, signed by itself": charges_population(
        POPULATION, lambda world: world.signers.log_key
    ),
    "charges after the checkpoint": charges_after_the_checkpoint,
}
ONLY_DEVICES_KNOW_THE_COST = "charges less than the plan costs"


def gullible_devices(patch: Patch) -> None:
    patch.setattr(trust, "_charged", lambda *_: None)
    patch.setattr(party, "covers", lambda *_: True)


def gullible_witness(patch: Patch) -> None:
    patch.setattr(Witness, "_require_charge", lambda *_: None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_devices_join_no_round_that_is_not_charged(
    world: World, opened: list[Release], monkeypatch: Patch, attack: str
) -> None:
    ATTACKS[attack](world, monkeypatch)
    before, listening = len(opened), Listening()
    with pytest.raises(RoundFailed, match="0 devices joined"):
        world.run(PLAN, listening)
    assert listening.reasons == DEVICES * [Reason.NOT_CHARGED]
    assert len(opened) == before


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each != ONLY_DEVICES_KNOW_THE_COST])
def test_the_witness_signs_no_roster_that_is_not_charged(
    world: World, opened: list[Release], monkeypatch: Patch, attack: str
) -> None:
    gullible_devices(monkeypatch)
    ATTACKS[attack](world, monkeypatch)
    before, signed = len(opened), len(rosters(world))
    with pytest.raises(RoundFailed, match="signs no roster that is not charged"):
        world.run(PLAN)
    assert len(opened) == before
    assert len(rosters(world)) == signed


@pytest.mark.parametrize("attack", ATTACKS)
def test_where_neither_looks_at_the_charge_the_attack_succeeds(
    world: World, opened: list[Release], monkeypatch: Patch, attack: str
) -> None:
    """The broken control: without the checks, the server has its sum."""
    gullible_devices(monkeypatch)
    gullible_witness(monkeypatch)
    ATTACKS[attack](world, monkeypatch)
    before = len(opened)
    world.run(PLAN)
    assert len(opened) == before + 1


def test_an_honest_server_is_answered(world: World, opened: list[Release]) -> None:
    listening = Listening()
    world.run(PLAN, listening)
    assert (len(opened), listening.reasons) == (1, [])
    (charge,) = spent(world)
    (in_ledger,) = world.store.charges(POPULATION)
    assert charge == in_ledger


def spent(world: World) -> tuple[Charge, ...]:
    """What the witness counts."""
    return restarted(world, NOW).charges()


def rosters(world: World) -> list[Path]:
    return sorted((world.folder / "local" / "witness").glob("*-roster"))


def restarted(world: World, now: datetime) -> Witness:
    """The witness after a restart, at another time by its clock."""
    before = world.signers.witness
    assert isinstance(before, Witness)
    return Witness(before._key, before._authority, before._journal._directory, before._log, lambda: now)


def at(world: World, now: datetime) -> None:
    """Restart the witness with its clock at `now`."""
    world.signers = replace(world.signers, witness=restarted(world, now))


def without_limits(patch: Patch, where: Any) -> None:
    """Take the sum over past charges away: what a ledger, or a witness, does that looks at none."""
    patch.setattr(where, "admit", lambda *_: None)


def test_a_server_whose_clock_runs_ahead_frees_no_budget(world: World, opened: list[Release]) -> None:
    world.give(ONE_A_WEEK)
    world.run(PLAN)
    world.today = lambda: NOW + timedelta(days=8)
    with pytest.raises(RoundFailed, match="week budget"):
        world.run(PLAN)
    assert len(opened) == 1
    assert len(world.store.charges(POPULATION)) == 2, "the ledger's own clock let it pass, and it stands"
    assert len(spent(world)) == 1
    at(world, NOW + timedelta(days=7))
    world.today = lambda: NOW + timedelta(days=16)
    world.run(PLAN)
    assert len(opened) == 2


def test_a_witness_that_took_the_servers_time_would_sign(world: World, opened: list[Release]) -> None:
    """The broken control: a witness whose clock is the server's."""
    world.give(ONE_A_WEEK)
    world.run(PLAN)
    world.today = lambda: NOW + timedelta(days=8)
    at(world, world.today())
    world.run(PLAN)
    assert len(opened) == 2


def test_a_window_is_not_summed_again_by_a_ledger_that_forgets(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """The review's attack: three sums of one window, with honest devices and an honest witness."""
    world.give(replace(AMPLE, window=COST))
    without_limits(monkeypatch, chain)
    world.run(PLAN)
    for _ in range(2):
        with pytest.raises(RoundFailed, match="window budget"):
            world.run(PLAN)
    assert len(opened) == 1


def test_where_the_witness_keeps_no_sum_a_window_is_summed_three_times(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """The broken control."""
    world.give(replace(AMPLE, window=COST))
    without_limits(monkeypatch, chain)
    without_limits(monkeypatch, witness)
    for _ in range(3):
        world.run(PLAN)
    assert len(opened) == 3


@pytest.mark.parametrize("now", [NOW, NOW - timedelta(days=400)])
def test_a_restart_and_a_clock_set_back_free_nothing(
    world: World, opened: list[Release], monkeypatch: Patch, now: datetime
) -> None:
    world.give(ONE_A_WEEK)
    without_limits(monkeypatch, chain)
    world.run(PLAN)
    at(world, now)
    with pytest.raises(RoundFailed, match="week budget"):
        world.run(PLAN)
    assert len(opened) == 1


def test_a_witness_that_forgets_its_journal_would_sign_again(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """The broken control: charges are kept, but not looked up after the restart."""
    world.give(ONE_A_WEEK)
    without_limits(monkeypatch, chain)
    world.run(PLAN)
    at(world, NOW)
    monkeypatch.setattr(Witness, "charges", lambda _: ())
    world.run(PLAN)
    assert len(opened) == 2


def set_back_and_forth(world: World, monkeypatch: Patch) -> None:
    """Two releases a week: one now, one with the witness's clock set back, and one with it right again."""
    world.give(replace(AMPLE, week=2 * COST))
    without_limits(monkeypatch, chain)
    for now in (NOW, NOW - timedelta(days=400), NOW):
        at(world, now)
        world.run(PLAN)


def test_what_was_signed_under_a_clock_set_back_still_counts(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    with pytest.raises(RoundFailed, match="week budget"):
        set_back_and_forth(world, monkeypatch)
    assert len(opened) == 2
    assert [each.at for each in spent(world)] == [NOW, NOW]


def test_at_the_clocks_word_it_would_have_lapsed(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """The broken control: a witness that stamps a charge with its clock, wherever that was set."""

    def newest(*values: Any) -> Any:
        given = values[0] if len(values) == 1 else values
        return given[0] if isinstance(given, list) and isinstance(given[0], datetime) else max(given)

    monkeypatch.setattr(witness, "max", newest, raising=False)
    set_back_and_forth(world, monkeypatch)
    assert len(opened) == 3


def crash_at_masked(number: int, device: Device) -> Device:
    class Crashing:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == "masked" and number < 4:
                raise RuntimeError
            return device.handle(stage, request)

    return Crashing()


def test_a_failed_round_keeps_its_charge(world: World, opened: list[Release], monkeypatch: Patch) -> None:
    world.give(ONE_A_WEEK)
    with pytest.raises(RoundFailed, match="must remain"):
        world.run(PLAN, crash_at_masked)
    assert spent(world) == world.store.charges(POPULATION)
    with pytest.raises(Refused, match="week budget"):
        world.run(PLAN)
    without_limits(monkeypatch, chain)
    with pytest.raises(RoundFailed, match="week budget"):
        world.run(PLAN)
    assert opened == []


def test_a_failed_round_that_gave_its_charge_back_would_be_a_second_try(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """The broken control: a witness that forgets a charge whose round ended in nothing."""
    world.give(ONE_A_WEEK)
    with pytest.raises(RoundFailed, match="must remain"):
        world.run(PLAN, crash_at_masked)
    for kept in (world.folder / "local" / "witness").glob("*-charge"):
        kept.unlink()
    without_limits(monkeypatch, chain)
    world.run(PLAN)
    assert len(opened) == 1


def silent_after_joining(number: int, device: Device) -> Device:
    class Silent:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage != "join":
                raise RuntimeError
            return device.handle(stage, request)

    return Silent()


def rosters_drawn(world: World, patch: Patch) -> int:
    """A server that throws rosters away until a ring suits it: how many of them the witness signs.

    It picks the ids: it begins release after release, pays while it can, and tries more attempts at each, and
    other ids under the same charge. Both budgets have room for two releases of the window.
    """
    world.give(replace(AMPLE, window=2 * COST))
    without_limits(patch, chain)
    asked: list[bytes] = []
    sign = Witness.sign_roster
    patch.setattr(Witness, "sign_roster", lambda self, request: asked.append(request) or sign(self, request))
    for _ in range(5):
        with suppress(RoundFailed):
            world.run(PLAN, silent_after_joining)
    signer, puppets = world.signers.witness, [world.authority.enrol(POPULATION) for _ in range(DEVICES)]
    assert isinstance(signer, Witness)
    for request in tuple(asked):
        task, proof, _ = messages.read_roster_request(request)
        others = [replace(task, attempt=attempt) for attempt in range(1, 2 * MAX_ATTEMPTS)]
        for other in [*others, replace(task, release=token_bytes(16))]:
            records = [fresh_record(puppet, other) for puppet in puppets]
            with suppress(Refused):
                signer.sign_roster(messages.roster_request(other, proof, records))
    return len(rosters(world))


def test_a_server_that_picks_the_ids_draws_four_rosters_a_charge_and_no_more(
    world: World, opened: list[Release], monkeypatch: Patch
) -> None:
    """Row 10: the attempts at a release are a limit, since each release has its own charge in the budgets."""
    assert rosters_drawn(world, monkeypatch) == 2 * MAX_ATTEMPTS
    assert opened == []


MORE_ROSTERS: dict[str, tuple[Callable[[Patch], None], int]] = {
    "keeps no sum": (lambda patch: without_limits(patch, witness), 5 * MAX_ATTEMPTS),
    "looks at no charge": (gullible_witness, 5 * MAX_ATTEMPTS + 5),
    "counts no attempts": (
        lambda patch: patch.setattr(witness, "MAX_ATTEMPTS", 100),
        2 * 2 * MAX_ATTEMPTS,
    ),
}


@pytest.mark.parametrize("control", MORE_ROSTERS)
def test_a_witness_that_does_not_bind_attempts_to_charges_is_caught(
    world: World, monkeypatch: Patch, control: str
) -> None:
    careless, drawn = MORE_ROSTERS[control]
    careless(monkeypatch)
    assert rosters_drawn(world, monkeypatch) == drawn


def test_budgets_that_were_replaced_do_not_come_back(world: World, opened: list[Release]) -> None:
    """A server that still holds the authority's earlier, larger budgets cannot show them again."""
    larger = world.store.declaration(POPULATION)
    world.give(ONE_A_WEEK, NOW + timedelta(hours=1))
    world.run(PLAN)
    assert larger is not None
    world.store.declare(larger)
    with pytest.raises(RoundFailed, match="newer budgets of population small are known"):
        world.run(PLAN)
    assert len(opened) == 1


FORGERIES: dict[str, Callable[[Any], Any]] = {
    "row": lambda row: row.replace(b"small", b"large"),
    "index": lambda index: index - 1,
    "inclusion": lambda path: path[:-1],
    "checkpoint": lambda note: note[:-2] + b"\n",
    "budgets": lambda body: body.replace(b"100", b"900"),
}


def test_every_field_of_the_proof_counts(world: World, opened: list[Release], monkeypatch: Patch) -> None:
    shown: list[ChargeProof] = []

    class Recording(running.Server):
        def __init__(self, *given: Any) -> None:
            shown.append(ChargeProof.decode(given[-1]))
            super().__init__(*given)

    monkeypatch.setattr(running, "Server", Recording)
    world.run(PLAN)
    (proof,), (charge,) = shown, world.store.charges(POPULATION)
    keys = Keys(world.authority.public_key, world.pins.log, world.pins.witness)
    about = Round(bytes.fromhex(charge.release), bytes.fromhex(charge.plan_hash), population_id(POPULATION))
    assert paid(proof, about, keys)[0] == charge
    for name, forge in FORGERIES.items():
        forged = replace(proof, **{name: forge(getattr(proof, name))})
        assert forged != proof
        with pytest.raises(BadInput):
            paid(forged, about, keys)
    for name, size in (("release", 16), ("plan_hash", 32), ("population", 32)):
        with pytest.raises(BadInput, match="of another"):
            paid(proof, replace(about, **{name: bytes(size)}), keys)
    for garbage in (b"", b"\0", proof.encode()[:-1], proof.encode() + b"\0", bytes(2 << 20)):
        with pytest.raises(BadInput, match="not the proof of a charge"):
            ChargeProof.decode(garbage)
