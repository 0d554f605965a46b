"""From the log to a microphone: a device fetches a rollout and its models, and the right ones hear."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from clients.device import database
from clients.device.journal import sentence
from clients.device.store import Store
from clients.device.trust import PinnedKey, Pins
from clients.models import head, policy
from clients.models.believe import Able, Model, RefusedModel
from clients.models.formats import EMBEDDING_RUNTIME
from clients.models.kept import Models
from clients.models.sources import Folder
from clients.rollout.acting import Choice, bucket
from clients.rollout.state import Rollouts
from clients.runtime.detectors import SAMPLE_RATE, Detector
from clients.runtime.following import ASK_SECONDS, needs
from clients.runtime.labels import Reaction
from clients.runtime.policy import FollowedPolicy
from clients.runtime.switching import CHOOSE, SwitchingSession
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.publication import directory
from fa_core.publication.rollout import rollout_name
from fa_core.rollout import control, models
from fa_core.rollout.document import Model as Named
from fa_core.secagg.identity import population_id
from fa_core.store import open_store
from tests.device.setup import KEY, RULES
from tests.device.test_shadow import Scripted
from tests.models.samples import manifest_of, random_head, raw
from tests.rollout import rolling
from tests.rollout.rolling import AUTHOR, LOG, RESULT, START, WEEK, WITNESS, Away, Rolling, plans

ASK = timedelta(seconds=ASK_SECONDS)
WORD, HOME = "okay_nabu", "default"
DAY = timedelta(days=1)
BYTES = {each: head.encode(random_head(version=each)) for each in ("micro-1", "embed-2")}
HASHES = {each: sha256(data).hexdigest() for each, data in BYTES.items()}
PASSED = replace(RESULT, baseline=HASHES["micro-1"], candidate=HASHES["embed-2"])
ROLLOUT = rolling.rollout()
ROLLOUT = ROLLOUT.model_copy(
    update={
        "models": ROLLOUT.models.model_copy(
            update={
                "baseline": Named(version="micro-1", sha256=HASHES["micro-1"]),
                "candidate": Named(version="embed-2", sha256=HASHES["embed-2"]),
            }
        ),
        "gate": ROLLOUT.gate.model_copy(update={"test_set": PASSED.hash}),
    }
)


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two models that devices can load."""
    folder = tmp_path_factory.mktemp("heads") / "store"
    with open_store(folder) as store:
        rolling.declare(store, DEFAULT_POLICIES["zcdp"])
        for version, data in BYTES.items():
            models.add(store, manifest_of(data, version=version), data, AUTHOR)
    return folder


@pytest.fixture
def fleet(tmp_path: Path, heads: Path) -> Iterator[Rolling]:
    found = rolling.opened(tmp_path, heads)
    yield found
    found.store.close()


def start(fleet: Rolling) -> None:
    control.start(fleet.context, ROLLOUT, rolling.signed(ROLLOUT), PASSED, plans())
    models.publish(fleet.store, fleet.folder)


def go_live(fleet: Rolling, stages: int = 1) -> None:
    for stage in range(stages):
        fleet.now = rolling.whole_hour(fleet.now) + WEEK
        fleet.release("live" if stage else "gate", 1)
        assert fleet.decide(ROLLOUT).verdict == "expand"


def pins() -> Pins:
    signer = PinnedKey("quality", raw(AUTHOR), START - 300 * DAY, START + 300 * DAY)
    return Pins((signer,), frozenset(), raw(LOG), raw(WITNESS), bytes(32), DAY)


@dataclass
class Listening:
    """A device with scripted detectors: every model wakes one second after it begins to hear."""

    store: Store
    ask: Callable[[], None]
    fleet: Rolling
    session: SwitchingSession
    read: int = 0

    @property
    def why(self) -> str:
        return self.session.choice.why

    def hear(self, seconds: int = 14, after: timedelta = ASK) -> list[tuple[datetime, str, str | None]]:
        """Let time pass, play silence, and return (time, version, outcome) of the rows that came of it."""
        self.fleet.now += after
        if after >= ASK:
            self.ask()
        for _ in range(seconds):
            self.session.feed(np.zeros(SAMPLE_RATE, np.int16), self.fleet.now)
        return self.rows()

    def rows(self) -> list[tuple[datetime, str, str | None]]:
        read = "SELECT time, model_version, outcome FROM wake_events ORDER BY rowid"
        rows = self.store.connection.execute(read).fetchall()
        new, self.read = rows[self.read :], len(rows)
        return new

    def versions(self, after: timedelta = ASK) -> set[str]:
        return {version for _, version, _ in self.hear(after=after)}

    def place(self, share: Fraction, *, inside: bool) -> None:
        """Give the device a bucket in a share of the rollout, or outside of it."""
        secrets = (bytes([number]) * 32 for number in range(256))
        found = next(each for each in secrets if (bucket(each, ROLLOUT.hash) < share) == inside)
        with self.store.transaction(self.fleet.now):
            self.store.connection.execute("UPDATE state SET value = ? WHERE name = 'bucket'", (found,))

    def journal(self, kind: str) -> list[str]:
        return [sentence(each) for each in self.store.entries() if each.kind == kind]


