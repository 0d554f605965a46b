"""Who owns the devices of a drawn fleet, and when each of them listens. Simulation only, by seed.

The shares and rates here are choices, made to be plausible, not measurements: heavy and light users
(lognormal), households of several speakers, a daily rhythm, environments that differ from home to home.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from clients.fleet.voices import ACCENTS

WEEK_HOURS = 7 * 24
CLASSES = ("phone", "speaker", "watch")
POWER_SOURCES = {"phone": "battery", "speaker": "mains", "watch": "battery"}
CLASS_SHARES = (0.55, 0.30, 0.15)
APP_VERSIONS = ("5.0", "5.1", "5.2")
APP_VERSION_SHARES = (0.10, 0.30, 0.60)

SPEAKER_SHARES = (0.48, 0.42, 0.10)
"""How often each voice variant is a household's main speaker."""
MAIN_SPEAKER = 0.85
"""Share of a household's speech that its main speaker says."""

RHYTHM = np.array([1, 1, 1, 1, 1, 2, 5, 9, 9, 7, 6, 6, 8, 7, 6, 6, 7, 9, 12, 13, 12, 9, 6, 3], np.float64)
"""How much is said in each hour of the day, UTC."""

TELEVISION_HOURS = (19, 20)
"""Hours of the day of the game show, which is on in the last weeks alone."""
TELEVISION_HOUSEHOLDS = 0.4
"""Share of households with a smart speaker that follow it,"""
TELEVISION_EVENINGS = 0.8
"""and share of evenings on which they do."""


@dataclass(frozen=True)
class Habits:
    """What one class of device is used for."""

    wakes_a_week: float
    """Median; the spread is lognormal with sigma 1, at most 600."""
    dictations_a_week: float
    listens_by_day: float
    listens_by_night: float
    plays: float
    """Share of hours with playback."""
    environments: tuple[float, float, float]
    """Share of hours that are quiet, moderate and noisy; homes vary around it."""
    slowness: float
    """How much longer the recogniser takes here than on the machine that scored the bank."""


HABITS: Mapping[str, Habits] = MappingProxyType(
    {
        "phone": Habits(16.0, 8.0, 0.60, 0.10, 0.12, (0.70, 0.22, 0.08), 2.0),
        "speaker": Habits(24.0, 0.5, 0.85, 0.40, 0.30, (0.80, 0.16, 0.04), 3.0),
        "watch": Habits(8.0, 3.0, 0.45, 0.05, 0.02, (0.62, 0.26, 0.12), 5.0),
    }
)


@dataclass(frozen=True)
class Devices:
    """D devices; every array has one row for each. Codes index ACCENTS, CLASSES and APP_VERSIONS."""

    accent: NDArray[np.int64]
    device_class: NDArray[np.int64]
    app_version: NDArray[np.int64]
    speakers: NDArray[np.float64]
    """Share of what is said that each of the three speakers says, (D, 3)."""
    wakes_a_week: NDArray[np.float64]
    dictations_a_week: NDArray[np.float64]
    environments: NDArray[np.float64]
    """Share of hours that are quiet, moderate, noisy, (D, 3)."""
    television: NDArray[np.bool_]


@dataclass(frozen=True)
class Hours:
    """R hours in which a device listened, ordered by device and time."""

    device: NDArray[np.int64]
    hour: NDArray[np.int64]
    """Hours since the first week began, at midnight UTC; 168 a week."""
    environment: NDArray[np.int64]
    """0 quiet, 1 moderate, 2 noisy."""
    playback: NDArray[np.bool_]
    television: NDArray[np.bool_]
    """The game show is on (and `playback` with it)."""
    minutes: NDArray[np.int64]


