"""`fa rollout`: exit codes, what is printed, and a rollout by its commands alone."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import UnheardError
from fa_core.rollout import judging
from fa_core.rollout.document import canonical
from fa_core.rounds import keys
from fa_core.trust.enrolment import write_key
from tests.rollout import rolling
from tests.rollout.rolling import (
    AUTHOR,
    FOLDER,
    RESULT,
    START,
    WEEK,
    Away,
    Rolling,
    StandIn,
    rollout,
    shipped,
)


@pytest.fixture
def here(fleet: Rolling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rolling:
    """A store of its own keys, the rollout's file with its plans, and the stand-in for the gate."""
    monkeypatch.setattr(judging, "Gate", StandIn)
    text = (FOLDER / "embed-2.yaml").read_text(encoding="utf-8")
    models = shipped().models
    for old, new in (
        (models.baseline.sha256, rolling.hashed("micro-1")),
        (models.candidate.sha256, rolling.hashed("embed-2")),
        (shipped().gate.test_set, RESULT.hash),
    ):
        text = text.replace(old, new)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    for name in ("gate", "live"):
        (tmp_path / f"{name}.yaml").write_text((FOLDER / f"embed-2-{name}.yaml").read_text(encoding="utf-8"))
    (tmp_path / "result.json").write_bytes(RESULT.document())
    return fleet


def fa(fleet: Rolling, *words: str, at: datetime | None = None) -> Result:
    store = ("--store", str(fleet.folder.parent / "store"))
    clock = () if at is None else ("--at", at.isoformat())
    return CliRunner().invoke(build(), ["rollout", *words, *clock, *store])


def code(result: Result) -> int:
    """The exit code, as `fa` turns an error into one."""
    error = result.exception
    return error.exit_code if isinstance(error, UnheardError) else result.exit_code