def scripted(version: str) -> Detector:
    return Scripted(version, 1_280, {1.0: 0.95})


def listening(folder: Path, fleet: Rolling, by: FollowedPolicy | None = None) -> Listening:
    database.create(folder / "device.db", KEY)
    store = Store.open(folder / "device.db", KEY, RULES, fleet.now)
    store.grant("quality_metrics", fleet.now + 300 * DAY, fleet.now)
    source = Folder(fleet.folder)
    able = Able({"head": frozenset({EMBEDDING_RUNTIME})}, {}, 1 << 20)
    kept = Models(folder / "models", store, pins(), able, source)
    rollouts = Rollouts(store, pins(), population_id(HOME))

    def choose(now: datetime) -> Choice:
        return rollouts.choice(WORD, {bytes.fromhex(each) for each in kept.here()}, True, now)

    def opened(choice: Choice) -> tuple[Detector | None, Detector | None]:
        acting, shadow = (_version(kept, each) for each in (choice.acting, choice.shadow))
        return scripted(acting) if acting else None, scripted(shadow) if shadow else None

    def ask() -> None:
        data = source.read(rollout_name(HOME, WORD), directory.most_bytes(rollout_name(HOME, WORD)))
        if data is not None:
            rollouts.take(data, WORD, fleet.now)
        held = rollouts.held(WORD)
        for each in needs(held.manifest) if held else ():
            with suppress(RefusedModel):
                kept.obtain(each.hex(), fleet.now)

    own = Scripted("2.1", 480, {1.0: 0.95})
    session = SwitchingSession(choose, opened, own, store, "quality_metrics", fleet.now, fleet.now, by)
    return Listening(store, ask, fleet, session)


def _version(kept: Models, model: bytes | None) -> str | None:
    if model is None:
        return None
    found = kept.load(model.hex())
    assert isinstance(found, Model)
    return found.manifest.version


@pytest.fixture
def device(tmp_path: Path, fleet: Rolling) -> Iterator[Listening]:
    found = listening(tmp_path, fleet)
    yield found
    found.store.close()


def test_a_rollout_is_followed_from_its_start_to_its_end(device: Listening, fleet: Rolling) -> None:
    """No rollout, shadow, live at the device's bucket, taken back: on one stream, and each by its rows."""
    assert device.versions() == {"2.1"}
    assert device.why == "there is no rollout"
    start(fleet)
    rows = device.hear()
    assert [version for _, version, _ in rows] == ["micro-1", "embed-2"]
    assert rows[0][0] == rows[1][0], "one moment"
    assert "scores too" in device.why
    device.place(Fraction(1, 10), inside=True)
    go_live(fleet)
    assert device.versions() == {"embed-2"}
    assert "this is one of them" in device.why
    live = directory.read(fleet.folder, rollout_name(HOME, WORD))
    assert live is not None
    control.operate(fleet.context, ROLLOUT, "roll_back", "false wakes")
    assert device.versions(after=CHOOSE) == set(), "it is asked for every four minutes"
    assert device.versions() == {"micro-1"}
    assert "was taken back" in device.why
    directory.write(fleet.folder, rollout_name(HOME, WORD), live)
    assert device.hear() == []
    assert "was taken back" in device.why
    assert len(device.journal("declined")) == 1, "the earlier manifest was refused"
    assert device.journal("model_kept") == [
        "Took in the head micro-1 for okay_nabu, signed by quality.",
        "Took in the head embed-2 for okay_nabu, signed by quality.",
    ]