def draw_devices(count: int, randomness: np.random.Generator) -> Devices:
    """Draw the owners of `count` devices."""
    shares = np.array([accent.share for accent in ACCENTS])
    accent = randomness.choice(len(ACCENTS), count, p=shares / shares.sum())
    device_class = randomness.choice(len(CLASSES), count, p=CLASS_SHARES)
    main = randomness.choice(len(SPEAKER_SHARES), count, p=SPEAKER_SHARES)
    speakers = np.full((count, len(SPEAKER_SHARES)), (1 - MAIN_SPEAKER) / (len(SPEAKER_SHARES) - 1))
    speakers[np.arange(count), main] = MAIN_SPEAKER
    habits = [HABITS[name] for name in CLASSES]
    usual = np.array([h.environments for h in habits])[device_class]
    environments = randomness.standard_gamma(6.0 * usual)
    heavy = randomness.lognormal(0.0, 1.0, count)
    wakes = np.array([h.wakes_a_week for h in habits])[device_class] * heavy
    dictations = np.array([h.dictations_a_week for h in habits])[device_class]
    return Devices(
        accent=accent,
        device_class=device_class,
        app_version=randomness.choice(len(APP_VERSIONS), count, p=APP_VERSION_SHARES),
        speakers=speakers,
        wakes_a_week=np.minimum(wakes, 600.0),
        dictations_a_week=dictations * randomness.lognormal(0.0, 1.0, count),
        environments=environments / environments.sum(axis=1, keepdims=True),
        television=(device_class == CLASSES.index("speaker"))
        & (randomness.random(count) < TELEVISION_HOUSEHOLDS),
    )


def draw_hours(
    devices: Devices, weeks: int, randomness: np.random.Generator, television_weeks: int = 1
) -> Hours:
    """Draw the hours of these weeks in which each device listens, and what they are like. The game show is on
    in the last `television_weeks` of them."""
    habits = [HABITS[name] for name in CLASSES]
    shape = (devices.accent.size, weeks * WEEK_HOURS)
    hour_of_day = np.arange(weeks * WEEK_HOURS) % 24
    daily = RHYTHM[hour_of_day] >= 5
    by_day = np.array([h.listens_by_day for h in habits])[devices.device_class, None]
    by_night = np.array([h.listens_by_night for h in habits])[devices.device_class, None]
    watching = devices.television[:, None] & np.isin(hour_of_day, TELEVISION_HOURS)
    watching &= randomness.random(shape) < TELEVISION_EVENINGS
    watching[:, : (weeks - television_weeks) * WEEK_HOURS] = False
    listens = (randomness.random(shape) < np.where(daily, by_day, by_night)) | watching
    device, hour = np.nonzero(listens)
    count = device.size
    television = watching[device, hour]
    plays = np.array([h.plays for h in habits])[devices.device_class[device]]
    playback = (randomness.random(count) < plays) | television
    environment = _which(devices.environments[device], randomness)
    environment += playback & (environment == 0) & ~television & (randomness.random(count) < 0.5)
    environment[television] = np.minimum(environment[television], 1)
    whole = (randomness.random(count) < 0.6) | television
    minutes = np.where(whole, 60, randomness.integers(10, 60, count))
    return Hours(device, hour, environment, playback, television, minutes)


def share_of_week(devices: Devices, hours: Hours) -> NDArray[np.float64]:
    """Return the share of its device's week of speech that falls into each listening hour, (R,)."""
    weight = RHYTHM[hours.hour % 24] * hours.minutes
    week = hours.hour // WEEK_HOURS * devices.accent.size + hours.device
    share: NDArray[np.float64] = weight / np.bincount(week, weight)[week]
    return share


def draw_speaker(
    devices: Devices, device: NDArray[np.int64], randomness: np.random.Generator
) -> NDArray[np.int64]:
    """Draw who speaks at each of these devices."""
    return _which(devices.speakers[device], randomness)


def _which(shares: NDArray[np.float64], randomness: np.random.Generator) -> NDArray[np.int64]:
    """Draw a column for each row of shares that sum to 1."""
    below = shares.cumsum(axis=1)[:, :-1] <= randomness.random((len(shares), 1))
    drawn: NDArray[np.int64] = below.sum(axis=1)
    return drawn
