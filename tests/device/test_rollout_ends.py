"""The end of a rollout without the witness's cosignature, and grants in their time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import database
from clients.device.records import Records
from clients.device.store import Store
from clients.device.trust import Pins
from clients.rollout.belief import Held
from clients.rollout.state import Rollouts
from fa_core.errors import Refused
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication.rollout import RolloutManifest, State
from fa_core.secagg.identity import population_id
from fa_core.trust.grants import Grant
from fa_core.trust.strict import LARGEST
from tests.device.publishing import DAY, END, NEW, NEWEST, OLD, WORD, Publisher, document, granted
from tests.device.setup import KEY, NOW, POPULATION, RULES, SKEW, World

UNCOSIGNED = "not cosigned by the witness"
MODELS = {
    "baseline": {"version": "embed-2", "sha256": NEW.hex()},
    "candidate": {"version": "embed-3", "sha256": NEWEST.hex()},
    "floor": "embed-1",
}


@dataclass
class Device:
    """A device, and who publishes for it."""

    publisher: Publisher
    store: Store
    path: Path
    pins: Pins

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.store, self.pins, population_id(POPULATION))

    def receive(self, data: bytes, now: datetime = NOW) -> Held:
        return self.rollouts.receive(data, WORD, now)

    def hears(self, state: State, stage: int = 0, at: datetime | None = NOW, **changes: Any) -> Held:
        """Publish the next manifest, and receive it."""
        return self.receive(self.publisher.publish(self.publisher.manifest(state, stage, **changes), at=at))

    @property
    def held(self) -> Held:
        held = self.rollouts.held(WORD)
        assert held is not None
        return held

    @property
    def acting(self) -> bytes | None:
        return self.rollouts.choice(WORD, {OLD, NEW, NEWEST}, True, NOW).acting

    def journal(self, kind: str) -> int:
        return sum(each.kind == kind for each in self.store.entries())


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    path = tmp_path / "store.db"
    database.create(path, KEY)
    world = World(tmp_path)
    made = Device(Publisher(world), Store.open(path, KEY, RULES, NOW), path, world.pins())
    yield made
    made.store.close()


def everywhere(device: Device) -> Held:
    """The candidate acts on every device."""
    return device.hears("live", 3, share=Fraction(1))


# An end that no witness cosigned.


@pytest.mark.parametrize("end", ["rolled_back", "killed"])
@pytest.mark.parametrize("before", ["live", "complete"])
def test_a_candidate_is_taken_back_while_the_witness_is_away(
    device: Device, before: State, end: State
) -> None:
    """And the witness's log, time and manifest stay those of before."""
    held = device.hears(before, 3, share=Fraction(1))
    assert device.acting == NEW
    manifest = device.publisher.manifest(end, 3)
    data = device.publisher.publish(manifest, at=None)
    for _ in range(2):
        assert device.receive(data) == replace(held, manifest=manifest)
        assert device.acting == OLD
    device.store.close()
    device.store = Store.open(device.path, KEY, RULES, NOW)
    assert device.held == replace(held, manifest=manifest)
    cosigned = device.receive(device.publisher.publish(manifest))
    assert (cosigned.manifest, cosigned.cosigned) == (manifest, manifest)
    assert cosigned.seen.size > held.seen.size
    assert device.acting == OLD
    assert device.journal("rollout") == 2, "the end is one entry of the owner's journal"


Next = Callable[[Device], RolloutManifest]

HELD = document()
OTHER = document(2)


def _manifest(state: State, stage: int = 0, **changes: Any) -> Next:
    return lambda device: device.publisher.manifest(state, stage, **changes)


@pytest.mark.parametrize(
    "following",
    [
        _manifest("live", 2, share=Fraction(1, 2)),
        _manifest("live", 1),
        _manifest("live", 1, expires=NOW + 3 * DAY),
        _manifest("complete", 3),
        _manifest("shadow"),
    ],
    ids=["expansion", "hold", "renewal", "completion", "shadow again"],
)
def test_without_the_cosignature_nothing_but_an_end_is_believed(device: Device, following: Next) -> None:
    """The control: the same manifest is believed once it is cosigned."""
    held = device.hears("live", 1)
    manifest = following(device)
    with pytest.raises(Refused, match=UNCOSIGNED):
        device.receive(device.publisher.publish(manifest, at=None))
    assert device.held == held
    assert device.receive(device.publisher.publish(manifest)).manifest == manifest


@pytest.mark.parametrize("state", ["shadow", "live", "killed", "rolled_back"])
def test_without_the_cosignature_no_rollout_begins(device: Device, state: State) -> None:
    manifest = device.publisher.manifest(state, 1 if state == "live" else 0)
    with pytest.raises(Refused, match=UNCOSIGNED):
        device.receive(device.publisher.publish(manifest, at=None))
    assert device.rollouts.held(WORD) is None
    device.receive(device.publisher.publish(manifest))


