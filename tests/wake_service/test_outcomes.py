"""What is stored of a stream: moments, what followed them, the time listened; and nothing without consent."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlcipher3 import dbapi2 as sqlcipher
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.error import Error

from clients.device.store import Store
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.sources import PIECE
from clients.wake_service import keeper, service
from clients.wake_service.keeper import Writer
from clients.wake_service.stream import Silence, Stream, placed
from fa_core.tables import SOURCES
from tests.device.setup import NOW
from tests.device.test_store import decrypted
from tests.wake_service.serving import WAKE, Device, Player, names, player, run, serving, speech, started

FOLLOWED = ("wake_events", "true_accept", "follow_up")
UNWANTED = ("wake_events", "false_accept", "silence")
UNKNOWN = ("detections", None, None)


def play(stream: Stream, samples: Pcm) -> list[str]:
    """Play samples to a stream and return what was detected."""
    pieces = [samples[place : place + PIECE] for place in range(0, samples.size, PIECE)]
    return [word for piece in pieces for word in stream.feed(piece, NOW)]


def stream_of(device: Device) -> Stream:
    return Stream(tuple(device.scores), device.begin, device.writer, NOW, NOW)


def session(device: Device, scene: Callable[[Player], Awaitable[None]]) -> None:
    """Play a scene with one client."""

    async def whole() -> None:
        async with serving(device) as port, player(port) as client:
            await scene(client)

    run(whole())


@pytest.mark.parametrize(
    ("following", "outcome"),
    [
        (Transcript("turn on the light"), FOLLOWED),
        (Transcript(" "), UNWANTED),
        (Error("nothing", "stt-no-text-recognized"), UNWANTED),
        (Error("broken", "stt-stream-failed"), UNKNOWN),
        (AudioStop(), UNKNOWN),
    ],
)
def test_what_followed_a_wake_says_what_it_was_and_else_it_is_unknown(
    tmp_path: Path, following: Any, outcome: tuple[str, str | None, str | None]
) -> None:
    device = Device(tmp_path)

    async def scene(client: Player) -> None:
        await client.said(*started())
        await client.hear(1)
        await client.said(following.event())

    session(device, scene)
    assert device.outcomes() == [outcome]
    assert not any("light" in str(row) for table in SOURCES for row in device.rows(table))


def test_silence_after_a_wake_is_heard_and_other_sound_says_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)
    for after in (np.zeros(9 * SAMPLE_RATE, np.int16), speech(9)):
        stream = stream_of(device)
        assert play(stream, np.concatenate([speech(1), after])) == ["okay_nabu"]
        stream.finish(NOW)
    assert device.outcomes() == [UNWANTED, UNKNOWN]


def test_silence_is_said_once_and_a_little_sound_is_none() -> None:
    silence, quiet = Silence(), np.zeros(PIECE, np.int16)
    assert not any(silence.feed(quiet) for _ in range(100))
    silence.woke()
    assert [silence.feed(quiet) for _ in range(100)].index(True) == 54
    silence.woke()
    assert sum(silence.feed(speech(0.1) if number == 20 else quiet) for number in range(100)) == 1
    silence.woke()
    assert sum(silence.feed(speech(0.1) if number in (20, 30, 40) else quiet) for number in range(100)) == 0


def test_a_near_miss_is_a_miss_where_the_word_was_said_again_and_unknown_where_the_stream_ended(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path, {"okay_nabu": {5: 0.5, 40: 0.9, 150: 0.5, 290: 0.5}})
    stream = stream_of(device)
    play(stream, speech(31))
    stream.finish(NOW)
    assert device.outcomes() == [
        ("wake_events", "false_reject", "retry"),
        ("wake_events", "true_reject", "near_miss"),
        ("wake_events", None, None),
        UNKNOWN,
    ]


def test_rows_of_two_models_in_shadow_stay_together() -> None:
    pair = [
        {"time": NOW, "model_version": version, "accepted": True, "outcome": None, "label_source": None}
        for version in ("embed-1", "embed-2")
    ]
    assert placed("wake_events", pair, None) == {"wake_events": pair}
    assert placed("listening", pair, NOW) == {"listening": pair}


def test_another_connection_from_the_same_address_may_say_what_followed(tmp_path: Path) -> None:
    """A satellite's event service; where two streams wait there, nobody can say whose command it was."""
    device = Device(tmp_path)

    async def scene() -> None:
        async with serving(device) as port, player(port) as events:
            async with player(port) as one:
                await one.hear(1)
                await events.said(Transcript("stop").event())
            async with player(port) as one, player(port) as two:
                await one.hear(1)
                await two.hear(1)
                await events.said(Transcript("stop").event())

    run(scene())
    assert device.outcomes() == [FOLLOWED, UNKNOWN, UNKNOWN]


