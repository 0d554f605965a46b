"""The bank: real scores, nothing kept of the audio, and every cell that a fleet is drawn from."""

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.fleet import audio
from clients.fleet.audio import DEVICE_CLASSES, human_speech, require_speech
from clients.fleet.bank import (
    SCHEMA,
    SNR_LEVELS,
    default_bank_path,
    open_bank,
    read_bank,
    score,
    script,
    thresholds,
    write_bank,
)
from clients.fleet.phrases import (
    COMMANDS,
    INTENTS,
    NEAR_MISSES,
    NOT_UNDERSTOOD,
    TELEVISION_LINES,
    TRAINING_NEGATIVES,
)
from clients.fleet.recognise import edit_distance
from clients.fleet.voices import ACCENTS, TELEVISION, TRAINING_ACCENTS, TRAINING_VARIANTS, VARIANTS
from fa_core.errors import BadInput
from tests.fleet.small import SPOKEN, real_rows, small_bank


def test_real_utterances_get_real_numbers() -> None:
    rows = real_rows()
    assert len(rows) == sum(len(utterance.hearings) for utterance in SPOKEN)
    wake = rows[0]
    limits = thresholds(small_bank())
    assert wake["score_a"] > limits["micro-1"]
    assert wake["score_b"] > limits["embed-1"]
    commands = [row for row in rows if row["kind"] == "command"]
    assert commands[0]["intent_predicted"] == "cancel_timer"
    assert {row["intent_predicted"] for row in commands} <= {*INTENTS, NOT_UNDERSTOOD}
    clean, foreign = (row for row in rows if row["kind"] == "dictation")
    assert clean["words"] == 7
    assert clean["word_errors"] <= foreign["word_errors"]


def test_the_same_utterance_scores_the_same() -> None:
    again, first = score(SPOKEN[0]), real_rows()[:2]
    assert [(row["score_a"], row["score_b"]) for row in again] == [
        (row["score_a"], row["score_b"]) for row in first
    ]


def test_scoring_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    score(SPOKEN[2])
    score(SPOKEN[8])
    assert not list(tmp_path.rglob("*"))


def test_the_bank_holds_numbers_and_closed_labels_only() -> None:
    said = {utterance.text for utterance in script() if utterance.kind != "human"}
    strings = {
        value for name in SCHEMA.names for value in small_bank()[name].to_pylist() if isinstance(value, str)
    }
    assert strings <= {u.kind for u in SPOKEN} | {a.label for a in ACCENTS} | {
        *DEVICE_CLASSES,
        *INTENTS,
        "",
        NOT_UNDERSTOOD,
    }
    assert not strings & said


def test_the_script_fills_every_cell_that_a_fleet_draws_from() -> None:
    cells = Counter(
        (u.kind, u.accent if u.kind != "human" else "", *hearing) for u in script() for hearing in u.hearings
    )
    for accent in ACCENTS:
        for name in DEVICE_CLASSES:
            for snr in SNR_LEVELS:
                assert cells["wake", accent.label, name, snr] % len(VARIANTS) == 0
                for kind in ("wake", "command", "dictation"):
                    assert cells[kind, accent.label, name, snr] > 0
    numbers = [utterance.number for utterance in script()]
    assert numbers == list(range(len(numbers)))


def test_twelve_accents_or_more_say_twenty_commands() -> None:
    assert len({accent.label for accent in ACCENTS}) >= 12
    assert len(COMMANDS) == 20
    assert {intent for _, intent in COMMANDS} == set(INTENTS)
    assert all(accent.description.startswith("synthetic voice: ") for accent in ACCENTS)


def test_candidate_b_learns_from_nothing_it_is_measured_on() -> None:
    learned = {accent + variant for accent in TRAINING_ACCENTS for variant in TRAINING_VARIANTS}
    measured = {accent.espeak + variant for accent in ACCENTS for variant in VARIANTS} | set(TELEVISION)
    assert not learned & measured
    assert not set(TRAINING_NEGATIVES) & {*NEAR_MISSES, *TELEVISION_LINES}
    assert all(int(u.text) % 2 for u in script() if u.kind == "human")
    assert len(human_speech()) > 150


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b c", "", 3),
        ("a b", "x a b y", 2),
        ("a b c", "b c a", 2),
    ],
)
def test_word_errors_are_the_edit_distance(said: str, heard: str, errors: int) -> None:
    assert edit_distance(said.split(), heard.split()) == errors


def test_missing_speech_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "HUMAN_SPEECH", tmp_path)
    with pytest.raises(BadInput, match="sudo apt-get install asterisk-core-sounds-en-g722"):
        require_speech()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="sudo apt-get install espeak-ng asterisk-core-sounds-en-g722"):
        require_speech()


def test_a_bank_survives_its_file_and_is_not_built_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bank.parquet"
    write_bank(small_bank(), path)
    assert open_bank(path, lambda done, total: pytest.fail("built again")).equals(small_bank())
    assert thresholds(read_bank(path)) == thresholds(small_bank())
    assert os.listdir(path.parent) == ["bank.parquet"]


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.parquet"
    write_bank(small_bank(), cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"cut\.parquet: cannot be read as a bank"):
        read_bank(cut)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(BadInput, match=r"other\.parquet: not a bank that this version can read"):
        read_bank(other)
    old = small_bank().replace_schema_metadata({b"unheard.bank": json.dumps({"format": 0}).encode()})
    pq.write_table(old, other)
    with pytest.raises(BadInput, match="not a bank that this version can read"):
        read_bank(other)


def test_the_default_bank_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_bank_path().parent == tmp_path / "unheard"
