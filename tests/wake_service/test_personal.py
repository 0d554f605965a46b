"""The service on a device that may learn its owner: streams hear the adapter, one thread uses the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.contribution import Clock
from clients.device.personal import PersonalRecords
from clients.device.proof import problems
from clients.personal import stages, watch
from clients.runtime.detectors import EMBEDDING_HOP
from clients.wake_service import keeper as keeping
from clients.wake_service.keeper import Keeper
from clients.wake_service.stream import Stream
from tests.personal.conftest import owned, template
from tests.personal.devices import DAY, PHRASES, WORD, Owned

__all__ = ["owned", "template"]


class Forbidden:
    """A connection of a store that may not be used now."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("a stream used the store")


class Home:
    """The service of a device: its keeper, and streams whose audio is phrases."""

    def __init__(self, owned: Owned) -> None:
        self.owned = owned
        clock = Clock(lambda: owned.now, lambda: 0.0)
        self.keeper = Keeper(owned.home, (WORD,), clock, "embed-1")

    def stream(self) -> Stream:
        """Begin a stream."""
        with self.without_store():
            return Stream((WORD,), self.keeper.session, self.keeper.writer, self.owned.now, self.owned.now)

    def say(self, phrase: str, *streams: Stream, silence: float = 3.0) -> list[int]:
        """Play a phrase and silence to all streams at once; return how often each woke."""
        start = 1 + 16 * list(PHRASES).index(phrase)
        numbers = [*range(start, start + 16), *[0] * round(silence * 12.5)]
        woke = [0 for _ in streams]
        with self.without_store():
            for number in numbers:
                pcm = np.full(EMBEDDING_HOP, number, np.int16)
                for at, stream in enumerate(streams):
                    woke[at] += len(stream.feed(pcm, self.owned.now))
                self.owned.now += timedelta(seconds=EMBEDDING_HOP / 16_000)
        return woke

    def missed(self, *streams: Stream) -> None:
        """Say the word so that the base misses it, say it again, and let its time to be followed pass."""
        self.say("missed", *streams)
        self.say("said again", *streams, silence=9)

    def look(self) -> None:
        """Let the keeper write and look."""
        assert self.keeper.writer.write(self.owned.now)
        self.keeper.look()

    @contextmanager
    def without_store(self) -> Iterator[None]:
        """Let the store not be used for the time of this."""
        store = self.owned.home.store
        connection, store.connection = store.connection, Forbidden()
        try:
            yield
        finally:
            store.connection = connection


def test_streams_learn_try_out_obey_and_give_back_an_adapter(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two streams at once, neither broken off, from the first missed word until the owner takes it back."""
    monkeypatch.setattr(watch, "SHADOW_MOMENTS", 2)
    owned.consent()
    owned.fetch_anchors()
    home = Home(owned)
    for _ in range(3):
        owned.now += DAY
        stream = home.stream()
        home.missed(stream)
        home.missed(stream)
        stream.finish(owned.now)
        home.look()
    assert [each.source for each in owned.records.moments()] == ["retry"] * 6
    owned.conditions()
    owned.look()
    assert owned.stage() == (1, "candidate")

    owned.now += DAY
    one, other = home.stream(), home.stream()
    home.look()
    assert owned.stage() == (1, "shadow")
    assert home.say("missed", one, other) == [0, 0]
    assert home.say("said again", one, other, silence=9) == [1, 1]
    home.look()
    assert owned.stage() == (1, "active")
    home.look()
    assert home.say("missed", one, other) == [1, 1]
    assert stages.revert(owned.home.store, WORD, "you took it back", owned.now)
    home.look()
    assert home.say("missed", one, other, silence=9) == [0, 0]
    one.finish(owned.now)
    other.finish(owned.now)
    home.look()
    assert owned.journal() == ["learn", "validate", "shadow", "activate", "revert"]
    assert problems(owned.home.store, None) == []


def test_a_command_after_a_wake_is_learned_from_and_silence_is_not(owned: Owned) -> None:
    owned.consent()
    home = Home(owned)
    for kind in ("follow_up", "silence"):
        owned.now += DAY
        stream = home.stream()
        home.say("said again", stream, silence=1)
        stream.react(kind, stream.at)  # type: ignore[arg-type]
        home.say("said again", stream, silence=9)
        stream.finish(owned.now)
    home.look()
    assert [each.source for each in owned.records.moments()] == ["follow_up"]


def heard_without_consent(owned: Owned) -> tuple[list[int], int]:
    """Return how often a word woke a service without consent, and how many moments it kept."""
    home = Home(owned)
    stream = home.stream()
    woke = [count for phrase in PHRASES for count in home.say(phrase, stream, silence=9)]
    home.missed(stream)
    stream.finish(owned.now)
    home.look()
    return woke, len(owned.records.moments())


def test_without_consent_nothing_is_collected_and_detection_is_the_same(owned: Owned) -> None:
    without = heard_without_consent(owned)
    assert without == ([0, 1, 0, 1], 0)
    owned.home.store.grant("quality_metrics", owned.now + DAY, owned.now)
    assert heard_without_consent(owned) == without
    owned.consent()
    assert heard_without_consent(owned) == (without[0], 1)


def test_a_service_that_does_not_ask_for_consent_is_caught(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PersonalRecords, "allowed", lambda self, now: True)
    assert heard_without_consent(owned)[1] == 1


def test_what_waits_when_the_consent_is_revoked_is_not_kept(owned: Owned) -> None:
    owned.consent()
    home = Home(owned)
    stream = home.stream()
    home.missed(stream)
    owned.home.store.revoke("personalisation", owned.now)
    home.look()
    assert owned.records.moments() == []
    home.missed(stream)
    home.look()
    assert owned.records.moments() == []


def test_moments_wait_for_a_store_that_is_held_so_many_at_most_and_are_kept_once(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned.consent()
    home = Home(owned)
    writer, stream = home.keeper.writer, home.stream()
    home.missed(stream)

    def held(*given: Any) -> None:
        raise sqlcipher.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(owned.home.store, "transaction", held)
        assert not writer.write(owned.now)
    waiting = writer._held
    monkeypatch.setattr(keeping, "MOST_WAITING", waiting)
    owned.now += DAY
    home.missed(stream)
    assert writer._held == waiting > 0
    for _ in range(2):
        home.look()
        assert writer._held == 0
        assert len(owned.records.moments()) == 1
