"""A device asks for its rollouts, fetches their models, and opens the one that acts."""

import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.device.contribution import Clock
from clients.device.owner import DeviceHome
from clients.device.records import Records
from clients.device.remote import Unreachable
from clients.models import head
from clients.models.kept import Models
from clients.models.sources import Folder
from clients.runtime import following, published
from clients.runtime.detectors import Detector
from clients.runtime.following import (
    Chooser,
    Follower,
    beside_gateway,
    beside_hub,
    follow,
    opened,
    rollouts_of,
)
from clients.runtime.policy import FollowedPolicy
from clients.runtime.published import models_of, open_published, shipped
from clients.runtime.session import Session
from clients.runtime.shadow import ShadowListener, ShadowSession
from clients.runtime.switching import CHOOSE, SwitchingSession
from fa_core.errors import BadInput
from fa_core.publication import directory
from fa_core.publication.rollout import rollout_name
from fa_core.publication.signed import SignedDocument
from tests.device.publishing import DAY, WORD, Publisher, document
from tests.device.setup import NOW, POPULATION, World
from tests.device.test_cli import example
from tests.models.samples import manifest_of, random_head

CANDIDATE = head.encode(random_head(version="embed-2"))
BASELINE = next(
    digest for digest, each in shipped().items() if (each.version, each.wake_word) == ("embed-1", WORD)
)
MODELS = {
    "baseline": {"version": "embed-1", "sha256": BASELINE},
    "candidate": {"version": "embed-2", "sha256": sha256(CANDIDATE).hexdigest()},
    "floor": "embed-1",
}
ROLLOUT = document(models=MODELS)


@dataclass
class Served:
    """A device, and the directory in which its rollouts and models are published."""

    home: DeviceHome
    publisher: Publisher
    folder: Path

    def publish(self, state: Any, stage: int = 0, **changes: Any) -> None:
        """Publish the next manifest."""
        named = {name: bytes.fromhex(MODELS[name]["sha256"]) for name in ("baseline", "candidate")}  # type: ignore[index]
        manifest = self.publisher.manifest(state, stage, rollout=ROLLOUT, **named, **changes)
        directory.write(
            self.folder, rollout_name(POPULATION, WORD), self.publisher.publish(manifest, ROLLOUT)
        )

    def publish_model(self) -> None:
        """Publish the candidate's bytes and manifest."""
        manifest = manifest_of(CANDIDATE, version="embed-2")
        entry = SignedDocument.sign("model", manifest.document(), self.publisher.world.plan_key).entry()
        directory.write(self.folder, directory.model_name(manifest.sha256), self.publisher.file(entry))
        directory.write(self.folder, directory.artefact_name(manifest.sha256), CANDIDATE)

    def follower(self) -> Follower:
        return Follower(self.home, Folder(self.folder), POPULATION, nullcontext())

    def why(self) -> str:
        return Chooser(self.home, models_of(self.home), WORD)(NOW).why


@pytest.fixture
def served(tmp_path: Path) -> Served:
    world = World(tmp_path)
    pins = world.pins()
    text = example()
    for name, key in (("log", pins.log), ("witness", pins.witness), ("authority", pins.authority)):
        text = text.replace(f'\n{name} = "{"0" * 64}"', f'\n{name} = "{key.hex()}"')
    text = text.replace(f'key = "{"0" * 64}"', f'key = "{pins.plan_keys[0].key.hex()}"')
    text = text.replace('"/srv/unheard/published"', '"published"\npopulation = "homes"')
    (tmp_path / "device.toml").write_text(text, "utf-8")
    said = {"at": NOW.isoformat(), "charging": True}
    (tmp_path / "conditions.json").write_text(json.dumps(said))
    home = DeviceHome.make(tmp_path, NOW)
    with home.store.transaction(NOW):
        records = Records(home.store)
        records.certify(world.authority.certify(records.key().public_key().public_bytes_raw(), POPULATION))
    return Served(home, Publisher(world), tmp_path / "published")


def test_a_device_follows_a_rollout_and_opens_what_acts(served: Served) -> None:
    follower = served.follower()
    follower.ask(NOW)
    assert served.why() == "there is no rollout"
    assert opened(models_of(served.home), Chooser(served.home, models_of(served.home), WORD)(NOW)) == (
        None,
        None,
    )

    served.publish("shadow")
    follower.ask(NOW)
    assert served.why() == "embed-1 acts: embed-2 is not on this device yet"

    served.publish_model()
    served.publish("shadow")
    follower.ask(NOW)
    models = models_of(served.home)
    acting, candidate = opened(models, Chooser(served.home, models, WORD)(NOW))
    assert acting is not None
    assert candidate is not None
    assert (acting.model_version, candidate.model_version) == ("embed-1", "embed-2")
    ShadowListener(acting, candidate, NOW)

    served.publish("complete", 3)
    follower.ask(NOW)
    acting, candidate = opened(models, Chooser(served.home, models, WORD)(NOW + 99 * DAY))
    assert acting is not None
    assert (acting.model_version, candidate) == ("embed-2", None)

    served.publish("rolled_back", 3)
    follower.ask(NOW)
    assert served.why() == "embed-1 acts: embed@1 was taken back"
    kinds = [each.kind for each in served.home.store.entries()]
    assert kinds == ["created", "rollout", "model_refused", "model_kept", "rollout", "rollout"]