@pytest.mark.parametrize("state", ["shadow", "killed", "rolled_back"])
def test_without_the_cosignature_another_rollout_neither_begins_nor_ends(
    device: Device, state: State
) -> None:
    held = device.hears("live", 1)
    manifest = device.publisher.manifest(state, rollout=OTHER)
    with pytest.raises(Refused, match=UNCOSIGNED):
        device.receive(device.publisher.publish(manifest, OTHER, at=None))
    assert device.held == held
    end = device.publisher.manifest("killed")
    with pytest.raises(Refused, match="of another rollout"):
        device.receive(device.publisher.publish(replace(end, rollout=manifest.rollout), at=None))
    assert device.receive(device.publisher.publish(end, at=None)).manifest == end


def test_an_end_without_the_cosignature_is_the_logs_and_comes_after_what_was_seen(device: Device) -> None:
    """Replayed, signed by another log, of one that forked, or of another than the invitations': refused."""
    early = device.publisher.manifest("killed")
    held = everywhere(device)
    with pytest.raises(Refused, match="a newer manifest was seen"):
        device.receive(device.publisher.publish(early, at=None))
    end, world = device.publisher.manifest("killed"), device.publisher.world
    own, world.log_key = world.log_key, Ed25519PrivateKey.generate()
    with pytest.raises(Refused, match="not signed by the log"):
        device.receive(device.publisher.publish(end, at=None))
    world.log_key = own
    leaves, world.leaves = world.leaves, [leaf_hash(b"another beginning"), *world.leaves[1:]]
    with pytest.raises(Refused, match="does not extend"):
        device.receive(device.publisher.publish(end, at=None))
    world.leaves = leaves
    records, seen = Records(device.store), Records(device.store).seen()
    with device.store.transaction(NOW):
        records.see(replace(seen, size=1, root=b"x" * 32, latest=NOW, first=NOW))
    with pytest.raises(Refused, match="does not extend"):
        device.receive(device.publisher.publish(end, at=None))
    with device.store.transaction(NOW):
        records.see(replace(seen, size=1, root=Tree(world.leaves[:1]).root, latest=NOW, first=NOW))
    assert device.held == held
    assert device.acting == NEW
    assert device.receive(device.publisher.publish(end, at=None)).manifest == end


def test_a_log_that_forks_after_an_end_without_the_cosignature_is_refused(device: Device) -> None:
    """It shows the device an end, and everybody else a log without it."""
    held = device.hears("live", 1)
    world, live = device.publisher.world, device.publisher.manifest("live", 1)
    before = [*world.leaves]
    device.hears("killed", at=None)
    world.leaves = [*before]
    without = device.publisher.publish(live)
    with pytest.raises(Refused, match="for good"):
        device.receive(without)
    world.leaves = [leaf_hash(b"another beginning"), *before[1:]]
    with pytest.raises(Refused, match="does not extend"):
        device.hears("killed")
    assert device.acting == OLD
    assert device.held.seen == held.seen
    with device.store.transaction(NOW):  # the control: who was shown no end goes on
        device.store.connection.execute("DELETE FROM rollout_ended")
    assert device.receive(without).manifest == live


def test_an_end_without_the_cosignature_locks_nothing_out(device: Device) -> None:
    """One with the highest number there is: the next rollout is followed as if it had not been."""
    device.hears("live", 1)
    end = device.publisher.manifest("killed")
    device.receive(device.publisher.publish(replace(end, sequence=LARGEST), at=None))
    assert device.acting == OLD
    later = device.publisher.manifest("shadow", rollout=OTHER)
    held = device.receive(device.publisher.publish(later, OTHER))
    assert (held.manifest, held.cosigned) == (later, later)


@pytest.mark.parametrize("from_candidate", [True, False])
def test_after_the_end_of_a_completed_rollout_the_next_goes_on_from_either_model(
    device: Device, from_candidate: bool
) -> None:
    """From the baseline, or from the candidate where the log never had the end. From no third one."""
    device.hears("complete", 3)
    device.hears("rolled_back", 3, at=None)
    third = document(4, models=MODELS | {"baseline": {"version": "embed-9", "sha256": "ee" * 32}})
    with pytest.raises(Refused, match="does not go on"):
        _shadow_of(device, third, bytes.fromhex("ee" * 32), NEWEST)
    made, models = (document(3, models=MODELS), (NEW, NEWEST)) if from_candidate else (OTHER, (OLD, NEW))
    assert _shadow_of(device, made, *models).manifest.state == "shadow"


