"""What a trained head has to go by: the bank's own captures, and moments in each device's own voices."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from clients.fleet.bank import SNR_LEVELS
from clients.fleet.bank import script as bank_script
from clients.fleet.habits import draw_devices
from clients.fleet.hearings import TAKES, Said, hear, judged, script, takes_of
from clients.fleet.voices import ACCENTS, VARIANTS
from clients.models.adapters import Adapters
from tests.fleet.heard import APART, bank, drawn
from tests.fleet.small import SPOKEN, real_rows

LABELS = [accent.label for accent in ACCENTS]
UNTIL = datetime(2026, 11, 22, tzinfo=UTC)


def test_a_hearing_of_the_bank_is_the_banks_own_capture() -> None:
    windows = hear(Said("bank", "en-US", SPOKEN[0]))
    for heard, row in zip(windows, real_rows(), strict=False):
        assert 1 / (1 + np.exp(-heard.base.max())) == pytest.approx(row["score_b"], abs=1e-9)


def test_no_utterance_of_another_set_is_the_banks() -> None:
    bank_numbers = {each.number for each in bank_script()}
    others = [each.utterance.number for each in script() if each.kind != "bank"]
    assert len({*others}) == len(others)
    assert not bank_numbers & {*others}


def test_devices_of_each_accent_score_by_its_adapter() -> None:
    directions = np.zeros((2, 96), np.float32)
    directions[0, 5] = 0.1  # 100 times that, for features that are divided by 100
    adapters = Adapters(
        "okay_nabu", "new", "accent", (APART, "other"), np.ones(4, np.float32), directions,
        np.zeros(2), np.array([0.5, 0.9]),
    )  # fmt: skip
    found, at = judged(bank(), drawn(), adapters), LABELS.index(APART)
    (row, *_) = (n for n, each in enumerate(drawn().accents) if each == APART)
    (live, candidate), windows = found.scores[:, row], drawn().windows[row]
    assert (live < found.thresholds[0]).all()
    assert candidate[at] == pytest.approx(1 / (1 + np.exp(-windows.base[0] - 10 * windows.features[0, 5])))
    # The others have no adapter that helps, and a threshold of 0.9, which is moved to 0.5.
    assert candidate[at - 1] == pytest.approx(1 / (1 + 9 * np.exp(-windows.base[0])))


def test_moments_are_in_the_voices_of_the_devices_owner() -> None:
    takes = takes_of(drawn(), "0" * 64)
    assert takes.vectors.shape == (len(ACCENTS), len(VARIANTS), 3, TAKES, 97)
    assert len(SNR_LEVELS) <= TAKES
    random = np.random.default_rng(0)
    devices = draw_devices(200, random)
    ids = pa.array([f"d{n:03d}" for n in range(200)])
    rows = takes.table(devices, ids, (UNTIL, 2), random)
    features = np.array(rows["features"].to_pylist())
    owner = np.array([int(each[1:]) for each in rows["device_id"].to_pylist()])
    apart = devices.accent[owner] == LABELS.index(APART)
    assert apart.any()
    assert (features[apart, 5] > 0.5).all()
    assert (features[~apart, 6] > 0.5).all()
    assert set(rows["base"].to_pylist()) == {"0" * 64}
    assert all(0 < (UNTIL - each).days + 1 <= 14 for each in rows["time"].to_pylist())
