"""The bench of training in a tiny form: its tables come of the same functions, over speech that is drawn."""

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from clients.personal.adapter import Windows
from clients.runtime.detectors import shipped_head
from fa_core.privacy.accounting import rho_for
from fa_core.training import checks
from fa_core.training.public import Clip
from fa_core.training.step import blocks_of
from scripts.bench import training
from scripts.bench.personal_voices.speakers import Set, Spoken
from scripts.bench.training_rounds.attacks import attacked, attacks, past_the_bound, seen
from scripts.bench.training_rounds.flower import Way, flower, updates
from scripts.bench.training_rounds.people import People, rows
from scripts.bench.training_rounds.rounds import DELTA, WORST, Setting, draw, measure, plan_for, released
from scripts.bench.training_rounds.voices import (
    CHOSEN,
    LABELS,
    LISTED,
    MEASURED,
    NEAR,
    PHRASES,
    PUBLIC,
    UNLISTED,
    WAKE_WORD,
    Voices,
    script,
)

RANDOM = np.random.default_rng


def clip(mark: int, base: float, random: np.random.Generator) -> Windows:
    features = 0.02 * random.standard_normal((3, 96))
    features[:, mark] += 0.8
    return Windows(base + 0.2 * random.standard_normal(3), features)


def voices() -> Voices:
    """Return speech in which es-en lies apart from all others, and the base does not hear it."""
    random = RANDOM(0)
    said: list[Spoken] = []
    heard: list[Windows] = []

    def say(group: Set, accent: str, voice: str, text: str, takes: int) -> None:
        for take in range(takes):
            wake, worst = text == "okay nabu", accent == "es-en"
            said.append(Spoken(group, accent, accent + voice, text, take, wake))
            base = (-2.5 if worst else 2.0) if wake else -4.0
            heard.append(clip(5 if wake and worst else 6 if wake else 7, base, random))

    for accent in LABELS:
        for voice in ("+a", "+b"):
            say("fleet", accent, voice, "okay nabu", 5)
        say("fleet", accent, "+a", UNLISTED, 1)
        say("fleet", accent, "+a", LISTED, 1)
        say("test", accent, "+c", "okay nabu", 6)
        if accent in PUBLIC:
            say("development", accent, "+d", "okay nabu", 6)
        for text in (MEASURED[0], UNLISTED, LISTED):
            say("test", accent, "+c", text, 1)
        for text in (NEAR[0], PHRASES[1], LISTED):
            say("development", accent, "+e", text, 1)
    human = [Windows(np.full(3, -6.0), 0.02 * random.standard_normal((3, 96))) for _ in range(20)]
    return Voices(tuple(said), tuple(heard), tuple(human))


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting.of(voices())


def es_en(printed: str) -> dict[str, float]:
    """Return the false reject rate of es-en in each row of a printed table."""
    cells = [line.split("|") for line in printed.splitlines() if "%" in line and "|" in line]
    return {row[0].strip(): float(row[2].split("%")[0]) for row in cells}


def test_the_table_of_accuracy(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    training.accuracy(setting, [2500], [Fraction(4)], 1)
    training.costs(setting)
    found = es_en(capsys.readouterr().out)
    assert found["base"] == 100
    base = measure(setting.base_heads(), setting.speech, setting.limit)
    assert (base.equal_rejects <= base.rejects).all()
    for name in ("2,500 devices, no noise", "2,500 devices, epsilon 4", "pooled", "fitted on the test clips"):
        assert found[name] == 0


def test_flower_trains_the_same_devices_and_its_noise_is_that_of_epsilon(setting: Setting) -> None:
    """Six standard deviations of a sum of squares are never reached in a life of runs."""
    fleet, way = draw(setting.speech, 150, RANDOM(0)), Way(rounds=2)
    heads, spent = flower(setting, fleet, None, replace(way, by_accent=True))
    assert measure(heads, setting.speech, setting.limit).rejects[WORST] == 0
    assert spent.size > 2 * 2 * 97 * 8
    (exact, _), *_ = flower(setting, fleet, None, replace(way, rounds=1))[0]
    (noisy, _), *_ = flower(setting, fleet, Fraction(1, 100), replace(way, rounds=1))[0]
    added = np.append(noisy.direction - exact.direction, noisy.bias - exact.bias)
    clip = float(np.median(np.linalg.norm(updates(setting, fleet, way.rate), axis=1)))
    sd = clip / (2 * float(rho_for(Fraction(1, 100), DELTA))) ** 0.5 / 150
    assert abs((added**2).mean() / sd**2 - 1) < 6 * (2 / 97) ** 0.5


def test_the_table_of_attacks(setting: Setting) -> None:
    found = dict(islice(attacks(setting, 2500, Fraction(4), [0.2]), 4))
    assert not found["nobody (unlisted phrase)"].alarms
    assert "shift es-en" in seen(found["away, 20% all es-en"].alarms)


def test_a_device_past_its_bound_is_seen_without_a_release_before(setting: Setting) -> None:
    fleet = draw(setting.speech, 2500, RANDOM(1))
    plan = plan_for(Fraction(4), fleet.clip(setting.center), setting.center, setting.base)
    release = released(plan, fleet, setting.base)
    assert not checks.sums(blocks_of(release), plan.gates, None)
    assert "bound es-en" in seen(checks.sums(blocks_of(past_the_bound(release)), plan.gates, None))


def test_attackers_are_the_share_that_they_are_called(setting: Setting) -> None:
    honest = draw(setting.speech, 200, RANDOM(0))
    plan = plan_for(Fraction(4), honest.clip(setting.center), setting.center, setting.base)
    assert plan.clip is not None
    for aim in ("away", "listed", "unlisted"):
        fleet = attacked(setting, honest, plan, aim, 0.1, worst=True)
        pairs = zip(fleet.moments, honest.moments, strict=True)
        bad = [at for at, (one, other) in enumerate(pairs) if not np.array_equal(one, other)]
        assert len(bad) == 20
        assert set(fleet.accents[bad]) == {WORST}
        assert np.linalg.norm(fleet.moments[bad[0]] - setting.center) == pytest.approx(float(plan.clip))


def test_sets_share_no_voice_and_lists_no_phrase() -> None:
    voices_of = {
        group: {each.voice for each in script() if each.group == group} for group in ("fleet", "test")
    }
    voices_of |= {
        group: {each.voice for each in script() if each.group == group} for group in ("development", "users")
    }
    assert len(set.union(*voices_of.values())) == sum(map(len, voices_of.values()))
    lists = [*NEAR, *MEASURED, *CHOSEN, *PHRASES, UNLISTED]
    assert len(set(lists)) == len(lists)
    assert all(
        sum(e.group == "test" and e.wake and e.accent == label for e in script()) == 100 for label in LABELS
    )


def test_people_are_heard_after_a_round(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    random, public = RANDOM(0), voices().public()
    public = replace(public, clips=tuple(each for each in public.clips if each.kind != "wake")
                     + tuple(Clip("wake", "", clip(6, 2.0, random)) for _ in range(10)))  # fmt: skip
    calls = tuple(clip(5, -2.5, random) for _ in range(20))
    apart = tuple(Windows(np.full(3, -6.0), 0.02 * random.standard_normal((3, 96))) for _ in range(9))
    among = People(shipped_head(WAKE_WORD), calls, public, apart, public.of("near"), 0.0)
    found = dict(rows(among, 500, Fraction(4), 2))
    assert found["base"].missed == 1
    assert found["500 devices, epsilon 4"].missed == 0
    training.human(tmp_path, tmp_path, None)
    assert "people: skipped, no recordings" in capsys.readouterr().out
