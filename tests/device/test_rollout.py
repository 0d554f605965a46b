"""What a device believes of a rollout, which model acts on it, and what it remembers of both."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from clients.device import database
from clients.device.journal import broken_at, sentence
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Store
from clients.device.trust import Pins
from clients.rollout.acting import Choice, bucket
from clients.rollout.belief import Held
from clients.rollout.state import Rollouts
from fa_core.errors import Refused
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication.rollout import State
from fa_core.publication.signed import SignedDocument
from fa_core.secagg.identity import population_id
from tests.device.publishing import DAY, NEW, NEWEST, OLD, WORD, Publisher, document, granted
from tests.device.setup import KEY, NOW, POPULATION, RULES, World

HERE = frozenset({OLD, NEW, NEWEST})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def publisher(world: World) -> Publisher:
    return Publisher(world)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database.create(tmp_path / "store.db", KEY)
    made = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    yield made
    made.close()


@pytest.fixture
def rollouts(store: Store, world: World) -> Rollouts:
    return Rollouts(store, world.pins(), population_id(POPULATION))


Receive = Callable[[bytes], Held]


@pytest.fixture
def receive(rollouts: Rollouts) -> Receive:
    return lambda data: rollouts.receive(data, WORD, NOW)


def chosen(
    rollouts: Rollouts, models: frozenset[bytes] = HERE, charging: bool | None = True, days: float = 0
) -> Choice:
    return rollouts.choice(WORD, models, charging, NOW + days * DAY)


# What is believed.


def test_a_rollout_is_followed_from_shadow_to_its_completion(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store
) -> None:
    assert chosen(rollouts) == Choice(None, None, "there is no rollout")
    for manifest in (
        publisher.manifest("shadow"),
        publisher.manifest("live", 1),
        publisher.manifest("live", 2, share=Fraction(1, 2)),
        publisher.manifest("live", 2, share=Fraction(1, 2), issued=NOW + DAY / 2, expires=NOW + 7 * DAY),
        publisher.manifest("live", 3, share=Fraction(1)),
        publisher.manifest("complete", 3),
    ):
        assert receive(publisher.publish(manifest)).manifest == manifest
    said = [sentence(each) for each in store.entries() if each.kind == "rollout"]
    assert said == [
        "Rollout embed@1 for okay_nabu is shadow: embed-1 acts, and embed-2 scores too.",
        "Rollout embed@1 for okay_nabu is live: embed-2 acts on 0.1 of the devices.",
        "Rollout embed@1 for okay_nabu is live: embed-2 acts on 0.5 of the devices.",
        "Rollout embed@1 for okay_nabu is live: embed-2 acts on 1 of the devices.",
        "Rollout embed@1 for okay_nabu is complete: embed-2 acts on every device.",
    ]
    assert chosen(rollouts, days=300) == Choice(NEW, None, "embed-2 acts: embed@1 is complete")
    assert broken_at(store.entries()) is None
    assert problems(store, None) == []


Spoil = Callable[[Publisher], bytes]


def _stolen(publisher: Publisher) -> bytes:
    """A log key alone: the stage is granted by somebody else."""
    manifest, other = publisher.manifest("live", 1), Ed25519PrivateKey.generate()
    return publisher.publish(granted(manifest, NOW, NOW + DAY, other))


def _of(**changes: Any) -> Spoil:
    return lambda publisher: publisher.publish(publisher.manifest("shadow", **changes))


def _from(**changes: Any) -> Spoil:
    """A document with changes, and a manifest of it."""
    made = document(**changes)
    return lambda publisher: publisher.publish(publisher.manifest("shadow", rollout=made), made)


MODELS = json.loads(document())["models"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: p.publish(p.manifest("shadow"), key=Ed25519PrivateKey.generate()), "not signed by a key"),
        (lambda p: p.publish(p.manifest("shadow")) + b" ", "no publication"),
        (lambda p: p.file(p.manifest("shadow").entry()), "not a rollout and its manifest"),
        (
            lambda p: p.file(p.manifest("shadow").entry(), p.manifest("shadow").entry()),
            "not one that this version",
        ),
        (_from(lease="soon"), "not one that this version"),
        (_of(rollout=b"other" * 10), "of another rollout"),
        (_of(candidate=NEWEST), "of other models than were signed"),
        (_of(population="offices"), "for another population"),
        (_from(population="offices"), "for another population"),
        (_of(wake_word="alexa"), "for another wake word"),
        (_from(wake_word="alexa"), "for another wake word"),
        (_of(stage=1), "stage is not one of those"),
        (_of(stage=9), "stage is not one of those"),
        (lambda p: p.publish(p.manifest("live", 1, share=Fraction(1, 5))), "stage is not one of those"),
        (lambda p: p.publish(p.manifest("live", 1, grant=b"")), "not granted"),
        (lambda p: p.publish(p.manifest("complete", 3, grant=b"")), "not granted"),
        (_stolen, "not granted"),
        (_of(expires=NOW + 8 * DAY), "lease is longer"),
        (_of(issued=NOW + 2 * DAY, expires=NOW + 9 * DAY), "clock"),
        (_from(models=MODELS | {"floor": "embed-1.5"}), "older than this device may load"),
    ],
)
def test_what_is_not_sound_is_refused_and_nothing_changes(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store, spoil: Spoil, why: str
) -> None:
    data = spoil(publisher)
    for _ in range(2):
        with pytest.raises(Refused, match=why):
            receive(data)
    assert rollouts.held(WORD) is None
    noted = [each.body["why"] for each in store.entries() if each.kind == "declined"]
    assert len(noted) == 1, "a reason that repeats is written once"
    assert chosen(rollouts).acting is None


def test_a_key_that_was_revoked_or_is_out_of_its_time_signs_nothing(
    publisher: Publisher, store: Store, world: World
) -> None:
    data, pins = publisher.publish(publisher.manifest("shadow")), world.pins()
    (pinned,) = pins.plan_keys
    for other, why in (
        (replace(pins, revoked=frozenset({pinned.key})), "revoked"),
        (replace(pins, plan_keys=(replace(pinned, end=NOW),)), "not signed by a key that"),
    ):
        with pytest.raises(Refused, match=why):
            Rollouts(store, other, population_id(POPULATION)).receive(data, WORD, NOW)


def test_a_clock_that_is_behind_the_witness_believes_nothing(
    publisher: Publisher, rollouts: Rollouts
) -> None:
    data = publisher.publish(publisher.manifest("shadow"))
    with pytest.raises(Refused, match="clock"):
        rollouts.receive(data, WORD, NOW - 2 * DAY)
    rollouts.receive(data, WORD, NOW + 3 * DAY)


# Replay, downgrade, freeze.


def test_an_earlier_file_and_another_one_of_the_same_number_are_refused(
    publisher: Publisher, receive: Receive, world: World
) -> None:
    first, second = publisher.manifest("shadow"), publisher.manifest("shadow")
    early, late = publisher.publish(first), publisher.publish(second)
    receive(late)
    receive(late)
    with pytest.raises(Refused, match="does not extend"):
        receive(early)
    with pytest.raises(Refused, match="a newer manifest"):
        receive(publisher.publish(first))
    with pytest.raises(Refused, match="of the same number"):
        receive(publisher.publish(replace(second, expires=NOW + DAY)))
    world.leaves[0] = leaf_hash(b"another beginning")
    with pytest.raises(Refused, match="does not extend"):
        receive(publisher.publish(publisher.manifest("shadow")))


def test_a_log_that_differs_from_the_invitations_is_refused(
    publisher: Publisher, receive: Receive, store: Store, world: World
) -> None:
    data, tree = publisher.publish(publisher.manifest("shadow")), Tree(world.leaves)
    records = Records(store)
    with store.transaction(NOW):
        records.see(replace(records.seen(), size=tree.size, root=b"x" * 32, latest=NOW, first=NOW))
    with pytest.raises(Refused, match="does not extend"):
        receive(data)
    with store.transaction(NOW):  # newer than the file: nothing can be shown of it
        records.see(replace(records.seen(), size=tree.size + 1))
    receive(data)


@pytest.mark.parametrize("end", ["rolled_back", "killed"])
def test_a_rollout_that_was_taken_back_never_comes_back(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, end: State
) -> None:
    receive(publisher.publish(publisher.manifest("live", 1)))
    receive(publisher.publish(publisher.manifest(end)))
    assert chosen(rollouts).acting == OLD
    for manifest in (
        publisher.manifest("live", 1),
        publisher.manifest("shadow"),
        publisher.manifest("complete", 3),
    ):
        with pytest.raises(Refused, match="for good"):
            receive(publisher.publish(manifest))
    again = document(2)
    receive(publisher.publish(publisher.manifest("shadow", rollout=again), again))
    with pytest.raises(Refused, match="another one followed"):
        receive(publisher.publish(publisher.manifest("shadow")))


def test_an_end_needs_no_witness_no_stage_and_no_lease(publisher: Publisher, receive: Receive) -> None:
    receive(publisher.publish(publisher.manifest("live", 1)))
    manifest = publisher.manifest("rolled_back", 7, expires=NOW + 300 * DAY)
    assert receive(publisher.publish(manifest)).manifest.state == "rolled_back"


def test_a_floor_stays_when_a_later_rollout_lowers_it(
    publisher: Publisher, receive: Receive, store: Store
) -> None:
    newer = MODELS | {
        "baseline": {"version": "embed-2", "sha256": OLD.hex()},
        "candidate": {"version": "embed-3", "sha256": NEW.hex()},
        "floor": "embed-2",
    }
    raised, lowered = document(2, models=newer), document(3)
    receive(publisher.publish(publisher.manifest("shadow", rollout=raised), raised))
    with pytest.raises(Refused, match="older than this device may load"):
        receive(publisher.publish(publisher.manifest("shadow", rollout=lowered), lowered))


# Another rollout than the one that is held.

PAST = {"metadata": json.loads(document())["metadata"] | {"revision": 9, "expires": "2020-01-01"}}
PAST_END = datetime(2020, 1, 2, tzinfo=UTC)


def from_to(old: int, new: int, revision: int = 2, floor: int = 1) -> bytes:
    """Return the document of a rollout from one version to another."""
    hashes = {1: OLD, 2: NEW, 3: NEWEST, 4: b"d" * 32}
    models = {
        "baseline": {"version": f"embed-{old}", "sha256": hashes[old].hex()},
        "candidate": {"version": f"embed-{new}", "sha256": hashes[new].hex()},
        "floor": f"embed-{floor}",
    }
    return document(revision, models=models)


def of(publisher: Publisher, made: bytes, state: State, stage: int = 0, **changes: Any) -> bytes:
    """Return the published file of a document's next manifest."""
    models = json.loads(made)["models"]
    pair = {name: bytes.fromhex(models[name]["sha256"]) for name in ("baseline", "candidate")}
    return publisher.publish(publisher.manifest(state, stage, rollout=made, **pair, **changes), made)


