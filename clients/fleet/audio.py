"""Speech, rooms and noise, in memory only: 16 kHz float64 in units of full scale. Nothing is ever saved.

The rooms are exponentially decaying noise behind a direct sound (Polack's model of late reverberation;
J.-D. Polack, PhD thesis, 1988); the noises are babble of human speech and 1/f^k noise.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
from hibari import Hibari
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from clients.fleet.voices import HIBARI
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from fa_core.errors import BadInput

Audio = NDArray[np.float64]

ESPEAK_RATE = 22_050
WAV_HEADER = 44
HUMAN_SPEECH = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
SEGMENT_SECONDS = 8

NO_SOUND = {"PULSE_SERVER": "unix:/nonexistent"}
"""espeak-ng connects to a sound server even when it writes to a pipe, and leaves directories behind."""


@dataclass(frozen=True)
class DeviceClass:
    """How one class of device captures speech: its room, its microphone's band and level, the noise."""

    name: str
    decay_s: float
    """Time in which the room's echo falls by 60 dB."""
    direct_db: float
    """Direct sound over echo, by energy."""
    level_db: float
    """Speech level at the converter, dB of full scale."""
    band_hz: tuple[float, float]
    babble: float
    """Share of clips whose noise is people talking; the rest is coloured noise."""
    noise_slope: float
    """Power of the coloured noise falls as 1/f^slope."""


DEVICE_CLASSES: Mapping[str, DeviceClass] = MappingProxyType(
    {
        "phone": DeviceClass("phone", 0.20, 12.0, -24.0, (80.0, 7_500.0), 0.5, 1.0),
        "speaker": DeviceClass("speaker", 0.45, 5.0, -33.0, (60.0, 7_500.0), 0.6, 1.0),
        "watch": DeviceClass("watch", 0.25, 8.0, -36.0, (200.0, 5_000.0), 0.2, 2.0),
    }
)


def require_speech() -> None:
    """Raise BadInput with the line to install what is missing: the synthesiser or the human speech."""
    missing = [] if shutil.which("espeak-ng") else ["espeak-ng"]
    missing += [] if any(HUMAN_SPEECH.glob("*.g722")) else ["asterisk-core-sounds-en-g722"]
    if missing:
        raise BadInput(
            f"speech for a fleet needs {' and '.join(missing)}, which this machine does not have: "
            f"sudo apt-get install {' '.join(missing)}"
        )


@cache
def _hibari() -> Hibari:
    return Hibari()


def synthesise(voice: str, text: str, pace: float = 1.0, pitch: int = 50) -> Audio:
    """Speak a text: 16 kHz, peak at 0.5, silence cut from both ends.

    `pace` 1.0 is 160 words a minute; `pitch` runs from 0 to 99 (espeak-ng voices only).
    """
    if voice == HIBARI:
        sound = resample_poly(_hibari()(text, speed=pace, seed=pitch).astype(np.float64), 2, 3)
    else:
        command = ["espeak-ng", "-v", voice, "-s", str(round(160 * pace)), "-p", str(pitch), "--stdout", text]
        wave = subprocess.run(command, capture_output=True, check=True, env=os.environ | NO_SOUND).stdout
        sound = resample_poly(np.frombuffer(wave, "<i2", offset=WAV_HEADER).astype(np.float64), 320, 441)
    peak = np.abs(sound).max(initial=0.0)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * peak)
    if not loud.size:
        raise BadInput(f"the synthesiser is silent in the voice {voice!r}; is its data installed?")
    trimmed: Audio = 0.5 / peak * sound[loud[0] : loud[-1] + 1]
    return trimmed


@cache
def human_speech() -> NDArray[np.int16]:
    """Return recorded human speech without a wake word: about 25 minutes, int16 of shape (segments, 8 s).

    Debian's asterisk-core-sounds-en-g722 (one speaker; CC BY-SA 3.0), its short prompts joined in the
    order of their names.
    """
    clips: list[NDArray[np.int16]] = []
    for path in sorted(HUMAN_SPEECH.rglob("*.g722")):
        with av.open(str(path), format="g722") as container:
            clips.extend(frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0))
    speech = np.concatenate(clips)
    length = SEGMENT_SECONDS * SAMPLE_RATE
    return speech[: speech.size // length * length].reshape(-1, length)


def human_segment(number: int) -> Audio:
    """Return one segment of the recorded human speech."""
    segment: Audio = human_speech()[number] / 32_768.0
    return segment


@cache
def _babble_track() -> Audio:
    """Four people talking at once for a minute and a half, of power 1."""
    together = np.resize(human_speech(), (4, 90 * SAMPLE_RATE)).sum(axis=0, dtype=np.float64)
    track: Audio = together / _rms(together)
    return track


def babble(samples: int, randomness: np.random.Generator) -> Audio:
    """Return a stretch of several people talking at once, of power 1."""
    track = _babble_track()
    start = int(randomness.integers(track.size))
    stretch = np.take(track, np.arange(start, start + samples), mode="wrap")
    return stretch / max(_rms(stretch), 1e-9)


def coloured_noise(samples: int, slope: float, randomness: np.random.Generator) -> Audio:
    """Return noise whose power falls as 1/f^slope above 50 Hz, of power 1."""
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50.0)
    spectrum = randomness.normal(size=(2, frequency.size)) * frequency ** (-slope / 2)
    noise = np.fft.irfft(spectrum[0] + 1j * spectrum[1], samples)
    return noise / max(_rms(noise), 1e-9)


def capture(
    speech: Audio,
    device: DeviceClass,
    snr_db: float,
    randomness: np.random.Generator,
    *,
    lead_s: float = 0.3,
    tail_s: float = 0.4,
) -> Pcm:
    """Return what a device captures of a speech: its room, noise at `snr_db`, its band and its level, int16.

    Signal to noise is measured over the speech itself, after the room; the noise also fills the lead
    before it and the tail after it.
    """
    room = _room(device, randomness)
    lead, tail = round(lead_s * SAMPLE_RATE), round(tail_s * SAMPLE_RATE)
    wet = np.zeros(lead + speech.size + tail)
    echo = fftconvolve(speech, room)[: speech.size + tail]
    wet[lead : lead + echo.size] = echo
    level = _rms(wet[lead : lead + speech.size])
    if randomness.random() < device.babble:
        noise = babble(wet.size, randomness)
    else:
        noise = coloured_noise(wet.size, device.noise_slope, randomness)
    mixed = wet / level + noise * 10 ** (-snr_db / 20)
    band = butter(2, device.band_hz, "bandpass", fs=SAMPLE_RATE, output="sos")
    captured = sosfilt(band, mixed) * 10 ** (device.level_db / 20)
    pcm: Pcm = np.clip(np.round(captured * 32_768), -32_768, 32_767).astype(np.int16)
    return pcm


def _room(device: DeviceClass, randomness: np.random.Generator) -> Audio:
    samples = round(device.decay_s * SAMPLE_RATE)
    echo = randomness.normal(size=samples) * 10 ** (-3 * np.arange(samples) / samples)
    echo[:40] = 0.0
    echo *= 10 ** (-device.direct_db / 20) / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    return echo


def _rms(sound: Audio) -> float:
    return float(np.sqrt(np.mean(sound**2)))
