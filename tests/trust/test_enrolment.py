"""The authority admits devices, once each, and its key is readable by its owner alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from fa_core.cli.enrol import app
from fa_core.errors import BadInput
from fa_core.secagg.identity import certified, population_id
from fa_core.trust import enrolment

RUNNER = CliRunner()


def test_init_then_device_then_list(tmp_path: Path) -> None:
    public = json.loads(RUNNER.invoke(app, ["init", str(tmp_path), "--json"]).output)["public_key"]
    assert (tmp_path / "authority.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "authority.pub").read_text().strip() == public
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    command = ["device", key.hex(), "--authority", str(tmp_path), "--name", "hall, left"]
    command += ["--population", "homes"]
    certificates = {RUNNER.invoke(app, command).output.strip() for _ in range(2)}
    assert len(certificates) == 1
    certificate = bytes.fromhex(certificates.pop())
    assert certificate[:32] == population_id("homes")
    assert certified(key, certificate, bytes.fromhex(public))
    elsewhere = population_id("others") + certificate[32:]
    for bad in (bytes(96), elsewhere, certificate[:-1], b""):
        assert not certified(key, bad, bytes.fromhex(public))
    rows = json.loads(RUNNER.invoke(app, ["list", "--authority", str(tmp_path), "--json"]).output)
    line = {"device": key.hex(), "name": "hall, left", "population": "homes", "owner": key.hex()}
    assert rows == [line]
    assert key.hex()[:8] in RUNNER.invoke(app, ["list", "--authority", str(tmp_path)]).output


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        enrolment.load(tmp_path)
    enrolment.create(tmp_path)
    with pytest.raises(BadInput, match="never overwritten"):
        enrolment.create(tmp_path)
    for text in ("", "zz", "00" * 31, "00" * 33, "é"):
        with pytest.raises(BadInput, match="64 hexadecimal digits"):
            enrolment.parse_hex(text)
    (tmp_path / "authority.key").write_text("not a key")
    with pytest.raises(BadInput, match=r"authority\.key: expected a key"):
        enrolment.load(tmp_path)
    (tmp_path / "devices.csv").write_text("one,two,three\n")
    with pytest.raises(BadInput, match=r"devices\.csv:1"):
        enrolment.registered(tmp_path)
    for data in (b"\xe4,hall\n", b"x" * 200_000):
        (tmp_path / "devices.csv").write_bytes(data)
        with pytest.raises(BadInput, match="no register of devices"):
            enrolment.registered(tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        enrolment.read_hex(tmp_path)


def test_a_device_belongs_to_one_population(tmp_path: Path) -> None:
    """A second population would be a second budget for the same events."""
    enrolment.create(tmp_path)
    device = enrolment.Enrolled(bytes(32), "hall", "homes", "a household")
    first = enrolment.register(tmp_path, device)
    assert enrolment.register(tmp_path, device) == first
    with pytest.raises(BadInput, match="registered in population 'homes'"):
        enrolment.register(tmp_path, replace(device, population="others"))


def test_owners_follow_the_register(tmp_path: Path) -> None:
    enrolment.create(tmp_path)
    owner_of = enrolment.Owners(tmp_path / enrolment.REGISTER)
    assert owner_of(bytes(32)) == ""
    enrolment.register(tmp_path, enrolment.Enrolled(bytes(32), "hall", "homes", "a household"))
    assert owner_of(bytes(32)) == "a household"
    assert owner_of(bytes(31) + b"1") == ""


def test_no_private_key_is_shown() -> None:
    authority = enrolment.Authority.generate()
    private = authority.key.private_bytes_raw().hex()
    identity = authority.enrol("a fleet")
    for text in (repr(authority), repr(identity), str(identity)):
        assert private not in text
        assert identity.key.private_bytes_raw().hex() not in text
        assert "key=" not in text