def completed(publisher: Publisher, at: datetime) -> bytes:
    """The completion of a rollout of the past, granted until its end, in a log cosigned at a time."""
    made = publisher.manifest("complete", 3, rollout=document(**PAST))
    made = granted(made, PAST_END - 9 * DAY, PAST_END, publisher.world.witness_key)
    return publisher.publish(made, document(**PAST), at=at)


@pytest.mark.parametrize("floor", [1, 2])
@pytest.mark.parametrize("state", ["killed", "rolled_back", "shadow", "live", "complete"])
@pytest.mark.parametrize("made", [document(), document(**PAST)], ids=["in time", "expired"])
def test_a_document_from_before_takes_no_device_back(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, made: bytes, state: State, floor: int
) -> None:
    """Neither with the log's key alone nor with a grant of then; and the rollout in force stays so."""
    now = from_to(2, 3, floor=floor)
    receive(of(publisher, now, "complete", 3))
    stage = {"live": 1, "complete": 3}.get(state, 0)
    with pytest.raises(Refused, match=r"ended than|has expired|does not go on"):
        receive(of(publisher, made, state, stage))
    assert chosen(rollouts).acting == NEWEST
    receive(of(publisher, now, "complete", 3))
    with pytest.raises(Refused, match="is complete"):
        receive(of(publisher, now, "shadow"))