def test_what_is_published_wrongly_changes_nothing(served: Served) -> None:
    directory.write(served.folder, rollout_name(POPULATION, WORD), b"nonsense")
    served.follower().ask(NOW)
    assert rollouts_of(served.home).held(WORD) is None


def test_a_damaged_model_is_not_opened(served: Served) -> None:
    served.publish("live", 3, share=1)
    served.publish_model()
    served.follower().ask(NOW)
    assert "this is one of them" in served.why()
    kept = served.home.folder / "models" / directory.artefact_name(sha256(CANDIDATE).hexdigest())
    kept.write_bytes(CANDIDATE[:-1] + bytes([CANDIDATE[-1] ^ 1]))
    assert served.why() == "embed-1 acts: embed-2 is not on this device yet"


def test_a_hub_follows_those_of_its_devices_that_name_a_population(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "utc_now", lambda: NOW)
    served.publish_model()
    served.publish("shadow")
    home = served.home
    device = home.device(Clock(lambda: NOW, lambda: 0.0))
    work = beside_hub([(home, device)])
    assert work is not None
    stopped = threading.Event()
    monkeypatch.setattr(stopped, "wait", lambda seconds: stopped.set())
    work(stopped)
    assert rollouts_of(home).held(WORD) is not None

    silent = replace(home, config=home.config.model_copy(update={"models": type(home.config.models)()}))
    assert beside_hub([(silent, device)]) is None
    assert beside_gateway("https://gateway:1", None)([(silent, device)]) is None
    other = home.config.models.model_copy(update={"population": "offices"})
    strange = replace(home, config=home.config.model_copy(update={"models": other}))
    with pytest.raises(BadInput, match="not of the population"):
        beside_hub([(strange, device)])


def test_a_source_that_does_not_answer_is_asked_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    class Silent:
        def read(self, name: str, most: int) -> bytes | None:
            raise Unreachable

    stopped = threading.Event()

    def wait(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            stopped.set()

    monkeypatch.setattr(stopped, "wait", wait)
    follow([replace(served.follower(), source=Silent())], stopped)
    assert len(asked) == 3
    assert max(asked) <= 240


def test_a_model_is_opened_once_and_verified_whenever_it_is_chosen(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens: list[str] = []

    def counted(models: Models, digest: str) -> Detector:
        opens.append(digest)
        return open_published(models, digest)

    monkeypatch.setattr(published, "open_published", counted)
    served.publish_model()
    served.publish("live", 3, share=1)
    served.follower().ask(NOW)
    chooser = Chooser(served.home, models_of(served.home), WORD)
    assert {chooser(NOW).acting for _ in range(5)} == {sha256(CANDIDATE).digest()}
    assert sorted(opens) == sorted([BASELINE, sha256(CANDIDATE).hexdigest()])
    kept = served.home.folder / "models" / directory.artefact_name(sha256(CANDIDATE).hexdigest())
    kept.write_bytes(CANDIDATE[:-1])
    assert chooser(NOW).acting == bytes.fromhex(BASELINE)
    kept.write_bytes(CANDIDATE)
    assert chooser(NOW).acting == sha256(CANDIDATE).digest()
    assert len(opens) == 2


def test_a_policy_is_followed_by_whatever_model_acts(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a rollout, and where a model is named: each is harder to wake while nobody interacts."""
    from fa_core.cli import device as command

    monkeypatch.setattr(command, "_now", lambda: NOW)
    rules = tmp_path / "rules.json"
    rules.write_text(
        '{"rules": [{"action": "tighter_threshold", "threshold": "0.999", "contexts": ["nobody_interacts"]}]}'
    )
    opened_detectors: list[Detector] = []

    def follow_too(self: FollowedPolicy, *detectors: Detector) -> None:
        opened_detectors.extend(detectors)
        follow_detectors(self, *detectors)

    follow_detectors = FollowedPolicy.follow
    monkeypatch.setattr(FollowedPolicy, "follow", follow_too)
    served.publish_model()
    served.publish("shadow")
    served.follower().ask(NOW)
    for model, versions in ((None, ["embed-1", "embed-2"]), ("micro-1", ["micro-1"])):
        opened_detectors.clear()
        session = command._started(served.home, WORD, model, str(rules))(NOW, NOW)
        session.feed(np.zeros(1_600, np.int16), NOW)
        assert [each.model_version for each in opened_detectors] == versions
        assert {each.threshold for each in opened_detectors} == {0.999}
        session.finish(NOW)
        assert all(each.threshold < 0.999 for each in opened_detectors)


def test_listening_uses_the_model_that_acts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from fa_core.cli import device as command

    monkeypatch.setattr(command, "_now", lambda: NOW)
    served.publish_model()
    served.publish("shadow")
    session = command._started(served.home, WORD, None, None)(NOW, NOW)
    assert isinstance(session, SwitchingSession)
    assert (session.choice.why, type(session._session)) == ("there is no rollout", Session)
    served.follower().ask(NOW)
    session.feed(np.zeros(1_600, np.int16), NOW + CHOOSE)
    assert isinstance(session._session, ShadowSession)
    assert "embed-2 scores too" in session.choice.why
    assert {"embed-1", "embed-2"} <= set(served.home.store.rules.labels["model_version"])
    asked = command._started(served.home, WORD, "micro-1", None)(NOW, NOW)
    assert isinstance(asked, SwitchingSession)
    assert (asked.choice.why, type(asked._session)) == ("it was asked for", Session)
    assert command._acting(served.home, NOW)[WORD].startswith("embed-1 acts: embed@1 is in shadow")
