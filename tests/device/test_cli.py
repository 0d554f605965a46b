"""`fa device`, as its owner types it, and the page that explains it."""

import csv
import json
import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import Result
from typer.testing import CliRunner

from clients.device.config import DeviceConfig, read_config
from clients.device.contribution import Clock
from clients.device.interface import Declined
from clients.device.odometer import Budget
from clients.device.owner import DeviceHome
from clients.device.policy import FileReader, Policy, QuietHours
from clients.device.process import serve
from clients.device.records import Records
from clients.device.serve import SocketDevice
from fa_core.cli.device import app
from fa_core.errors import BadInput, Refused
from fa_core.trust.enrolment import Authority
from tests.device.setup import wake

PAGE = Path(__file__).parents[2] / "docs" / "device.md"
AUTHORITY = Authority.generate()


def example() -> str:
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = example().replace('authority = "' + "0" * 64, f'authority = "{AUTHORITY.public_key.hex()}')
    (tmp_path / "device.toml").write_text(text, "utf-8")
    return tmp_path


def fa(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--dir", str(folder)])


def said(folder: Path, *words: str) -> object:
    result = fa(folder, *words, "--json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def made(folder: Path) -> Path:
    public = fa(folder, "init").stdout.splitlines()[-1]
    certificate = AUTHORITY.certify(bytes.fromhex(public), "homes").hex()
    assert fa(folder, "enrolled", certificate).exit_code == 0
    return folder


def test_the_pages_example_is_a_configuration(folder: Path) -> None:
    config = read_config(folder / "device.toml")
    assert config.device_budget() == Budget(Fraction(1, 4), timedelta(28), timedelta(28))
    assert isinstance(config.device_policy(), Policy)
    assert isinstance(config.device_policy().quiet, QuietHours)
    assert config.endpoint(folder).relays == {998}
    assert config.pins().plan_keys[0].name == "voice quality"
    assert config.pins().helper == bytes(32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("plans_a_day", "plans_a_week"), "policy.plans_a_week"),
        (('rho = "1/4"', 'rho = "a lot"'), "budget.rho"),
        (('rho = "1/4"', "rho = -1"), "budget.rho"),
        (("wake_events = 30", "wake_events = 0"), "retention_days"),
        (("wake_events = 30", "sleep_events = 3"), "retention_days"),
        (('source = "file"', 'source = "sticky note"'), "key.source"),
        (("first = 2026-01-01", "first = 2028-01-01"), "trust.plan_keys.0"),
        (('log = "00', 'log = "zz'), "trust.log"),
        (('zone = "Europe/Berlin"', 'zone = "Europe/Atlantis"'), "policy.quiet.zone"),
        (('zone = "Europe/Berlin"', f'zone = "{"x" * 300}"'), "policy.quiet.zone"),
        (('rho = "1/4"', 'rho = "1e999999999"'), "budget.rho"),
        (("last = 2027-12-31", "last = 9999-12-31"), "trust.plan_keys.0"),
        (("skew_minutes = 1440", "skew_minutes = 0"), "trust.skew_minutes"),
        (('helper = "00', 'helper = "0'), "trust.helper"),
        (('min_kappa = "1/4"', 'min_kappa = "1/0"'), "policy.min_kappa"),
        (("intent = [", 'intent = ["a\\u202eb", '), "labels.intent"),
        (("intent = [", 'intent = ["Hey You", "hey you", '), "labels.intent"),
        (("[budget]", "[budget"), "is not TOML"),
        (("[budget]", f"x = {'[' * 100_000}"), "is not TOML"),
        (("[budget]", f"x = {'9' * 5_000}"), "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_key(
    folder: Path, change: tuple[str, str], words: str
) -> None:
    path = folder / "device.toml"
    path.write_text(path.read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(BadInput, match=re.escape(words)):
        read_config(path)


def test_a_configuration_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    path = folder / "device.toml"
    plain = read_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_config(path) == plain


def test_allowed_labels_are_read_in_their_normal_form(folder: Path) -> None:
    path = folder / "device.toml"
    path.write_text(path.read_text("utf-8").replace("intent = [", 'intent = ["cafe\u0301 ", '), "utf-8")
    assert read_config(path).labels.intent[0] == "café"


def test_the_contact_list_is_read_for_redaction_alone(folder: Path) -> None:
    path = folder / "device.toml"
    path.write_text('contacts = "contacts.txt"\n' + path.read_text("utf-8"), "utf-8")
    with pytest.raises(BadInput, match="contact list"):
        read_config(path).rules(folder)
    (folder / "contacts.txt").write_text("Ada Lovelace\n\n", "utf-8")
    rules = read_config(path).rules(folder)
    assert rules.redactor.redact("call ada") == "call CALL_CONTACT"
    assert "Ada" not in repr(rules)


def test_a_configuration_needs_nothing_but_a_name_and_keys() -> None:
    key = "0" * 64
    config = DeviceConfig.model_validate(
        {"name": "k", "trust": {"plan_keys": [], "log": key, "witness": key, "authority": key}}
    )
    assert config.conditions is None
    assert config.device_policy() == Policy()
    assert config.pins().helper is None


def test_a_device_is_made_once(folder: Path) -> None:
    assert fa(folder, "init").exit_code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert isinstance(fa(folder, "init").exception, BadInput)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in folder.glob("store.*")} == {0o600}


def test_a_certificate_by_somebody_else_is_refused(folder: Path) -> None:
    public = fa(folder, "init").stdout.splitlines()[-1]
    for certificate in (Authority.generate().certify(bytes.fromhex(public), "homes").hex(), "00", "x" * 192):
        assert isinstance(fa(folder, "enrolled", certificate).exception, BadInput)
    assert said(folder, "status")["enrolled"] is False  # type: ignore[index]


def test_consent_is_nothing_until_it_is_given_and_can_be_taken_back(folder: Path) -> None:
    made(folder)
    assert set(said(folder, "consent").values()) == {None}  # type: ignore[attr-defined]
    before = datetime.now(UTC)
    given = said(folder, "consent", "quality_metrics", "--days", "10")
    days = {(at + timedelta(days=10)).date().isoformat() for at in (before, datetime.now(UTC))}
    assert given["quality_metrics"][:10] in days  # type: ignore[index]
    assert "ended" in fa(folder, "consent", "quality_metrics", "--revoke").stdout
    assert set(said(folder, "consent").values()) == {None}  # type: ignore[attr-defined]
    assert isinstance(fa(folder, "consent", "advertising").exception, BadInput)
    assert isinstance(fa(folder, "consent", "debug", "--days", "9999").exception, BadInput)


def test_the_owner_sees_forgets_exports_and_verifies(folder: Path, tmp_path: Path) -> None:
    made(folder)
    fa(folder, "consent", "quality_metrics")
    now = datetime.now(UTC)
    home = DeviceHome.open(folder, now)
    home.store.record("wake_events", [wake(0, time=now - timedelta(hours=1))] * 3, "quality_metrics", now)
    home.store.close()
    state = said(folder, "status")
    assert state["rows"]["wake_events"] == {"quality_metrics": 3}  # type: ignore[index]
    assert state["central_noise"] is False  # type: ignore[index]
    assert "declined" in fa(folder, "status").stdout
    assert fa(folder, "receipts").stdout == "nothing was ever sent\n"

    out = tmp_path / "out"
    assert fa(folder, "export", "--out", str(out)).exit_code == 0
    rows = list(csv.DictReader((out / "wake_events.csv").open()))
    assert [row["wake_word"] for row in rows] == ["okay_nabu"] * 3
    assert json.loads((out / "donations.json").read_text()) == []
    assert {path.stat().st_mode & 0o077 for path in [out, *out.iterdir()]} == {0}
    assert isinstance(fa(folder, "export", "--out", str(out)).exception, BadInput)

    entry = said(folder, "forget", "--yes")
    assert entry["sentence"] == "You asked to forget everything; deleted 3 of wake_events."  # type: ignore[index]
    assert said(folder, "verify", "--head", entry["hash"])["holds"] is True  # type: ignore[index]
    assert isinstance(fa(folder, "verify", "--head", "0" * 64).exception, Refused)
    assert isinstance(fa(folder, "forget", "--yes", "--table", "diary").exception, BadInput)
    assert len(said(folder, "receipts", "--all")) == 3  # type: ignore[arg-type]


def test_forgetting_asks_first(folder: Path) -> None:
    made(folder)
    assert CliRunner().invoke(app, ["forget", "--dir", str(folder)], input="n\n").exit_code == 1
    assert len(said(folder, "receipts", "--all")) == 1  # type: ignore[arg-type]


def test_a_missing_key_is_reported_and_nothing_is_made(folder: Path) -> None:
    made(folder)
    (folder / "store.key").unlink()
    assert isinstance(fa(folder, "status").exception, BadInput)
    assert not (folder / "store.key").exists()


def test_the_devices_reader_is_the_file_that_is_named(folder: Path) -> None:
    home = DeviceHome.open(made(folder), datetime.now(UTC))
    device = home.device(Clock(lambda: datetime.now(UTC), lambda: 0.0))
    assert device._admission.conditions == FileReader(folder / "conditions.json")
    assert Records(home.store).enrolled()


def test_recordings_become_events_and_nothing_else(folder: Path) -> None:
    """Silence has no wake in it, but it was listened to; without consent even that is not kept."""
    made(folder)
    (folder / "audio").mkdir()
    soundfile.write(folder / "audio" / "silence.wav", np.zeros(90 * 16_000, np.int16), 16_000)
    nothing = {"wakes": 0, "near_misses": 0, "seconds": 90.0, "written": 0}
    assert said(folder, "listen", str(folder / "audio")) == nothing
    fa(folder, "consent", "quality_metrics")
    assert said(folder, "listen", str(folder / "audio" / "silence.wav"))["written"] >= 1  # type: ignore[index]
    assert isinstance(fa(folder, "listen", str(folder / "device.toml")).exception, BadInput)
    assert isinstance(fa(folder, "listen", str(folder), "--wake-word", "hello").exception, BadInput)


def test_the_process_serves_until_it_is_stopped_by_a_signal(folder: Path) -> None:
    made(folder)
    path = folder / "device.sock"
    child = os.fork()
    if child == 0:
        try:
            serve([folder])
        finally:
            os._exit(7)
    while not path.exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    with pytest.raises(Declined):
        SocketDevice(path).handle("join", b"hello")
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not path.exists()


def test_a_device_that_is_not_enrolled_is_not_served(folder: Path) -> None:
    fa(folder, "init")
    with pytest.raises(BadInput, match="not enrolled"):
        DeviceHome.open(folder, datetime.now(UTC)).device(Clock(lambda: datetime.now(UTC), lambda: 0.0))
