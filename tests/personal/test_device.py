"""A device learns its owner: from a missed wake word to an adapter that acts, and back."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.contribution import Clock
from clients.device.journal import sentence
from clients.device.process import Beside
from clients.device.proof import problems
from clients.device.store import Scope
from clients.personal import hearing, learning, stages, watch
from clients.personal import learn as core
from clients.personal.adapter import windows_of
from clients.personal.collect import collect
from clients.personal.features import vector_of
from clients.personal.learn import Candidate, Refusal
from clients.personal.learning import NotNow
from clients.personal.moments import decode
from clients.personal.watch import Heard
from clients.rollout.acting import Choice
from clients.runtime.events import Detection
from clients.runtime.labels import Labelled
from clients.runtime.session import Session
from clients.runtime.shadow import ShadowSession
from clients.runtime.switching import CHOOSE
from tests.personal.devices import ANCHORS, BASE, DAY, HEAD, PHRASES, WORD, Owned


def versions(owned: Owned) -> list[tuple[str, int, str]]:
    rows = owned.home.store.connection.execute(
        "SELECT model_version, accepted, outcome FROM wake_events ORDER BY id"
    )
    return [tuple(row) for row in rows.fetchall()]


def attempt(owned: Owned) -> str:
    found = owned.records.attempt(WORD)
    return found.why if found else ""


def test_from_missed_moments_to_an_adapter_that_acts_and_back(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHADOW_MOMENTS", 2)
    owned.consent()
    owned.fetch_anchors()
    owned.hear_missed(3)
    assert [each.source for each in owned.records.moments()] == ["retry"] * 6
    assert {version for version, *_ in versions(owned)} == {"embed-1"}
    owned.conditions()
    owned.look()
    assert owned.stage() == (1, "candidate")

    before = len(versions(owned))
    owned.hear_missed(1)
    missed = [("embed-1", 0, "false_reject"), ("personal", 1, "true_accept")]
    again = [("embed-1", 1, None), ("personal", 1, None)]
    assert versions(owned)[before:] == 2 * [*missed, *again]
    assert owned.stage() == (1, "active")

    microphone = owned.microphone()
    assert microphone.session.choice.why == "adapter 1 for you acts on embed-1"
    microphone.say("missed")
    assert microphone.woke == [("personal", True)]
    assert stages.revert(owned.home.store, WORD, "you took it back", owned.now)
    owned.now += CHOOSE
    microphone.say("missed")
    assert microphone.woke[1:] == [("embed-1", False)]
    assert isinstance(microphone.session._session, Session)
    assert owned.journal() == ["learn", "validate", "shadow", "activate", "revert"]
    assert problems(owned.home.store, None) == []


def test_an_adapter_that_acts_is_watched_and_taken_back(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes for what its owner cancels, where the model as it came does not."""
    monkeypatch.setattr(watch, "SHADOW_MOMENTS", 1)
    owned.learned()
    owned.hear_missed(1, 1)
    owned.now += DAY
    microphone = owned.microphone()
    for _ in range(9):
        assert owned.stage() == (1, "active")
        microphone.reacted("missed", "cancel")
    assert owned.stage() is None
    assert owned.journal()[-1] == "revert"
    assert "did not do as well" in sentence(owned.home.store.entries()[-1])
    assert problems(owned.home.store, None) == []


def test_without_consent_nothing_is_kept_or_learned(owned: Owned) -> None:
    owned.home.store.grant("quality_metrics", owned.now + DAY, owned.now)
    owned.hear_missed(1)
    assert owned.records.moments() == []
    assert not owned.microphone().session.choice.personal
    assert owned.learner().due(WORD, owned.now) is NotNow.CONSENT


def test_collecting_asks_for_consent_itself(owned: Owned) -> None:
    """Whoever calls it; with consent the same moment is kept, of a wake word that was said again."""
    heard = Detection(owned.now, WORD, "embed-1", 0.4, False, None, False)
    label = Labelled(heard, "false_reject", "retry")

    def collected() -> bool:
        with owned.home.store.transaction(owned.now):
            return collect(owned.records, label, BASE, windows_of(HEAD, PHRASES["missed"]), owned.now)

    owned.home.store.grant("quality_metrics", owned.now + DAY, owned.now)
    assert not collected()
    assert owned.records.moments() == []
    owned.consent()
    assert collected()
    assert [each.source for each in owned.records.moments()] == ["retry"]


