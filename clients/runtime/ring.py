"""The only place where audio rests: a few seconds of it, in memory, overwritten as it goes.

Nothing here can write a file, and the buffer is zeroed when its owner is done with it.
"""

import numpy as np
import webrtcvad

from clients.runtime.detectors import SAMPLE_RATE, Pcm

SECONDS = 3.0
FRAME = SAMPLE_RATE // 50
"""Samples of one 20 ms frame, the unit of speech and noise."""


class Ring:
    """The last few seconds of one microphone, 16 kHz mono signed 16 bit."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._samples = np.zeros(int(seconds * SAMPLE_RATE), np.int16)
        self._next = 0
        self._filled = 0

    def push(self, pcm: Pcm) -> None:
        """Take in samples over the oldest ones."""
        pcm = pcm[-self._samples.size :]
        first = min(pcm.size, self._samples.size - self._next)
        self._samples[self._next : self._next + first] = pcm[:first]
        self._samples[: pcm.size - first] = pcm[first:]
        self._next = (self._next + pcm.size) % self._samples.size
        self._filled = min(self._samples.size, self._filled + pcm.size)

    def last(self, samples: int) -> Pcm:
        """Return a copy of the newest samples, oldest first; fewer where fewer were pushed."""
        samples = min(samples, self._filled)
        return np.take(self._samples, np.arange(self._next - samples, self._next), mode="wrap")

    def snr_db(self) -> float | None:
        """Return how far speech stands above the noise in the buffer; see `snr_db`."""
        return snr_db(self.last(self._filled))

    def wipe(self) -> None:
        """Zero the buffer."""
        self._samples[:] = 0
        self._next = self._filled = 0


def snr_db(pcm: Pcm) -> float | None:
    """Return the signal-to-noise ratio of a stretch of audio in dB, within [-10, 60].

    Frames of 20 ms are called speech or noise by WebRTC's voice activity detector; the noise power is
    taken off the speech power. None where either kind is missing: then there is nothing to compare.
    """
    frames = pcm[: pcm.size // FRAME * FRAME].reshape(-1, FRAME)
    detector = webrtcvad.Vad(2)
    speech = np.array([detector.is_speech(frame.tobytes(), SAMPLE_RATE) for frame in frames], np.bool_)
    if not speech.any() or speech.all():
        return None
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    noise = max(float(power[~speech].mean()), 1.0)
    signal = max(float(power[speech].mean()) - noise, noise / 10)
    return _bounded(10 * float(np.log10(signal / noise)))


def _bounded(value: float) -> float:
    return round(min(60.0, max(-10.0, value)), 1)
