"""The bank: every utterance scored once by real models; the audio is thrown away.

`script` lists what is said, by which synthetic voice, captured by which class of device in which noise. Each
hearing becomes one row of numbers. Fleets of any size are drawn from the bank without any more audio.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.fleet.audio import (
    DEVICE_CLASSES,
    Audio,
    capture,
    human_segment,
    human_speech,
    require_speech,
    synthesise,
)
from clients.fleet.phrases import (
    COMMANDS,
    DICTATIONS,
    NEAR_MISSES,
    TELEVISION_LINES,
    WAKE_PHRASES,
    WAKE_WORD,
)
from clients.fleet.recognise import Recogniser
from clients.fleet.voices import ACCENTS, TELEVISION, VARIANTS, command_speakers, wake_speakers
from clients.runtime import detectors
from clients.runtime.detectors import Detector, open_detector, peak_score
from fa_core.errors import BadInput

MODEL_VERSIONS = ("micro-1", "embed-1")
"""Detectors A and B. Both score the same utterances."""

SNR_LEVELS = (27.0, 17.0, 7.0)
"""Signal to noise of the three environments, dB: quiet, moderate, noisy."""

WAKE_TAKES = 3
LEAD_S = 1.2
"""Noise before a wake word: B wants two seconds before its first score."""

SEED = 2026
FORMAT = 1

Progress = Callable[[int, int], None]

_METADATA = b"unheard.bank"
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("accent", pa.string()),
        ("speaker", pa.int32()),
        ("device_class", pa.string()),
        ("snr_db", pa.float64()),
        ("score_a", pa.float64()),
        ("score_b", pa.float64()),
        ("intent_actual", pa.string()),
        ("intent_predicted", pa.string()),
        ("decode_ms", pa.float64()),
        ("words", pa.int32()),
        ("word_errors", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Utterance:
    """One thing said once, and the (device class, SNR) of each hearing of it.

    `kind` is wake, near_miss, television, human, command or dictation. `speaker` is the place of the voice
    among those of its accent. For human speech, `text` is the number of the recorded segment.
    """

    kind: str
    accent: str
    speaker: int
    voice: str
    text: str
    hearings: tuple[tuple[str, float], ...]
    number: int
    intent: str = ""


def script() -> tuple[Utterance, ...]:
    """List everything that is said, in a fixed order."""
    lines = (*_wakes(), *_others(), *_commands())
    return tuple(Utterance(*line[:6], number, *line[6:]) for number, line in enumerate(lines))


_Line = tuple[str, str, int, str, str, tuple[tuple[str, float], ...], str]


def _wakes() -> Iterator[_Line]:
    everywhere = tuple(product(DEVICE_CLASSES, SNR_LEVELS))
    for accent in ACCENTS:
        for (speaker, voice), take in product(enumerate(wake_speakers(accent)), range(WAKE_TAKES)):
            text = WAKE_PHRASES[take % len(WAKE_PHRASES)]
            yield "wake", accent.label, speaker, voice, text, everywhere, ""


def _others() -> Iterator[_Line]:
    classes = tuple(DEVICE_CLASSES)
    for a, accent in enumerate(ACCENTS):
        for n, text in enumerate(NEAR_MISSES[a % 2 :: 2]):
            speaker = (a + n) % len(VARIANTS)
            hearings = tuple((classes[(a + n + k) % 3], snr) for k, snr in enumerate(SNR_LEVELS))
            yield "near_miss", accent.label, speaker, wake_speakers(accent)[speaker], text, hearings, ""
    for (speaker, voice), text in product(enumerate(TELEVISION), TELEVISION_LINES):
        yield "television", "", speaker, voice, text, tuple(("speaker", snr) for snr in SNR_LEVELS), ""
    for n, segment in enumerate(range(1, len(human_speech()), 2)):
        hearing = (classes[n % 3], SNR_LEVELS[n // 3 % 3])
        yield "human", "", 0, "", str(segment), (hearing,), ""


def _commands() -> Iterator[_Line]:
    """Each accent says each sentence once; the nine cells of class and noise take turns to capture it."""
    classes = tuple(DEVICE_CLASSES)
    for a, accent in enumerate(ACCENTS):
        voices = command_speakers(accent)
        sentences = [("command", *command) for command in COMMANDS]
        sentences += [("dictation", text, "") for text in DICTATIONS]
        for n, (kind, text, intent) in enumerate(sentences):
            speaker = (a + n) % len(voices)
            hearings = tuple((classes[(n + k) % 3], SNR_LEVELS[(a + n // 3 + k) % 3]) for k in range(2))
            yield kind, accent.label, speaker, voices[speaker], text, hearings, intent


@cache
def _models() -> tuple[tuple[Detector, ...], Recogniser]:
    return tuple(open_detector(model, WAKE_WORD) for model in MODEL_VERSIONS), Recogniser()


def score(utterance: Utterance) -> list[dict[str, object]]:
    """Say an utterance, capture it on each of its devices, and return one row of numbers for each capture."""
    randomness = np.random.default_rng([SEED, utterance.number])
    if utterance.kind == "human":
        speech = human_segment(int(utterance.text))
    else:
        pace, pitch = randomness.uniform(0.88, 1.12), int(randomness.integers(38, 62))
        speech = synthesise(utterance.voice, utterance.text, pace, pitch)
    return [_score_hearing(utterance, speech, name, snr, randomness) for name, snr in utterance.hearings]


def _score_hearing(
    utterance: Utterance, speech: Audio, name: str, snr: float, randomness: np.random.Generator
) -> dict[str, object]:
    row: dict[str, object] = {
        "kind": utterance.kind,
        "accent": utterance.accent,
        "speaker": utterance.speaker,
        "device_class": name,
        "snr_db": snr,
    }
    two, recogniser = _models()
    device = DEVICE_CLASSES[name]
    if utterance.kind == "command":
        predicted, milliseconds = recogniser.intent(capture(speech, device, snr, randomness))
        row |= {"intent_actual": utterance.intent, "intent_predicted": predicted, "decode_ms": milliseconds}
    elif utterance.kind == "dictation":
        errors = recogniser.word_errors(capture(speech, device, snr, randomness), utterance.text)
        row |= {"words": len(utterance.text.split()), "word_errors": errors}
    else:
        captured = capture(speech, device, snr, randomness, lead_s=LEAD_S)
        row |= {name: peak_score(d, captured) for name, d in zip(("score_a", "score_b"), two, strict=True)}
    return row


def build_bank(utterances: tuple[Utterance, ...], progress: Progress) -> pa.Table:
    """Score utterances on every core. Raises BadInput where a synthesiser or the human speech is missing."""
    require_speech()
    rows: list[dict[str, object]] = []
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for done, scored in enumerate(pool.imap(score, utterances, chunksize=4), start=1):
            rows.extend(scored)
            progress(done, len(utterances))
    return describe(pa.Table.from_pylist(rows, schema=SCHEMA))


def describe(rows: pa.Table) -> pa.Table:
    """Note beside the rows what is needed to read them later: their format, and the models' thresholds."""
    limits = {model: open_detector(model, WAKE_WORD).threshold for model in MODEL_VERSIONS}
    described = json.dumps({"format": FORMAT, "thresholds": limits})
    return rows.replace_schema_metadata({_METADATA: described.encode()})