@pytest.mark.parametrize("ends", ["revoked", "lapsed", "forgotten"])
def test_what_was_learned_goes_with_the_consent(owned: Owned, ends: str) -> None:
    owned.learned()
    store = owned.home.store
    microphone = owned.microphone()
    assert isinstance(microphone.session._session, ShadowSession)
    if ends == "revoked":
        store.revoke("personalisation", owned.now)
    elif ends == "lapsed":
        owned.now += 180 * DAY
        owned.restart()
    else:
        store.forget(Scope("personalisation"), owned.now)
    assert owned.stage() is None
    assert (owned.records.moments(), owned.records.deltas(), owned.records.attempt(WORD)) == ([], [], None)
    assert problems(owned.home.store, None) == []
    if ends != "lapsed":
        owned.now += CHOOSE
        microphone.say("missed")
        assert not isinstance(microphone.session._session, ShadowSession)


def test_kept_moments_are_few_and_have_a_time_to_live(owned: Owned) -> None:
    owned.consent()
    owned.remember(60)
    owned.remember(1)
    assert len(owned.records.moments()) == 51
    assert owned.home.store.counts()["personal_moment"] == {"personalisation": 51}
    assert problems(owned.home.store, None) == []
    owned.now += 29 * DAY
    owned.restart()
    assert 0 < len(owned.records.moments()) < 10
    owned.now += 2 * DAY
    owned.restart()
    assert owned.records.moments() == []
    assert problems(owned.home.store, None) == []


def test_a_flood_is_heard_in_two_moments_of_an_hour_and_not_while_sounding(owned: Owned) -> None:
    owned.consent()
    owned.hear_missed(1, 6)
    assert len(owned.records.moments()) == 2
    microphone = owned.microphone()
    microphone.say("missed")
    for _ in range(12):
        microphone.session.feed(microphone.silence, owned.now, playback=True)
    microphone.session.finish(owned.now)
    assert len(owned.records.moments()) == 2


