"""The synthetic voices a fleet speaks with. They measure the synthesiser as much as the accent.

An accent is an espeak-ng language reading English; a speaker is one of espeak-ng's voice variants of it.
Speakers of the evaluation never train a detector of ours: `scripts/train_candidate_b` uses
`TRAINING_VARIANTS` of `TRAINING_ACCENTS` only.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accent:
    """A synthetic accent: its label in `devices.parquet`, its voice and its share of a fleet."""

    label: str
    espeak: str
    description: str
    share: float


ACCENTS: tuple[Accent, ...] = (
    Accent(
        "en-US",
        "en-us",
        "synthetic voice: General American (espeak-ng en-us; commands also hibari-tts heart)",
        0.22,
    ),
    Accent("en-US-nyc", "en-us-nyc", "synthetic voice: New York (espeak-ng en-us-nyc)", 0.07),
    Accent("en-GB", "en", "synthetic voice: British (espeak-ng en)", 0.12),
    Accent("en-GB-rp", "en-gb-x-rp", "synthetic voice: Received Pronunciation (espeak-ng en-gb-x-rp)", 0.07),
    Accent("en-GB-scotland", "en-gb-scotland", "synthetic voice: Scotland (espeak-ng en-gb-scotland)", 0.07),
    Accent(
        "en-GB-lancaster", "en-gb-x-gbclan", "synthetic voice: Lancaster (espeak-ng en-gb-x-gbclan)", 0.06
    ),
    Accent(
        "en-GB-wmids", "en-gb-x-gbcwmd", "synthetic voice: West Midlands (espeak-ng en-gb-x-gbcwmd)", 0.06
    ),
    Accent("en-029", "en-029", "synthetic voice: Caribbean (espeak-ng en-029)", 0.06),
    Accent("de-en", "de", "synthetic voice: German reading English (espeak-ng de)", 0.06),
    Accent("es-en", "es", "synthetic voice: Spanish reading English (espeak-ng es)", 0.07),
    Accent("it-en", "it", "synthetic voice: Italian reading English (espeak-ng it)", 0.05),
    Accent("nl-en", "nl", "synthetic voice: Dutch reading English (espeak-ng nl)", 0.04),
    Accent("hi-en", "hi", "synthetic voice: Hindi reading English (espeak-ng hi)", 0.05),
)

VARIANTS: tuple[str, ...] = ("", "+m3", "+f3")
"""The speakers of every accent, as espeak-ng voice variants."""

HIBARI = "hibari"
"""The one neural voice (hibari-tts, US English). Detector A detects no wake word in it at all, clean or not,
so it speaks commands, dictation and television, and wakes nothing."""

TELEVISION: tuple[str, ...] = (HIBARI, "en-us", "en", "en+m3")
"""Who speaks on television."""

TRAINING_ACCENTS: tuple[str, ...] = ("en-us", "en-us-nyc", "en", "en-gb-x-rp")
"""American and British only: where else B is worse is for an evaluation to find."""

TRAINING_VARIANTS: tuple[str, ...] = ("+m1", "+m4", "+m5", "+m7", "+f1", "+f2", "+f4", "+klatt")


def wake_speakers(accent: Accent) -> tuple[str, ...]:
    """Return the voices that say the wake word in an accent."""
    return tuple(accent.espeak + variant for variant in VARIANTS)


def command_speakers(accent: Accent) -> tuple[str, ...]:
    """Return the voices that speak commands and dictation in an accent."""
    voices = wake_speakers(accent)
    return (*voices, HIBARI) if accent.espeak == "en-us" else voices