def test_the_next_rollout_goes_on_from_the_model_that_acts(
    publisher: Publisher, receive: Receive, rollouts: Rollouts
) -> None:
    receive(of(publisher, document(), "live", 1))
    receive(of(publisher, from_to(1, 3), "shadow"))
    receive(of(publisher, from_to(1, 3), "complete", 3))
    receive(of(publisher, from_to(3, 4, 3), "live", 2, share=Fraction(1, 2)))
    assert rollouts.held(WORD) is not None
    with pytest.raises(Refused, match="does not go on"):
        receive(of(publisher, from_to(4, 2, 4), "shadow"))


def test_a_device_that_missed_a_completion_goes_on_under_the_witnesss_grant_alone(
    publisher: Publisher, receive: Receive, rollouts: Rollouts
) -> None:
    receive(of(publisher, document(), "live", 1))
    later = from_to(2, 3)
    with pytest.raises(Refused, match="does not go on"):
        receive(of(publisher, later, "shadow"))
    with pytest.raises(Refused, match="not granted"):
        receive(of(publisher, later, "live", 1, grant=b""))
    receive(of(publisher, later, "live", 1))
    receive(of(publisher, later, "complete", 3))
    assert chosen(rollouts).acting == NEWEST


def test_a_device_without_a_rollout_takes_none_that_is_older_than_it(
    publisher: Publisher, store: Store, world: World
) -> None:
    came = Rollouts(store, world.pins(), population_id(POPULATION), {WORD: frozenset({"embed-2", "micro-1"})})
    for state in ("shadow", "killed"):
        with pytest.raises(Refused, match="this device came with"):
            came.receive(of(publisher, document(), state), WORD, NOW)
        with pytest.raises(Refused, match="has expired"):
            came.receive(of(publisher, document(**PAST), state), WORD, NOW)
    with pytest.raises(Refused, match="grant of the stage has run out"):
        came.receive(completed(publisher, at=NOW), WORD, NOW)
    came.receive(completed(publisher, at=PAST_END - DAY), WORD, NOW)
    assert came.choice(WORD, HERE, True, NOW).acting == NEW