def _shadow_of(device: Device, made: bytes, baseline: bytes, candidate: bytes) -> Held:
    manifest = device.publisher.manifest("shadow", rollout=made, baseline=baseline, candidate=candidate)
    return device.receive(device.publisher.publish(manifest, made))


def test_a_crash_while_an_end_is_kept_leaves_the_stage_of_before(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, end = everywhere(device), device.publisher.manifest("killed")
    data = device.publisher.publish(end, at=None)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(device.store, "append", crash)
        with pytest.raises(KeyboardInterrupt):
            device.receive(data)
    assert device.held == held
    assert device.receive(data).manifest == end


# Grants in their time.


def test_a_stage_is_entered_while_its_grant_is_in_force(device: Device) -> None:
    """A device that never saw the rollout takes no stage of long ago from whoever has the log's key alone."""
    witness = device.publisher.world.witness_key
    made = device.publisher.manifest("live", 1)
    for issued, expires, why in (
        (NOW - 8 * DAY, NOW, "has run out"),
        (NOW + 2 * SKEW, NOW + 9 * DAY, "of a time to come"),
    ):
        data = device.publisher.publish(granted(made, issued, expires, witness))
        with pytest.raises(Refused, match=why):
            device.receive(data)
    frozen = granted(made, NOW - 8 * DAY, NOW - DAY, witness)
    with pytest.raises(Refused, match="has run out"):  # by the device's clock, in a file of long ago
        device.receive(device.publisher.publish(frozen, at=NOW - 2 * DAY))
    for issued, expires in ((NOW - 8 * DAY, NOW + DAY / 24), (NOW + SKEW, NOW + 9 * DAY)):
        device.hears("live", 1, grant=granted(made, issued, expires, witness).grant)
        with device.store.transaction(NOW):
            device.store.connection.execute("DELETE FROM rollout")


def test_the_time_is_the_latest_that_the_witness_said(device: Device) -> None:
    """A clock that is set back lets no grant live on."""
    manifest = device.publisher.manifest("live", 1)
    until = granted(manifest, NOW - 7 * DAY, NOW + SKEW / 4, device.publisher.world.witness_key)
    with pytest.raises(Refused, match="has run out"):
        device.receive(device.publisher.publish(until, at=NOW + SKEW / 2))
    device.receive(device.publisher.publish(until))


def test_a_grants_time_is_signed(device: Device) -> None:
    made = device.publisher.manifest("live", 1)
    grant = Grant.decode(made.grant)
    assert grant.time == (NOW, NOW + 7 * DAY)
    longer = replace(grant, time=(NOW, NOW + 300 * DAY))
    with pytest.raises(Refused, match="not granted"):
        device.hears("live", 1, grant=longer.encode())
    device.hears("live", 1, grant=grant.encode())


def test_the_stage_that_is_held_is_renewed_with_a_grant_that_ran_out(device: Device) -> None:
    """A witness that is away for weeks ends no stage. No other stage is entered by such a grant."""
    first = device.hears("live", 1)
    later, grant = NOW + 30 * DAY, first.manifest.grant
    renewed = device.publisher.manifest("live", 1, issued=later, expires=later + 7 * DAY, grant=grant)
    assert device.receive(device.publisher.publish(renewed, at=later), later).manifest == renewed
    nexts = device.publisher.manifest("live", 2, share=Fraction(1, 2), issued=later, expires=later + 7 * DAY)
    with pytest.raises(Refused, match="has run out"):
        device.receive(device.publisher.publish(nexts, at=later), later)
    fresh = granted(nexts, later, later + 7 * DAY, device.publisher.world.witness_key)
    assert device.receive(device.publisher.publish(fresh, at=later), later).manifest == fresh


def test_a_completion_counts_where_it_was_in_the_log_by_the_rollouts_end(device: Device) -> None:
    """A device may learn of it years later; one that was logged after the end is not believed by anybody."""
    later = END + 20 * DAY
    made = device.publisher.manifest("complete", 3, issued=END - DAY, expires=END)
    late = device.publisher.publish(made, at=later)
    with pytest.raises(Refused, match="has run out"):
        device.receive(late, later)
    assert device.receive(device.publisher.publish(made, at=END - DAY / 2), later).manifest == made
    assert device.receive(late, later).manifest == made, "it is held"


def test_a_grant_of_before_lets_nobody_enter(device: Device) -> None:
    """It says no time. What was granted then can be read and verified all the same."""
    witness = device.publisher.world.witness_key
    made = device.publisher.manifest("live", 1)
    old = replace(made, grant=witness.sign(made.asked.message(None)))
    assert old.granted(device.pins.witness) == Grant(None, old.grant)
    assert RolloutManifest.from_entry(old.entry()) == old
    with pytest.raises(Refused, match="does not say until when"):
        device.receive(device.publisher.publish(old))