def test_a_rollback_acts_within_300_seconds_while_the_witness_is_away(
    device: Listening, fleet: Rolling
) -> None:
    """And the device stays on the baseline once the witness is back."""
    start(fleet)
    device.hear()
    device.place(Fraction(1, 10), inside=True)
    go_live(fleet)
    assert device.versions() == {"embed-2"}
    control.operate(
        replace(fleet.context, witness=Away(fleet.witness, cosigns=False)),
        ROLLOUT,
        "roll_back",
        "false wakes",
    )
    assert device.versions(after=ASK) == {"micro-1"}, "with the next look after it was asked for"
    assert (ASK + CHOOSE).total_seconds() < 300
    assert "was taken back" in device.why
    assert device.journal("declined") == []
    fleet.decide(ROLLOUT)
    assert device.hear() == []
    assert "was taken back" in device.why
    assert len(device.journal("rollout")) == 3


def test_a_device_outside_the_share_keeps_the_baseline_until_it_is_of_all(
    device: Listening, fleet: Rolling
) -> None:
    start(fleet)
    device.hear()
    device.place(Fraction(1, 2), inside=False)
    for shares, version in (("0.1", "micro-1"), ("0.5", None), ("1", "embed-2")):
        go_live(fleet) if shares == "0.1" else _next_stage(fleet)
        assert device.versions() == ({version} if version else set()), "it goes on as it is"
    _next_stage(fleet)
    control.complete(fleet.context, ROLLOUT)
    device.hear()
    device.hear(after=50 * DAY)
    assert device.why == "embed-2 acts: embed-2@1 is complete", "without a lease"


def _next_stage(fleet: Rolling) -> None:
    fleet.now = rolling.whole_hour(fleet.now) + WEEK
    fleet.release("live", 1)
    assert fleet.decide(ROLLOUT).verdict == "expand"


def test_a_frozen_server_and_a_month_offline_end_with_the_lease(device: Listening, fleet: Rolling) -> None:
    """Nothing new is shown, or nothing at all: the baseline acts; what is shown afterwards is believed."""
    start(fleet)
    device.hear()
    device.place(Fraction(1, 10), inside=True)
    go_live(fleet)
    assert device.versions() == {"embed-2"}
    assert device.versions(after=7 * DAY) == {"micro-1"}, "at the next piece of audio"
    assert "the lease of embed-2@1 ran out" in device.why
    (fleet.folder / rollout_name(HOME, WORD)).unlink()
    device.hear(after=30 * DAY)
    assert "ran out" in device.why
    fleet.decide(ROLLOUT)  # renews the lease
    device.hear()
    assert "this is one of them" in device.why


def test_a_forged_manifest_and_a_forged_model_change_nothing(device: Listening, fleet: Rolling) -> None:
    start(fleet)
    artefact = directory.artefact_name(HASHES["embed-2"])
    directory.write(fleet.folder, artefact, b"x" * len(BYTES["embed-2"]))
    assert device.versions() == {"micro-1"}
    assert "embed-2 is not on this device yet" in device.why
    assert len(device.journal("model_refused")) == 1
    directory.write(fleet.folder, artefact, BYTES["embed-2"])
    name = rollout_name(HOME, WORD)
    data = directory.read(fleet.folder, name)
    assert data is not None
    forged = data.replace(b'\\"share\\":\\"0\\"', b'\\"share\\":\\"1\\"').replace(b"shadow", b"live")
    assert forged != data
    directory.write(fleet.folder, name, forged)
    assert device.versions() == {"micro-1", "embed-2"}, "the model came, and the stage is the one before"
    assert "in shadow" in device.why
    assert len(device.journal("declined")) == 1


def test_in_shadow_both_models_follow_the_devices_policy(tmp_path: Path, fleet: Rolling) -> None:
    rule = b'{"action": "tighter_threshold", "threshold": "0.97", "contexts": ["nobody_interacts"]}'
    followed = FollowedPolicy(policy.parse(b'{"rules": [' + rule + b"]}"))
    start(fleet)
    device = listening(tmp_path, fleet, followed)
    assert [outcome for _, _, outcome in device.hear()] == ["true_reject", "true_reject"], "near misses"
    device.session.react(Reaction(fleet.now, "confirmed"))
    device.place(Fraction(1, 10), inside=True)
    go_live(fleet)
    control.operate(fleet.context, ROLLOUT, "roll_back", "false wakes")
    assert [version for _, version, _ in device.hear()] == ["micro-1"]
    device.session.finish(fleet.now)
    device.store.close()
