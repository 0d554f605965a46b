"""What a second detector costs a device: CPU time for a second of audio, and how late a wake is with both.

    python -m scripts.bench.shadow [--seconds 60]

The audio is noise, for which the networks do the same work as for speech; the thresholds are below every
score, so that every moment is a wake of both and is described as one. Both detectors hear pieces of 10 ms, as
from a microphone. A wake's latency is the time from the piece that completes its hop until both are done with
that piece, on one core. Exit code 1 where it reaches 50 ms (99th percentile).
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from clients.runtime.detectors import SAMPLE_RATE, Pcm, open_detector
from clients.runtime.events import Listener
from clients.runtime.shadow import ShadowListener

PIECE = SAMPLE_RATE // 100
LIMIT_MS = 50.0
WAKE_WORD = "okay_nabu"
ACTING, CANDIDATE = "micro-1", "embed-1"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds for a second of audio; median, 99th percentile and highest of a piece's milliseconds
    by the clock, over the eighth of the pieces that took longest: a hop of 80 ms ends in every eighth."""

    per_second: float
    median: float
    p99: float
    highest: float


def cost(feed: Callable[[Pcm], object], audio: Pcm) -> Cost:
    """Return what it costs to feed audio (int16, 16 kHz) piece by piece."""
    taken = []
    before = time.process_time()
    for start in range(0, audio.size, PIECE):
        began = time.perf_counter()
        feed(audio[start : start + PIECE])
        taken.append(1_000 * (time.perf_counter() - began))
    spent = 1_000 * (time.process_time() - before)
    busy = np.sort(taken)[-max(1, len(taken) // 8) :]
    median, p99 = np.percentile(busy, (50, 99))
    return Cost(spent / (audio.size / SAMPLE_RATE), float(median), float(p99), float(busy.max()))


def costs(seconds: int) -> dict[str, Cost]:
    """Return the cost of each detector alone, and of both in shadow."""
    audio = (1_000 * np.random.default_rng(1).standard_normal(seconds * SAMPLE_RATE)).astype(np.int16)
    start, old, new = datetime.now(UTC), open_detector(ACTING, WAKE_WORD), open_detector(CANDIDATE, WAKE_WORD)
    warm = audio[: 3 * SAMPLE_RATE]
    for detector in (old, new):
        detector.threshold = -1.0
        detector.feed(warm)
    return {
        ACTING: cost(Listener(old, start).feed, audio),
        CANDIDATE: cost(Listener(new, start).feed, audio),
        "both": cost(ShadowListener(old, new, start).feed, audio),
    }


def main() -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="How much audio.")
    found = costs(parser.parse_args().seconds)
    print(f"{'':10}{'CPU ms a second':>17}{'a wake, ms: median':>20}{'99%':>8}{'highest':>9}")
    for name, each in found.items():
        print(f"{name:10}{each.per_second:17.1f}{each.median:20.2f}{each.p99:8.2f}{each.highest:9.2f}")
    extra = found["both"].per_second - found[ACTING].per_second
    print(f"the second detector adds {extra:.1f} ms of CPU for each second of audio")
    late = found["both"].p99 >= LIMIT_MS
    limit = f"{'MISSED:' if late else 'under'} {LIMIT_MS:.0f} ms"
    print(f"a wake with both takes {found['both'].p99:.1f} ms (99%), {limit}")
    return int(late)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    raise SystemExit(main())
