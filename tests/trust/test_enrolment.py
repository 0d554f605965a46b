"""The authority admits devices, once each, and its key is readable by its owner alone."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from fa_core.cli.enrol import app
from fa_core.errors import BadInput
from fa_core.secagg.identity import certificate_message, signed
from fa_core.trust import enrolment

RUNNER = CliRunner()


def test_init_then_device_then_list(tmp_path: Path) -> None:
    public = json.loads(RUNNER.invoke(app, ["init", str(tmp_path), "--json"]).output)["public_key"]
    assert (tmp_path / "authority.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "authority.pub").read_text().strip() == public
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    command = ["device", key.hex(), "--authority", str(tmp_path), "--name", "hall, left"]
    certificates = {RUNNER.invoke(app, command).output.strip() for _ in range(2)}
    assert len(certificates) == 1
    message = certificate_message(key)
    assert signed(bytes.fromhex(certificates.pop()), message, bytes.fromhex(public))
    assert not signed(bytes(64), message, bytes.fromhex(public))
    rows = json.loads(RUNNER.invoke(app, ["list", "--authority", str(tmp_path), "--json"]).output)
    assert rows == [{"device": key.hex(), "name": "hall, left"}]
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


def test_no_private_key_is_shown() -> None:
    authority = enrolment.Authority.generate()
    private = authority.key.private_bytes_raw().hex()
    identity = authority.enrol()
    for text in (repr(authority), repr(identity), str(identity)):
        assert private not in text
        assert identity.key.private_bytes_raw().hex() not in text
        assert "key=" not in text