def said(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_rollout_by_its_commands(here: Rolling) -> None:
    folder = here.folder.parent
    file, result = str(folder / "r.yaml"), str(folder / "result.json")
    started = fa(here, "start", file, "--test-set", result, "--json", at=START)
    assert (code(started), said(started)["state"]) == (0, "shadow"), started.output
    idle = fa(here, "decide", "embed-2", at=START)
    assert (code(idle), "look 1 is due from" in idle.output) == (3, True)
    here.now = START + WEEK
    here.release("gate", 1)
    assert code(fa(here, "hold", "embed-2@1", "--why", "an incident", at=here.now)) == 0
    assert code(fa(here, "decide", "embed-2", at=here.now)) == 3
    assert code(fa(here, "resume", "embed-2", at=here.now)) == 0
    expanded = fa(here, "decide", rollout().hash.hex()[:10], "--json", at=here.now)
    assert (code(expanded), said(expanded)["share"], said(expanded)["verdict"]) == (0, "1/10", "expand")
    assert code(fa(here, "complete", "embed-2", at=here.now)) == 3
    verified = fa(here, "verify", "embed-2", "--json")
    assert (code(verified), said(verified)["good"]) == (0, True), verified.output
    shown = fa(here, "status", "embed-2", at=here.now)
    assert "live on 10% of the devices; stage 1 is due" in shown.output
    assert "by the witness" in shown.output
    here.now += WEEK
    here.release("live", -1)
    assert code(fa(here, "decide", "embed-2", at=here.now)) == 4
    assert code(fa(here, "decide", "embed-2", at=here.now)) == 4
    rows = said(fa(here, "status", "--json", at=here.now))["rollouts"]
    assert [(each["rollout"], each["state"], each["next"]) for each in rows] == [
        ("embed-2@1", "rolled_back", None)
    ]
    whole = said(fa(here, "status", "embed-2", "--json", at=here.now))
    assert [each["verdict"] for each in whole["decisions"]] == [
        "expand",
        "hold",
        "hold",
        "expand",
        "roll_back",
    ]
    assert code(fa(here, "rollback", "embed-2", at=here.now)) == 3
    assert (folder / "store" / "published" / "rollouts").is_dir()


def test_a_log_that_was_written_past_the_rules_does_not_verify(here: Rolling) -> None:
    folder = here.folder.parent
    fa(here, "start", str(folder / "r.yaml"), "--test-set", str(folder / "result.json"), at=START)
    assert code(fa(here, "verify", "embed-2")) == 0
    assert code(fa(here, "verify", "embed-2", "--witness-key", "ab" * 32)) == 2


def test_kill_ends_it(here: Rolling) -> None:
    folder = here.folder.parent
    fa(here, "start", str(folder / "r.yaml"), "--test-set", str(folder / "result.json"), at=START)
    killed = fa(here, "kill", "embed-2", "--json", at=START)
    assert (code(killed), said(killed)["state"]) == (0, "killed")


def test_a_rollback_says_what_is_promised_while_the_witness_is_away(
    here: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices follow it by the log alone; `status` and the next `decide` say what is left to do."""
    folder, real = here.folder.parent, keys.local_witness
    fa(here, "start", str(folder / "r.yaml"), "--test-set", str(folder / "result.json"), at=START)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "local_witness", lambda *given: Away(real(*given), cosigns=False))
        held = fa(here, "hold", "embed-2", at=START)
        assert code(held) == 0
        assert "was not informed of the hold: the witness does not answer; nothing expands" in held.stderr
        back = fa(here, "rollback", "embed-2", at=START)
        assert (code(back), "devices do not have it" in back.output) == (0, False)
        assert "Connected devices that follow it are back on the baseline within 300 s" in back.output
        assert "was not informed of the end: the witness does not answer" in back.stderr
        assert "`fa rollout decide embed-2@1` reports it" in back.stderr
    assert "has not cosigned this yet" in fa(here, "status", "embed-2", at=START).output
    assert not said(fa(here, "status", "embed-2", "--json", at=START))["cosigned"]
    again = fa(here, "decide", "embed-2@1", at=START)
    assert (code(again), again.stderr) == (4, "")
    assert said(fa(here, "status", "embed-2", "--json", at=START))["cosigned"]


def test_a_check_says_what_each_group_can_show(here: Rolling) -> None:
    file = str(here.folder.parent / "r.yaml")
    good = fa(here, "check", file)
    assert code(good) == 0
    assert "es-en" in good.output
    found = said(fa(here, "check", file, "--devices", "40000", "--json"))
    smallest = found["groups"]["es-en"]["smallest"]
    assert smallest == sorted(smallest, reverse=True)
    assert smallest[-1] < said(fa(here, "check", file, "--json"))["groups"]["es-en"]["smallest"][-1]
    blind = fa(here, "check", file, "--devices", "2000")
    assert (code(blind), "can see too little" in str(blind.exception)) == (3, True)
    hidden = fa(here, "check", file, "--devices", "300")
    assert (code(hidden), "would not be shown" in str(hidden.exception)) == (3, True)


def test_a_check_names_line_and_column(here: Rolling) -> None:
    file = here.folder.parent / "r.yaml"
    file.write_text(file.read_text().replace("looks: 4", "looks: 99"))
    wrong = fa(here, "check", str(file))
    assert code(wrong) == 2
    assert str(wrong.exception).startswith(f"{file}:26:10: ")


def test_a_floor_that_no_device_would_heed_is_refused_at_its_place(here: Rolling) -> None:
    """By check, sign and start: above a model, a name that nobody has, and below what devices keep."""
    folder = here.folder.parent
    file, result = folder / "r.yaml", str(folder / "result.json")
    text = file.read_text()
    write_key(folder / "plan.key", AUTHOR)
    for floor, message in (
        ("micro-2", "is above the baseline, `micro-1`"),
        ("mirco-1", "no model is called"),
    ):
        file.write_text(text.replace("floor: micro-1", f"floor: {floor}"))
        for words in (
            ("check",),
            ("sign", "--key", str(folder / "plan.key")),
            ("start", "--test-set", result),
        ):
            wrong = fa(here, words[0], str(file), *words[1:])
            assert code(wrong) == 2
            assert str(wrong.exception).startswith(f"{file}:22:10: ")
            assert message in str(wrong.exception)
    file.write_text(text)
    assert code(fa(here, "start", str(file), "--test-set", result, at=START)) == 0
    file.write_text(text.replace("floor: micro-1", "floor: micro-0").replace("revision: 1", "revision: 2"))
    lower = fa(here, "check", str(file))
    assert (code(lower), "below `micro-1`, the floor of embed-2@1" in str(lower.exception)) == (2, True)


def test_a_signature_is_read_beside_the_file(here: Rolling) -> None:
    folder = here.folder.parent
    file, result = str(folder / "r.yaml"), str(folder / "result.json")
    write_key(folder / "plan.key", AUTHOR)
    assert code(fa(here, "sign", file, "--key", str(folder / "plan.key"))) == 0
    text = (folder / "r.yaml").read_text()
    (folder / "r.yaml").write_text(text.replace("lease: 7d", "lease: 6d"))
    stale = fa(here, "start", file, "--test-set", result, at=START)
    assert (code(stale), "signs another version" in str(stale.exception)) == (2, True)
    (folder / "r.yaml").write_text(text)
    assert code(fa(here, "start", file, "--test-set", result, at=START)) == 0
    shown = said(fa(here, "status", "embed-2", "--json", at=START))
    assert shown["signer"] == AUTHOR.public_key().public_bytes_raw().hex()
    assert shown["document"] == json.loads(canonical(rollout()))


def test_what_is_refused_before_anything_is_written(here: Rolling) -> None:
    folder = here.folder.parent
    file, result = str(folder / "r.yaml"), str(folder / "result.json")
    assert code(fa(here, "decide", "embed-2", at=START)) == 2
    assert code(fa(here, "start", file, "--test-set", str(folder / "none.json"), at=START)) == 2
    assert code(fa(here, "start", file, "--test-set", result, "--at", "tomorrow")) == 2
    assert code(fa(here, "start", file, "--test-set", result, "--log-key", file, at=START)) == 2
    assert here.entries() == []