def test_what_comes_too_late_is_about_something_else(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def scene(client: Player) -> None:
        await client.hear(1)
        device.clocks.move(8)
        await client.said(Transcript("turn on the light").event())

    session(device, scene)
    assert device.outcomes() == [UNKNOWN]


def test_a_stream_that_nothing_follows_ends_and_what_it_waited_for_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REACTION", timedelta(0))
    device = Device(tmp_path)

    async def scene(client: Player) -> None:
        for _ in range(10):
            await client.hear(0.1)  # it ends between any two, so each is a stream, too short for a wake
        assert device.outcomes() == []

    session(device, scene)


def test_after_a_pause_the_word_is_heard_at_once(tmp_path: Path) -> None:
    """A satellite is silent while a command is carried out; after that it is no longer the same wake."""
    device = Device(tmp_path)

    async def scene(client: Player) -> None:
        assert names(await client.hear(1)) == ["okay_nabu"]
        device.clocks.move(1.9)
        assert names(await client.hear(1)) == []
        device.clocks.move(2)
        assert names(await client.hear(1)) == ["okay_nabu"]

    session(device, scene)
    first, second = (row["time"] for row in device.rows("detections"))
    assert second - first == 3_900_000


def test_without_consent_detection_is_the_same_and_nothing_is_stored(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    (tmp_path / "no").mkdir()
    said = []
    for consent in (True, False):
        device = Device(tmp_path / ("yes" if consent else "no"), {"okay_nabu": {5: 0.9, 50: 0.5, 90: 0.9}})
        device.store.close()
        device = Device(tmp_path / ("yes" if consent else "no"), device.scores, consent=consent)
        if not consent:
            device.store.revoke("quality_metrics", NOW)

        async def scene(client: Player) -> None:
            said.append(names(await client.hear(40, pieces=8)))

        session(device, scene)
        stored = {table for table in SOURCES if device.rows(table)}
        assert stored == ({"wake_events", "listening"} if consent else set())
    assert said[0] == said[1] == ["okay_nabu", "okay_nabu"]


def test_no_audio_is_kept(tmp_path: Path) -> None:
    device = Device(tmp_path)
    mark = np.arange(4_000, 4_800, dtype=np.int16)
    stream = stream_of(device)
    play(stream, np.tile(mark, 60))
    session_ = stream._sessions["okay_nabu"]
    ring = session_._listener._episodes._ring  # type: ignore[attr-defined]
    assert ring.last(SAMPLE_RATE).size == SAMPLE_RATE
    stream.finish(NOW)
    assert not ring._samples.any()
    assert device.outcomes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.db"]
    assert mark[:8].tobytes() not in decrypted(tmp_path)


# What was recorded is stored once, whatever happens.


def test_a_restart_in_the_middle_of_a_stream_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    first = Device(tmp_path, {"okay_nabu": {5: 0.9, 300: 0.9, 1_190: 0.9}})

    async def broken_off() -> None:
        async with serving(first) as port, player(port) as client:
            await client.hear(120, pieces=20)  # and the service ends, with the last wake still open

    run(broken_off())
    wakes = [*first.rows("wake_events"), *first.rows("detections")]
    assert len(wakes) == 3
    assert [row["minutes"] for row in first.rows("listening")] == [2]
    first.store.close()
    second = Device(tmp_path, WAKE)
    second.clocks.move(600)
    session(second, lambda client: client.hear(30, pieces=20))  # type: ignore[arg-type,return-value]
    assert len(second.rows("wake_events")) + len(second.rows("detections")) == 4
    assert [row["minutes"] for row in second.rows("listening")] == [2]


class Busy:
    """A store that another process holds for a while."""

    def __init__(self, store: Store) -> None:
        self.store, self.held = store, True

    def record(self, *arguments: Any) -> int:
        if self.held:
            raise sqlcipher.OperationalError("database is locked")
        return self.store.record(*arguments)


def test_rows_wait_for_a_store_that_is_held_for_a_day_and_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    busy = Busy(device.store)
    device.writer = Writer(busy)  # type: ignore[arg-type]
    for day in range(2):
        stream = stream_of(device)
        play(stream, speech(1))
        stream.finish(NOW)
        assert not device.writer.write(NOW + timedelta(days=day), closing=True)
    busy.held = False
    assert device.writer.write(NOW + timedelta(days=2))
    assert device.outcomes() == [UNKNOWN, UNKNOWN]
    assert device.writer.write(NOW + timedelta(days=2), closing=True)
    assert device.outcomes() == [UNKNOWN, UNKNOWN]
    monkeypatch.setattr(keeper, "MOST_WAITING", 3)
    busy.held = True
    taken = [device.writer.record("detections", [{}, {}], "quality_metrics", NOW) for _ in range(3)]
    assert taken == [2, 0, 0]


@pytest.mark.parametrize("jumps", [(-6,), (6,), (-48,), (48, -48), (-48, 48)])
def test_a_clock_that_is_set_loses_nothing_and_repeats_nothing(
    tmp_path: Path, jumps: tuple[int, ...]
) -> None:
    """The stream begins anew with the time that holds now. By hours; each half minute is heard once."""
    device = Device(tmp_path, {"okay_nabu": {5: 0.9, 300: 0.9}})
    device.clocks.now += timedelta(days=5)
    times = [device.clocks.now]

    async def scene(client: Player) -> None:
        for hours in (0, *jumps):
            device.clocks.now += timedelta(hours=hours)
            times.append(device.clocks.now)
            device.store.set_facts({}, device.clocks.now)  # rows that are too old or too far ahead go
            for _ in range(31):
                device.clocks.move(1)
                await client.hear(1, pieces=10)
            assert device.writer.write(device.clocks.now)  # but the last wake, whose time is not over

    session(device, scene)
    found = sorted(row["time"] for row in (*device.rows("wake_events"), *device.rows("detections")))
    assert len(set(found)) == len(found) == 2 * (1 + len(jumps))
    before = [device.rows(table) for table in SOURCES]
    assert sum(row["minutes"] for row in device.rows("listening")) == round((1 + len(jumps)) * 31 / 60)
    device.store.close()
    again = Device(tmp_path, consent=False)
    again.store.set_facts({}, device.clocks.now)
    assert [again.rows(table) for table in SOURCES] == before


def test_time_listened_is_written_for_all_streams_together(tmp_path: Path) -> None:
    """Streams of half a minute, one after the other, are one row for each time of writing."""
    device = Device(tmp_path, {"okay_nabu": {}})
    for _ in range(10):
        stream = stream_of(device)
        play(stream, np.zeros(24 * SAMPLE_RATE, np.int16))
        stream.finish(NOW)
    (row,) = device.rows("listening")
    assert row["minutes"] == 4


def test_the_time_of_a_long_stream_is_handed_on_while_it_goes_on(tmp_path: Path) -> None:
    device = Device(tmp_path, {"okay_nabu": {}})
    stream = stream_of(device)
    play(stream, np.zeros(6 * 60 * SAMPLE_RATE, np.int16))
    assert [row["minutes"] for row in device.rows("listening")] == [5]
    stream.finish(NOW)
    assert [row["minutes"] for row in device.rows("listening")] == [5, 1]