DAMAGES = {
    "damaged": "UPDATE personal_delta SET data = CAST(data || x'00' AS BLOB)",
    "of another device": "UPDATE personal_delta SET signature = randomblob(64)",
    "cut short": "UPDATE personal_delta SET data = x''",
    "gone": "DELETE FROM personal_delta",
    "put into a stage that it did not reach": "UPDATE personal_stage SET stage = 'active'",
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_delta_that_does_not_verify_is_not_loaded(owned: Owned, damage: str) -> None:
    owned.learned()
    owned.home.store.connection.execute(DAMAGES[damage])
    assert problems(owned.home.store, None) != []
    microphone = owned.microphone()
    microphone.say("missed")
    assert microphone.woke == [("embed-1", False)]
    assert owned.stage() is None
    assert owned.journal() == ["learn", "validate", "revert"]
    assert problems(owned.home.store, None) == []


def test_an_older_delta_that_is_put_back_is_not_loaded(owned: Owned) -> None:
    owned.learned()
    read = owned.home.store.connection.execute
    kept = {name: read(f"SELECT * FROM {name}").fetchall() for name in ("personal_delta", "personal_stage")}
    assert stages.revert(owned.home.store, WORD, "you took it back", owned.now)
    read("INSERT INTO personal_delta VALUES (?, ?, ?, ?, ?)", kept["personal_delta"][0])
    read("INSERT INTO personal_stage VALUES (?, ?, ?, ?, ?)", kept["personal_stage"][0])
    assert stages.load(owned.home.store, WORD, owned.now) is None
    assert owned.stage() is None


def test_taking_back_works_with_a_damaged_delta(owned: Owned) -> None:
    owned.learned()
    owned.home.store.forget(Scope("debug"), owned.now)  # a root over what is left, the delta among it
    owned.home.store.connection.execute(DAMAGES["cut short"])
    assert stages.revert(owned.home.store, WORD, "you took it back", owned.now)
    assert not stages.revert(owned.home.store, WORD, "you took it back", owned.now)
    assert problems(owned.home.store, None) == []


def test_a_new_base_retires_what_does_not_fit(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> None:
    owned.learned()
    other = bytes.fromhex(BASE)[::-1]
    monkeypatch.setattr(hearing, "open_head", lambda models, digest: HEAD)
    asked = owned.microphone(Choice(other, None, "it was asked for"), follows=False)
    assert asked.session.choice.shadow is None
    assert owned.stage() is not None  # somebody asked for another model by hand
    completed = owned.microphone(Choice(other, None, "the rollout is complete"))
    assert completed.session.choice.shadow is None
    assert owned.stage() is None
    assert owned.records.moments() == []
    assert owned.journal() == ["learn", "validate", "retire"]
    assert problems(owned.home.store, None) == []


def test_a_base_that_is_not_here_any_more_retires_its_adapter(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned.learned()
    other = bytes.fromhex(BASE)[::-1]
    monkeypatch.setattr(hearing, "open_head", lambda models, digest: None if digest == BASE else HEAD)
    owned.microphone(Choice(other, None, "it was asked for"), follows=False)
    assert owned.journal() == ["learn", "validate", "retire"]


def test_while_a_rollout_compares_models_they_act_as_published(owned: Owned) -> None:
    owned.learned()
    kept = len(owned.records.moments())
    base = bytes.fromhex(BASE)
    microphone = owned.microphone(Choice(base, None, "live on a tenth", compares=True))
    microphone.missed()
    microphone.session.finish(owned.now)
    assert [version for version, _ in microphone.woke] == ["embed-1", "embed-1"]
    assert len(owned.records.moments()) == kept
    microphone = owned.microphone(Choice(base, None, "complete"))
    microphone.say("missed")
    assert isinstance(microphone.session._session, ShadowSession)


def test_an_adapter_is_put_aside_after_its_time_and_forgotten(owned: Owned) -> None:
    owned.learned()
    with owned.home.store.transaction(owned.now):
        owned.records.use(WORD, 1, "active", owned.now)
        owned.records.say("activate", WORD, 1, "", owned.now)
    owned.now += stages.ACTS_FOR
    microphone = owned.microphone()
    assert isinstance(microphone.session._session, Session)
    assert owned.stage() == (1, "reset")
    owned.remember()
    owned.conditions()
    owned.look()
    assert owned.stage() == (2, "candidate")
    assert owned.journal()[-4:] == ["reset", "forget", "learn", "validate"]
    owned.consent(400)
    owned.now += 121 * DAY
    owned.restart()
    assert owned.stage() is None
    assert "its time ran out" in sentence(owned.home.store.entries()[-1])
    assert problems(owned.home.store, None) == []


# When it learns.


@pytest.mark.parametrize(
    "changes",
    [{"charging": False}, {"idle": False}, {"speaking": True}, {"charging": None}, {"speaking": None}],
)
def test_it_learns_only_where_it_may(owned: Owned, changes: dict[str, Any]) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    owned.conditions(**changes)
    owned.look()
    assert owned.stage() is None
    assert owned.learner().due(WORD, owned.now) is NotNow.CONDITIONS
    owned.conditions()
    owned.look()
    assert owned.stage() is not None


@pytest.mark.parametrize("folds", [0, 2, 5])
def test_speech_stops_a_fit_before_its_next_part(
    owned: Owned, monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    owned.conditions()
    asked: list[bool] = []
    fits = []
    fit = core.fit  # type: ignore[attr-defined]

    def goes_on(learner: object, now: object) -> bool:
        asked.append(True)
        return len(asked) <= folds

    monkeypatch.setattr(learning.Learner, "_goes_on", goes_on)
    monkeypatch.setattr(core, "fit", lambda *given: fits.append(True) or fit(*given))  # type: ignore[func-returns-value]
    owned.look()
    assert len(fits) == folds
    assert owned.stage() is None
    assert attempt(owned) == NotNow.STOPPED
    assert owned.learner().due(WORD, owned.now) is None


def test_it_learns_once_a_day_and_from_something_new(owned: Owned) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.remember(3)
    owned.conditions()
    owned.look()
    assert attempt(owned) == Refusal.FEW
    assert owned.learner().due(WORD, owned.now) is NotNow.TODAY
    owned.now += 2 * DAY
    owned.conditions()
    assert owned.learner().due(WORD, owned.now) is NotNow.NOTHING_NEW
    owned.hear_missed(1)
    owned.conditions()
    assert owned.learner().due(WORD, owned.now) is None
    assert owned.journal() == ["learn"]


def test_minutes_a_day_are_used_up_by_attempts_that_were_stopped(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    owned.conditions()
    ticks = iter(range(0, 10_000, 200))
    monkeypatch.setattr(learning.Learner, "_goes_on", lambda self, now: False)
    learner = replace(owned.learner(), running=lambda: float(next(ticks)))
    for _ in range(2):
        assert learner.due(WORD, owned.now) is None
        learner.look(lambda: owned.now)
    assert learner.due(WORD, owned.now) is NotNow.TIME
    owned.now += DAY
    owned.conditions()
    assert learner.due(WORD, owned.now) is None


def test_a_clock_that_was_set_back_learns_nothing_from_the_future(owned: Owned) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.now += 10 * DAY
    owned.remember(12)
    owned.now -= 5 * DAY
    owned.conditions()
    owned.look()
    assert attempt(owned) == Refusal.FEW
    owned.now -= 6 * DAY
    assert owned.learner().due(WORD, owned.now) is NotNow.CONSENT
    before = len(owned.records.moments())
    microphone = owned.microphone()
    microphone.missed()
    microphone.session.finish(owned.now)
    assert len(owned.records.moments()) == before


def test_anchors_are_fetched_over_an_unmetered_network_alone(owned: Owned) -> None:
    digest = owned.publish_anchors()
    path = owned.folder / "device.toml"
    path.write_text(path.read_text().replace("anchors = []", f'anchors = ["{digest}"]'))
    owned.restart()
    owned.consent()
    owned.remember()
    owned.conditions(unmetered_network=False)
    owned.look()
    assert attempt(owned) == NotNow.ANCHORS
    assert owned.stage() is None
    owned.now += DAY
    owned.conditions()
    owned.look()
    assert owned.stage() is not None


def test_an_anchor_set_that_was_not_signed_is_not_used(owned: Owned) -> None:
    owned.consent()
    owned.remember()
    owned.fetch_anchors()
    path = next((owned.folder / "models" / "artefacts").glob("*"))
    path.write_bytes(ANCHORS[:-1] + b"\x01")
    assert (
        owned.learner().learn(WORD, lambda: owned.now, fetch=False, goes_on=lambda _: True) is NotNow.ANCHORS
    )


def test_what_changed_during_a_fit_is_not_learned(owned: Owned) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    store = owned.home.store

    def forgets(now: object) -> bool:
        store.forget(Scope("personalisation"), owned.now)
        return True

    found = owned.learner().learn(WORD, lambda: owned.now, fetch=False, goes_on=forgets)
    assert found is NotNow.CHANGED
    assert owned.records.deltas() == []
    owned.remember()
    found = owned.learner().learn(WORD, lambda: owned.now, fetch=False, goes_on=lambda _: True)
    assert isinstance(found, Candidate)


def test_a_candidate_is_judged_by_moments_under_the_caps_alone(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHADOW_MOMENTS", 3)
    owned.learned()
    owned.now += timedelta(days=1)
    owned.hear_missed(1, 4)
    used = owned.used()
    assert used is not None
    assert stages.heard_of(used.heard) == 2 * [Heard(wanted=True, base=False, adapted=True)]


# Beside a device's process.


class Looks(threading.Event):
    """Is stopped after so many waits."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left, self.waited = most, list[float | None]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    "beside", [learning.beside_hub, learning.beside_gateway("https://localhost:9", None)]
)
def test_a_devices_process_learns_beside_its_rounds(
    owned: Owned, monkeypatch: pytest.MonkeyPatch, beside: Beside
) -> None:
    monkeypatch.setattr(learning, "utc_now", lambda: owned.now)
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    owned.conditions()
    work = beside([(owned.home, owned.home.device(Clock(lambda: owned.now, lambda: 0.0)))])
    assert work is not None
    looks = Looks(1)
    work(looks)
    assert looks.waited == 2 * [240.0]
    assert owned.stage() == (1, "candidate")


def test_a_store_that_is_busy_is_looked_at_again(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def busy(learner: object, now: object) -> None:
        asked.append(now)
        raise sqlcipher.OperationalError("database is locked")

    monkeypatch.setattr(learning.Learner, "look", busy)
    learning._look([owned.learner()], Looks(3))
    assert len(asked) == 3


def test_moments_to_wake_for_are_what_a_training_plan_counts(owned: Owned) -> None:
    owned.consent()
    owned.fetch_anchors()
    owned.hear_missed(2)
    store = owned.home.store
    rows = store.table("moments", "personalisation", owned.now - 30 * DAY, owned.now + DAY)
    kept = [decode(each.windows) for each in owned.records.moments(WORD)]
    assert rows["base"].to_pylist() == [BASE] * len(kept)
    for stored, windows in zip(rows["features"].to_pylist(), kept, strict=True):
        assert np.allclose(stored, vector_of(windows), atol=0.01)
    store.revoke("personalisation", owned.now)
    assert store.counts()["moments"] == {}
    assert problems(store, None) == []
