"""The bench of training in a tiny form: its tables come of the same functions, over speech that is drawn."""

from fractions import Fraction

import numpy as np
import pytest

from clients.personal.adapter import Windows
from scripts.bench.training import (
    LABELS,
    PUBLIC,
    Fleet,
    Setting,
    Voices,
    accuracy,
    attacked,
    attacks,
    costs,
    draw,
)
from scripts.bench.training_voices import Spoken


def voices() -> Voices:
    """Return speech in which es-en lies apart from all others, and the base does not hear it."""
    random = np.random.default_rng(0)
    said: list[Spoken] = []
    heard: list[Windows] = []

    def say(group: str, accent: str, voice: str, takes: int, *, wake: bool) -> None:
        for _ in range(takes):
            features = 0.02 * random.standard_normal((3, 96))
            features[:, 5 if accent == "es-en" else 6] += 0.8 if wake else 0.0
            base = (-2.5 if accent == "es-en" else 2.0) if wake else -4.0
            said.append(Spoken(group, accent, voice, "x", wake, len(said)))  # type: ignore[arg-type]
            heard.append(Windows(base + 0.2 * random.standard_normal(3), features))

    for accent in LABELS:
        for voice in ("+a", "+b"):
            say("fleet", accent, accent + voice, 5, wake=True)
        say("test", accent, accent + "+c", 6, wake=True)
        say("test", accent, accent + "+c", 3, wake=False)
        if accent in PUBLIC:
            say("development", accent, accent + "+d", 6, wake=True)
        for group in ("development", "users"):
            say(group, accent, accent + "+e", 3, wake=False)
    human = [Windows(np.full(3, -6.0), 0.02 * random.standard_normal((3, 96))) for _ in range(20)]
    return Voices(tuple(said), tuple(heard), tuple(human))


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting.of(voices())


def test_the_table_of_accuracy(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy(setting, [2500], [Fraction(4)], 1)
    costs(setting)
    cells = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    rows = {name.strip(): rates.split() for name, rates, *_ in cells}
    assert rows["base"][1] == "100.0%"
    for name in ("2,500 devices, no noise", "2,500 devices, epsilon 4"):
        assert rows[name][1] == "0.0%"


def test_the_table_of_attacks(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    attacks(setting, 2500, Fraction(4), [0.2])
    said = capsys.readouterr().out.splitlines()
    found = {line.split("|")[0].strip(): line for line in said if "|" in line}
    assert found["nobody"].endswith("none")
    assert "shift es-en" in found["accent, 20%"]
    assert "bound es-en" in found["one past its bound, by 1,000"]


def test_attackers_are_the_share_that_they_are_called(setting: Setting) -> None:
    honest = draw(setting.speech, 200, np.random.default_rng(0))
    for attack in ("flip", "accent", "phrase"):
        fleet: Fleet = attacked(setting, honest, attack, 0.1, np.random.default_rng(1))
        pairs = zip(fleet.moments, honest.moments, strict=True)
        assert sum(not np.array_equal(one, other) for one, other in pairs) == 20