def test_a_device_without_a_rollout_takes_one_that_followed_several(
    publisher: Publisher, receive: Receive, rollouts: Rollouts
) -> None:
    """It acts on that one's baseline, which it never had a rollout to, and on its candidate once complete."""
    fourth = b"d" * 32
    receive(of(publisher, from_to(3, 4), "shadow"))
    assert (chosen(rollouts).acting, chosen(rollouts).shadow) == (NEWEST, None), "the candidate is not here"
    found = chosen(rollouts, models=HERE | {fourth})
    assert (found.acting, found.shadow) == (NEWEST, fourth)
    assert chosen(rollouts, models=frozenset({OLD, fourth})).acting is None, "the model that it came with"
    receive(of(publisher, from_to(3, 4), "complete", 3))
    assert chosen(rollouts, models=HERE | {fourth}).acting == fourth


# Which model acts.


def test_a_bucket_is_this_devices_own_and_shares_are_nested(rollouts: Rollouts) -> None:
    secrets = [bytes([number]) * 32 for number in range(200)]
    buckets = [bucket(secret, OLD) for secret in secrets]
    assert all(0 <= each < 1 for each in buckets)
    assert len(set(buckets)) == 200
    inside = [
        {n for n, each in enumerate(buckets) if each < share} for share in (Fraction(1, 10), Fraction(1, 2))
    ]
    assert inside[0] < inside[1]
    assert [bucket(secret, NEW) for secret in secrets] != buckets, "each rollout draws anew"


def test_a_live_candidate_acts_on_the_devices_in_its_share(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store
) -> None:
    manifest = publisher.manifest("live", 2, share=Fraction(1, 2))
    receive(publisher.publish(manifest))
    first = chosen(rollouts)
    (secret,) = store.connection.execute("SELECT value FROM state WHERE name = 'bucket'").fetchone()
    inside = bucket(bytes(secret), manifest.rollout) < Fraction(1, 2)
    assert first == chosen(rollouts), "a device stays where it is"
    assert first.acting == (NEW if inside else OLD)
    assert first.shadow is None
    assert ("this is one of them" in first.why) == inside
    with store.transaction(NOW):
        other = next(
            bytes([n]) * 32
            for n in range(99)
            if (bucket(bytes([n]) * 32, manifest.rollout) < Fraction(1, 2)) != inside
        )
        store.connection.execute("UPDATE state SET value = ? WHERE name = 'bucket'", (other,))
    assert chosen(rollouts).acting == (OLD if inside else NEW)


def test_in_shadow_the_baseline_acts_and_a_battery_must_charge(
    publisher: Publisher, receive: Receive, rollouts: Rollouts
) -> None:
    receive(publisher.publish(publisher.manifest("shadow")))
    assert (chosen(rollouts).acting, chosen(rollouts).shadow) == (OLD, NEW)
    for charging in (False, None):
        found = chosen(rollouts, charging=charging)
        assert (found.acting, found.shadow) == (OLD, None)
        assert "only while the device is charging" in found.why
        assert found.compares


@pytest.mark.parametrize("state", ["shadow", "live"])
def test_whatever_is_missing_or_over_the_baseline_acts(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store, world: World, state: State
) -> None:
    stage = {"shadow": 0, "live": 3}[state]
    share = {"shadow": Fraction(0), "live": Fraction(1)}[state]
    receive(publisher.publish(publisher.manifest(state, stage, share=share)))
    assert NEW in (chosen(rollouts).acting, chosen(rollouts).shadow)
    pins = world.pins()
    revoked = Rollouts(store, replace(pins, revoked=frozenset({pins.plan_keys[0].key})), bytes(32))
    for found, why in (
        (chosen(rollouts, models=frozenset({OLD})), "not on this device yet"),
        (chosen(rollouts, days=7), "the lease of embed@1 ran out"),
        (chosen(rollouts, days=30), "the lease of embed@1 ran out"),
        (chosen(rollouts, days=305), "embed@1 has expired"),
        (chosen(rollouts, days=-2), "the witness's disagree"),
        (chosen(revoked), "was revoked"),
    ):
        assert (found.acting, found.shadow) == (OLD, None)
        assert why in found.why
        assert found.compares == ("not on this device" in why)
    assert chosen(rollouts).compares
    assert not chosen(rollouts, models=frozenset({OLD}), days=7).compares
    assert chosen(rollouts, models=frozenset()).acting is None, "then the model that it came with acts"


