"""The wake-word service of a voice assistant, played to by the protocol's own client.

    python -m scripts.bench.wyoming [--words 40] [--streams 1 8] [--minutes 60] [--human DIR] [--device DIR]

1. Synthetic speech (the demo's voices, `clients.fleet.voices`): are the detections those of the detector
   alone, to the very chunk, on every stream? And how late is a `detection`: after the end of the word, which
   is for the most part the detector's own lag, and after the chunk that completed it, which is the service's.
   Streams are played in real time and all in step, so that every word reaches all of them at once.
2. Recordings of people, where a folder of them is given: they say "alexa", so that word is listened for.
3. The memory of the service over so many minutes of audio, sent as fast as it is heard.

The service is a process of its own (`fa device wyoming`), without consent, so nothing is stored. With
`--device`, 1. is measured again on a copy of a device whose adapter acts: base and adapter hear each stream,
the consents are the device's, and detections are to be those of the adapter alone.

Exit code 1 where detections differ, the service adds 50 ms or more (99th percentile), or its memory grows by
8 MB.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection

from clients.device.owner import DeviceHome
from clients.device.policy import utc_now
from clients.fleet.audio import synthesise
from clients.fleet.voices import ACCENTS, wake_speakers
from clients.personal import stages
from clients.personal.adapter import adapted
from clients.runtime.detectors import (
    SAMPLE_RATE,
    Detector,
    EmbeddingDetector,
    Pcm,
    open_detector,
    shipped_head,
)
from clients.runtime.events import Listener
from clients.runtime.sources import file_pieces, folder_files
from fa_core.errors import BadInput
from fa_core.publication.artefact import PERSONAL

WORD, HUMAN_WORD = "okay_nabu", "alexa"
CHUNK = 1_024
"""Samples of a chunk, 64 ms: what satellites send."""

GAP = np.zeros(3 * SAMPLE_RATE, np.int16)
LIMIT_MS = 50.0
LIMIT_MB = 8.0
SETTINGS = """
name = "bench"
[labels]
wake_word = ["okay_nabu", "alexa"]
model_version = ["micro-1"]
[trust]
plan_keys = []
log = "{key}"
witness = "{key}"
authority = "{key}"
"""


@dataclass(frozen=True, slots=True)
class Sound:
    """Audio, and the sample at which each word of it ends."""

    audio: Pcm
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """When each chunk was sent, and which one each detection named and when it came, in seconds."""

    sent: tuple[float, ...]
    detected: tuple[tuple[int, float], ...]


def joined(clips: Sequence[Pcm]) -> Sound:
    """Return clips one after the other, with silence around each. A word ends with its last loud sample."""
    parts, ends, size = [GAP], [], GAP.size
    for clip in clips:
        loud = np.flatnonzero(np.abs(clip.astype(np.int32)) > 0.05 * np.abs(clip.astype(np.int32)).max())
        ends.append(size + int(loud[-1]) + 1)
        parts += [clip, GAP]
        size += clip.size + GAP.size
    return Sound(np.concatenate(parts), tuple(ends))


def spoken(words: int) -> Sound:
    """Return the wake word in so many of the demo's voices."""
    voices = [voice for accent in ACCENTS for voice in wake_speakers(accent)]
    chosen = islice(cycle(voices[:: max(1, len(voices) // words)]), words)
    clips = (synthesise(voice, WORD.replace("_", " ")) for voice in chosen)
    return joined([(0.7 * 32_767 * clip / np.abs(clip).max()).astype(np.int16) for clip in clips])


def alone(sound: Sound, detector: Detector) -> list[int]:
    """Return the chunks in which the detector alone wakes."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    listener = Listener(detector, start)
    listener.feed(sound.audio)
    samples = [round((each - start).total_seconds() * SAMPLE_RATE) for each in listener.woke]
    return [(sample - 1) // CHUNK for sample in samples]


def adapter_of(folder: Path) -> Detector:
    """Return the adapter that acts on a device. Raises BadInput where none does."""
    home = DeviceHome.open(folder, utc_now())
    try:
        found = stages.load(home.store, WORD, utc_now())
    finally:
        home.store.close()
    if found is None or found.used.stage != "active":
        raise BadInput(f"{folder}: no adapter for {WORD} acts there")
    return EmbeddingDetector(adapted(shipped_head(WORD), found.delta.step, found.delta.threshold, PERSONAL))


@contextmanager
def service(device: Path | None = None) -> Iterator[tuple[int, int]]:
    """Run the service of a new device, or of a copy of one; yield its port and process."""
    fa = (sys.executable, "-m", "fa_core.cli", "device")
    with TemporaryDirectory() as folder:
        if device is None:
            (Path(folder) / "device.toml").write_text(SETTINGS.format(key=64 * "0"), "utf-8")
            DeviceHome.make(Path(folder), utc_now()).store.close()
        else:
            shutil.copytree(device, folder, dirs_exist_ok=True)
        model = ["--model", "embed-1"] if device else []
        running = subprocess.Popen(
            [*fa, "wyoming", "--dir", folder, "--uri", "tcp://127.0.0.1:0", *model],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert running.stdout is not None
        try:
            answers = next(line for line in running.stdout if line.startswith("answers at"))
            yield int(answers.split()[2].rpartition(":")[2]), running.pid
        finally:
            running.terminate()
            running.wait()
            running.stdout.close()


async def play(port: int, wake_word: str, audio: Pcm, *, paced: bool) -> Played:
    """Play audio as one stream, in real time where it is `paced`."""
    sent: list[float] = []
    detected: list[tuple[int, float]] = []
    async with AsyncTcpClient("127.0.0.1", port) as client:

        async def listen() -> None:
            while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
                if Detection.is_type(event.type):
                    detected.append((int(event.data["timestamp"]), time.perf_counter()))

        await client.write_event(Detect([wake_word]).event())
        await client.write_event(AudioStart(SAMPLE_RATE, 2, 1).event())
        listening, began = asyncio.create_task(listen()), time.perf_counter()
        for number, place in enumerate(range(0, audio.size, CHUNK)):
            if paced:
                due = began + (place + CHUNK) / SAMPLE_RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent.append(time.perf_counter())
            data = audio[place : place + CHUNK].tobytes()
            await client.write_event(AudioChunk(SAMPLE_RATE, 2, 1, data, number).event())
        await client.write_event(AudioStop().event())
        await client.write_event(Ping().event())
        await listening
    return Played(tuple(sent), tuple(detected))


async def together(port: int, sound: Sound, streams: int) -> list[Played]:
    """Play a sound on so many streams, in step."""
    return await asyncio.gather(
        *(play(port, WORD, sound.audio, paced=True) for _ in range(streams)),
    )


def after_word(sound: Sound, played: Played) -> list[float]:
    """Return how long after the end of its word each detection came, in ms, where it came after one."""
    found = []
    for chunk, at in played.detected:
        ended = [end for end in sound.ends if end <= (chunk + 1) * CHUNK]
        if ended:
            found.append(1_000 * (at - played.sent[0] - (ended[-1] - CHUNK) / SAMPLE_RATE))
    return found


def latencies(port: int, sound: Sound, counts: Sequence[int], detector: Detector) -> bool:
    """Play and print; return whether the detections are those of the detector alone, and none is late."""
    expected, good = alone(sound, detector), True
    print(f"{len(sound.ends)} words, {len(expected)} wakes by the detector alone")
    print(
        f"{'streams':>8}{'wakes':>7}{'after the word, ms: 50%':>25}{'99%':>7}{'our own: 50%':>14}{'99%':>7}"
    )
    for streams in counts:
        found = asyncio.run(together(port, sound, streams))
        same = all([chunk for chunk, _ in each.detected] == expected for each in found)
        own = [1_000 * (at - each.sent[chunk]) for each in found for chunk, at in each.detected]
        word = [late for each in found for late in after_word(sound, each)]
        figures = [*np.percentile(word or [np.nan], (50, 99)), *np.percentile(own or [np.nan], (50, 99))]
        print(
            f"{streams:8}{len(own):7}{figures[0]:25.0f}{figures[1]:7.0f}{figures[2]:14.1f}{figures[3]:7.1f}"
        )
        print(f"{'':8}the detections are {'those' if same else 'NOT those'} of the detector alone")
        good &= same and bool(own) and figures[3] < LIMIT_MS
    return good


def people(port: int, folder: Path | None) -> bool:
    """Play recordings of people and print; return whether the detections are those of the detector alone."""
    if folder is None or not folder.is_dir():
        print(f"recordings of people: skipped, {folder or 'no folder'} is there (--human DIR)")
        return True
    sound = joined([np.concatenate(list(file_pieces(path))) for path in folder_files(folder)])
    expected = alone(sound, open_detector("micro-1", HUMAN_WORD))
    found = asyncio.run(play(port, HUMAN_WORD, sound.audio, paced=False))
    same = [chunk for chunk, _ in found.detected] == expected
    print(f"recordings of people: {len(sound.ends)} of {HUMAN_WORD!r}, which is not the demo's {WORD!r}")
    print(f"{len(found.detected)} wakes, {'those' if same else 'NOT those'} of the detector alone")
    return same


def megabytes(pid: int) -> float:
    """Return the memory that a process has in use."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1_024


def memory(port: int, pid: int, sound: Sound, minutes: int) -> bool:
    """Play so many minutes as one stream and print; return whether the memory stayed flat."""
    audio = np.resize(sound.audio, SAMPLE_RATE * 60)

    async def sampled() -> list[float]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Detect([WORD]).event())
            found = []
            for _ in range(minutes):
                for place in range(0, audio.size, CHUNK):
                    data = audio[place : place + CHUNK].tobytes()
                    await client.write_event(AudioChunk(SAMPLE_RATE, 2, 1, data).event())
                await client.write_event(Ping().event())
                while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
                    pass
                found.append(megabytes(pid))
            return found

    found = asyncio.run(sampled())
    grown = found[-1] - found[0]
    flat = grown < LIMIT_MB
    print(
        f"memory after 1 minute of audio {found[0]:.1f} MB, after {minutes} {found[-1]:.1f} MB, highest "
        f"{max(found):.1f} MB: {'flat' if flat else 'NOT flat'}"
    )
    return flat


def main() -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=int, default=40, help="How many words are spoken.")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8], help="How many streams at once.")
    parser.add_argument("--minutes", type=int, default=60, help="How much audio the memory is looked at.")
    parser.add_argument("--human", type=Path, help="A folder of recordings of people who say 'alexa'.")
    parser.add_argument("--device", type=Path, help="The folder of a device on which an adapter acts.")
    given = parser.parse_args()
    sound = spoken(given.words)
    with service() as (port, pid):
        good = latencies(port, sound, given.streams, open_detector("micro-1", WORD))
        good &= people(port, given.human)
        good &= memory(port, pid, sound, given.minutes)
    if given.device is not None:
        print("with an adapter that acts:")
        with service(given.device) as (port, _):
            good &= latencies(port, sound, given.streams, adapter_of(given.device))
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