def bank_name() -> str:
    """Name the bank that this code, these models and these versions would build."""
    digest = hashlib.sha256(
        repr((FORMAT, SEED, SNR_LEVELS, LEAD_S, WAKE_TAKES, ACCENTS, TELEVISION)).encode()
    )
    digest.update(repr((WAKE_PHRASES, NEAR_MISSES, TELEVISION_LINES, COMMANDS, DICTATIONS)).encode())
    digest.update(repr(sorted(DEVICE_CLASSES.items())).encode())
    for package in ("pymicro-wakeword", "livekit-wakeword", "pocketsphinx", "hassil", "hibari-tts"):
        digest.update(version(package).encode())
    for head in sorted(Path(detectors.__file__).parent.glob("embed_*.npz")):
        digest.update(head.read_bytes())
    return f"bank-{digest.hexdigest()[:12]}.parquet"


def default_bank_path() -> Path:
    """Return where the bank is cached for this user: $XDG_CACHE_HOME or ~/.cache, under `unheard`."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache_home) / "unheard" / bank_name()


def open_bank(path: Path, progress: Progress) -> pa.Table:
    """Read the bank at `path`, or build it there. Raises BadInput for a file that is no bank of ours."""
    if path.exists():
        return read_bank(path)
    table = build_bank(script(), progress)
    write_bank(table, path)
    return table


def write_bank(table: pa.Table, path: Path) -> None:
    """Write a bank whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as beside:
        pq.write_table(table, Path(beside) / "bank.parquet")
        (Path(beside) / "bank.parquet").replace(path)


def read_bank(path: Path) -> pa.Table:
    """Read a bank that `write_bank` wrote."""
    advice = "remove it to have it built again, or name another with --bank"
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: cannot be read as a bank ({str(error).splitlines()[0]}); {advice}") from None
    described = (table.schema.metadata or {}).get(_METADATA)
    if described is None or not table.schema.equals(SCHEMA) or json.loads(described)["format"] != FORMAT:
        raise BadInput(f"{path}: not a bank that this version can read; {advice}")
    return table


def thresholds(bank: pa.Table) -> dict[str, float]:
    """Return each model's threshold at the time the bank was scored, by model version."""
    found: dict[str, float] = json.loads(bank.schema.metadata[_METADATA])["thresholds"]
    return found