def test_a_clock_set_back_does_not_prolong_a_lease(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store
) -> None:
    """A round of another day showed the device how late it is."""
    receive(publisher.publish(publisher.manifest("live", 3, share=Fraction(1))))
    records = Records(store)
    with store.transaction(NOW):
        records.see(replace(records.seen(), size=1, root=b"x" * 32, latest=NOW + 8 * DAY, first=NOW))
    assert chosen(rollouts, days=7.5).acting == OLD
    assert "ran out" in chosen(rollouts, days=7.5).why
    assert "disagree" in chosen(rollouts).why


def test_the_latest_time_that_the_witness_said_counts(publisher: Publisher, receive: Receive) -> None:
    signed = SignedDocument.sign("rollout", document(), publisher.world.plan_key).entry()
    receive(publisher.file(signed, publisher.manifest("shadow").entry(), at=NOW + DAY / 2))
    later = publisher.file(signed, publisher.manifest("shadow").entry(), at=NOW)
    assert receive(later).witnessed == NOW + DAY / 2


# What is remembered.


def test_a_store_that_is_older_gets_the_tables_and_a_restart_keeps_what_was_seen(
    tmp_path: Path, publisher: Publisher, world: World
) -> None:
    path, pins = tmp_path / "older.db", world.pins()
    database.create(path, KEY)
    connection = database.connect(path, KEY)
    for table in ("rollout", "rollout_over", "rollout_floor", "rollout_refused", "rollout_ended"):
        connection.execute(f"DROP TABLE {table}")
    connection.close()
    store = Store.open(path, KEY, RULES, NOW)
    first = Rollouts(store, pins, population_id(POPULATION))
    ended, again = publisher.manifest("killed"), document(2)
    first.receive(publisher.publish(ended), WORD, NOW)
    held = first.receive(publisher.publish(publisher.manifest("shadow", rollout=again), again), WORD, NOW)
    before = first.known(WORD), chosen(first)
    store.close()
    store = Store.open(path, KEY, RULES, NOW)
    second = Rollouts(store, pins, population_id(POPULATION))
    assert (second.known(WORD), chosen(second)) == before
    assert second.held(WORD) == held
    assert (second.known(WORD).over, second.known(WORD).floors) == ({ended.rollout}, {"embed-1"})
    assert second.known("alexa").over == frozenset()
    store.close()


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_crash_while_a_manifest_is_kept_leaves_the_one_before(
    publisher: Publisher, receive: Receive, rollouts: Rollouts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = receive(publisher.publish(publisher.manifest("shadow")))
    data = publisher.publish(publisher.manifest("live", 1))
    with monkeypatch.context() as crash:
        crash.setattr(store, "append", _crash)
        with pytest.raises(KeyboardInterrupt):
            receive(data)
    assert rollouts.held(WORD) == first
    assert receive(data).manifest.state == "live"


def test_the_owner_sees_which_model_acts_and_why(tmp_path: Path) -> None:
    from clients.device.owner import DeviceHome
    from fa_core.cli.device import app
    from tests.device.test_cli import AUTHORITY, example

    def status() -> Result:
        return CliRunner().invoke(app, ["status", "--json", "--dir", str(tmp_path)])

    world = World(tmp_path, authority=AUTHORITY)
    publisher = Publisher(world)
    (tmp_path / "device.toml").write_text(example(), "utf-8")
    home = DeviceHome.make(tmp_path, NOW)
    with home.store.transaction(NOW):
        records = Records(home.store)
        records.certify(AUTHORITY.certify(records.key().public_key().public_bytes_raw(), POPULATION))
    assert json.loads(status().stdout)["acting"] == {}
    pins: Pins = world.pins()
    Rollouts(home.store, pins, population_id(POPULATION)).receive(
        publisher.publish(publisher.manifest("shadow")), WORD, NOW
    )
    home.store.close()
    assert json.loads(status().stdout)["acting"] == {WORD: "embed-1 acts: embed-2 is not on this device yet"}
    plain = CliRunner().invoke(app, ["status", "--dir", str(tmp_path)]).stdout
    assert "model for okay_nabu" in plain
