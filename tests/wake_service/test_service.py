"""The service, as clients of the library see it: detections, several clients, and none in another's way."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.info import Describe, Info
from wyoming.ping import Ping
from wyoming.wake import Detect

from clients.runtime.detectors import SAMPLE_RATE
from clients.runtime.events import Listener
from clients.wake_service import service, wire
from tests.device.setup import NOW
from tests.wake_service.serving import Detector, Device, chunk, names, player, run, serving, started


def test_it_says_what_it_is_and_which_words_it_hears_and_not_which_model_acts(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            (answer,) = await client.said(Describe().event())
            (program,) = Info.from_event(answer).wake
            (model,) = program.models
            assert (program.name, model.name, model.phrase) == ("unheard", "okay_nabu", "okay nabu")
            assert (program.installed, model.installed, model.version) == (True, True, None)
            await client.write_event(Ping("who").event())
            pong = await client.read_event()
            assert pong is not None
            assert (pong.type, pong.data) == ("pong", {"text": "who"})

    run(scene())


def test_a_wake_is_answered_with_the_chunk_that_completed_it(tmp_path: Path) -> None:
    async def scene() -> None:
        device = Device(tmp_path, {"okay_nabu": {5: 0.9, 6: 0.95, 40: 0.9}})
        async with serving(device) as port, player(port) as client:
            await client.said(*started())
            said = [await client.said(chunk(timestamp=100 * number)) for number in range(60)]
            found = [(number, *names(events)) for number, events in enumerate(said) if events]
            assert found == [(5, "okay_nabu"), (40, "okay_nabu")]
            assert said[5][0].data["timestamp"] == 500

    run(scene())


def test_the_detections_are_those_of_the_detector_alone(tmp_path: Path) -> None:
    """However the stream is cut into chunks, of up to half a minute."""
    scores = dict.fromkeys((3, 25, 31, 70, 90), 0.9) | {50: 0.5, 112: 0.79}
    samples = np.zeros(12 * SAMPLE_RATE, np.int16)
    alone = Listener(Detector("okay_nabu", scores), NOW)
    events = alone.feed(samples) + alone.finish()[0]
    woke = alone.woke
    assert len(woke) == 4

    async def scene() -> None:
        device = Device(tmp_path, {"okay_nabu": scores})
        async with serving(device) as port:
            for size in (777, 4_800, samples.size):
                async with player(port) as client:
                    await client.said(*started())
                    chunks = [
                        AudioChunk(SAMPLE_RATE, 2, 1, samples[place : place + size].tobytes()).event()
                        for place in range(0, samples.size, size)
                    ]
                    assert len(names(await client.said(*chunks))) == len(woke)
                    assert await client.said(AudioStop().event()) == []
        times = sorted(row["time"] for table in ("wake_events", "detections") for row in device.rows(table))
        assert len(times) == 3 * len(events)

    run(scene())


def test_a_stream_without_a_wake_is_told_so_at_its_end(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            await client.said(*started())
            assert await client.hear(0.4) == []
            assert [each.type for each in await client.said(AudioStop().event())] == ["not-detected"]
            await client.said(AudioStart(SAMPLE_RATE, 2, 1).event())
            assert names(await client.hear(1)) == ["okay_nabu"]
            assert await client.said(AudioStop().event()) == []

    run(scene())


def test_a_client_hears_the_words_that_it_names(tmp_path: Path) -> None:
    async def scene() -> None:
        device = Device(tmp_path, {"okay_nabu": {5: 0.9}, "alexa": {7: 0.9}})
        async with serving(device) as port:
            for wanted, found in (
                ((), ["okay_nabu", "alexa"]),
                (("alexa",), ["alexa"]),
                (("alexa", "computer"), ["alexa"]),
            ):
                async with player(port) as client:
                    await client.said(*started(*wanted))
                    assert names(await client.hear(1)) == found
            async with player(port) as client:
                (answer,) = await client.said(Detect(["computer"]).event())
                assert (
                    answer.data["text"] == "there is no detector of these names; there are: okay_nabu, alexa"
                )
                assert names(await client.hear(1)) == []
                await client.said(Detect(["okay_nabu"]).event())
                assert names(await client.hear(1)) == ["okay_nabu"]

    run(scene())


def test_audio_without_a_start_is_a_stream_as_satellites_send_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            assert names(await client.hear(1)) == ["okay_nabu"]

    run(scene())


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(48_000, 2, 2), (8_000, 1, 1), (44_100, 4, 1), (16_000, 2, 2)]
)
def test_audio_of_another_form_is_made_ours(tmp_path: Path, rate: int, width: int, channels: int) -> None:
    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            assert names(await client.hear(0.9, rate=rate, width=width, channels=channels)) == ["okay_nabu"]

    run(scene())


def audio(rate: float, width: int, channels: int, samples: bytes = b"") -> bytes:
    """Return a chunk of audio as the protocol has it."""
    head = {
        "type": "audio-chunk",
        "data": {"rate": rate, "width": width, "channels": channels},
        "payload_length": len(samples),
    }
    return json.dumps(head).encode() + b"\n" + samples


NO_JSON, NO_EVENT = (
    b"an event must be a line of JSON",
    b"an event must have a type, and data that is an object",
)
HOSTILE = {
    "text": (b"GET / HTTP/1.1\r\n\r\n", NO_JSON),
    "bytes": (bytes(range(256)) * 400, NO_JSON),
    "a list": (b"[1, 2]\n", b"an event must be an object"),
    "deep": (b"[" * 60_000 + b"\n", NO_JSON),
    "a long line": (b'{"type": "' + b"a" * 100_000 + b'"}\n', b"must be at most 65536 bytes long"),
    "no type": (b"{}\n", NO_EVENT),
    "a type that is no text": (b'{"type": [1]}\n', NO_EVENT),
    "data that is no object": (b'{"type": "detect", "data": [1]}\n', NO_EVENT),
    "names that are no list": (b'{"type": "detect", "data": {"names": 5}}\n', b"must be a list"),
    "a gigantic payload": (
        b'{"type": "audio-chunk", "payload_length": 1000000000000}\n',
        b"payload_length must be a whole number from 0 to 1048576",
    ),
    "gigantic data": (b'{"type": "detect", "data_length": 1000000000000}\n', b"from 0 to 65536"),
    "a negative length": (b'{"type": "detect", "payload_length": -1}\n', b"from 0 to 1048576"),
    "a length that is a fraction": (b'{"type": "detect", "payload_length": 1e3}\n', b"from 0 to 1048576"),
    "data that is no JSON": (b'{"type": "detect", "data_length": 3}\nabc', NO_JSON),
    "a rate of 4 Hz": (audio(4, 2, 1), b"audio of 4 Hz, 2 bytes a sample and 1 channels cannot be heard"),
    "a rate that is none": (audio(float("nan"), 2, 1), b"the whole numbers rate, width and channels"),
    "three bytes a sample": (audio(16_000, 3, 1), b"1, 2 or 4 bytes and 1 or 2 channels can"),
    "seven channels": (audio(16_000, 2, 7), b"1, 2 or 4 bytes and 1 or 2 channels can"),
    "half a sample": (audio(16_000, 2, 1, b"abc"), b"a whole sample of every channel"),
}


MORE_THAN_IS_READ = ("bytes", "a long line")
"""The connection is reset, with what was answered, where a client sent more than was read."""


def test_what_cannot_be_answered_is_refused_in_words_and_disturbs_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            await client.said(*started())
            for what, (sent, why) in HOSTILE.items():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                said = b""
                try:
                    said = await reader.read()
                except ConnectionResetError:  # more was sent than was read
                    assert what in MORE_THAN_IS_READ
                assert (b'"type": "error"' in said and why in said) or what in MORE_THAN_IS_READ, (what, said)
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'{"type": "ping", "data": {"text": "\\ud800"}}\n{"type": "nothing"}\n')
            assert b"pong" in await reader.readline()
            writer.close()
            assert names(await client.hear(1)) == ["okay_nabu"]

    run(scene())


def test_a_client_that_stalls_or_vanishes_in_an_event_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = (
        b'{"type": "audio-chunk", "data": {"rate": 8000, "width": 2, "channels": 1}, "payload_length": 320}\n'
    )

    async def scene() -> None:
        async with serving(Device(tmp_path)) as port, player(port) as client:
            await client.said(*started())
            monkeypatch.setattr(wire, "EVENT_SECONDS", 0.0)
            reader, stalling = await asyncio.open_connection("127.0.0.1", port)
            stalling.write(half + bytes(100))
            assert b"must follow within" in await reader.read()
            monkeypatch.setattr(wire, "EVENT_SECONDS", 3_600.0)
            _, vanishing = await asyncio.open_connection("127.0.0.1", port)
            vanishing.write(half[:50])
            vanishing.transport.abort()
            stalling.close()
            assert names(await client.hear(1)) == ["okay_nabu"]

    run(scene())


def test_a_client_that_reads_no_answer_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WRITE_SECONDS", 0.05)

    async def scene() -> None:
        async with serving(Device(tmp_path)) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            ping = b'{"type": "ping", "data": {"text": "' + b"a" * 60_000 + b'"}}\n'
            with suppress(ConnectionError):
                while True:
                    writer.write(ping)
                    await writer.drain()
            monkeypatch.setattr(service, "WRITE_SECONDS", 3_600.0)
            async with player(port) as client:
                assert names(await client.hear(1)) == ["okay_nabu"]

    run(scene())


def test_there_is_room_for_so_many_clients_and_silent_ones_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_CLIENTS", 2)
    device = Device(tmp_path)

    async def scene() -> None:
        async with serving(device) as port, player(port) as listening, player(port) as silent:
            await listening.hear(0.1)
            await silent.said()
            async with player(port) as third:
                answer = await third.read_event()
                assert answer is not None
                assert answer.data["text"] == "there are 2 clients already"
                assert await third.read_event() is None
            device.clocks.move(service.SILENT_SECONDS)
            async with player(port) as fourth:
                assert names(await fourth.hear(1)) == ["okay_nabu"]
                assert await silent.read_event() is None
                assert names(await listening.hear(0.1)) == []

    run(scene())


def test_each_client_has_a_stream_of_its_own(tmp_path: Path) -> None:
    """Played at once, piece by piece: each hears its own wakes, and its own time is counted."""
    device = Device(tmp_path, {"okay_nabu": {5: 0.9, 30: 0.9}})

    async def scene() -> None:
        async with serving(device) as port, player(port) as one, player(port) as other:
            found: dict[str, list[int]] = {"one": [], "other": []}
            for number in range(60):
                found["one"] += [number] * len(names(await one.hear(0.1)))
                if number % 2:
                    found["other"] += [number] * len(names(await other.hear(0.1)))
            assert found == {"one": [5, 30], "other": [11]}

    run(scene())
    assert len(device.rows("wake_events")) + len(device.rows("detections")) == 3
