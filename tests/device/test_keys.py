"""Where a store's key may come from, and what is refused."""

import os
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as NoKeyring

from clients.device.keys import (
    ENVIRONMENT,
    create_key,
    key_from_environment,
    key_from_file,
    load_key,
    new_key,
    protected_keyring,
    write_key_file,
)
from fa_core.errors import BadInput, Refused


def test_a_key_file_comes_back_as_it_was_written_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = new_key()
    write_key_file(tmp_path / "store.key", key)
    assert key_from_file(tmp_path / "store.key") == key
    assert (tmp_path / "store.key").stat().st_mode & 0o777 == 0o600


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    write_key_file(path, new_key())
    before = path.read_bytes()
    with pytest.raises(Refused, match="exists"):
        write_key_file(path, new_key())
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_file_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "store.key"
    write_key_file(path, new_key())
    path.chmod(mode)
    with pytest.raises(Refused, match="0600"):
        key_from_file(path)


def test_a_link_in_place_of_a_key_file_is_refused(tmp_path: Path) -> None:
    write_key_file(tmp_path / "real.key", new_key())
    (tmp_path / "store.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(BadInput, match="cannot be read"):
        key_from_file(tmp_path / "store.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_key_file_is_refused(tmp_path: Path) -> None:
    write_key_file(tmp_path / "store.key", new_key())
    os.chown(tmp_path / "store.key", 65534, 65534)
    with pytest.raises(Refused, match="another user"):
        key_from_file(tmp_path / "store.key")


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31, "00" * 33, "passw0rd"])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "store.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadInput) as caught:
        key_from_file(path)
    with pytest.raises(BadInput) as from_environment:
        key_from_environment({ENVIRONMENT: text})
    assert not text or text not in str(caught.value) + str(from_environment.value)


def test_the_environment_may_hold_the_key() -> None:
    key = new_key()
    assert key_from_environment({ENVIRONMENT: key.secret.hex()}) == key
    with pytest.raises(BadInput, match=ENVIRONMENT):
        key_from_environment({})


def test_a_key_does_not_show_itself() -> None:
    key = new_key()
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


class PlaintextKeyring(KeyringBackend):
    """Stands for keyrings.alt.file.PlaintextKeyring, which keeps passwords in a readable file."""

    priority = 9  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        raise AssertionError("a plaintext keyring must not be asked")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise AssertionError("a plaintext keyring must not be given a key")


PlaintextKeyring.__module__ = "keyrings.alt.file"


class KeystoreKeyring(KeyringBackend):
    """Stands for the desktop's secret service."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password


KeystoreKeyring.__module__ = "keyring.backends.SecretService"


def test_a_plaintext_keyring_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keyring, "get_keyring", PlaintextKeyring)
    for ask in (load_key, create_key):
        with pytest.raises(Refused, match=r"keyrings\.alt\.file\.PlaintextKeyring"):
            ask("keyring", tmp_path / "unused", "kitchen")


def test_no_keyring_at_all_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"keyring\.backends\.fail\.Keyring"):
        protected_keyring(NoKeyring())


def test_a_chain_with_one_plaintext_keyring_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [KeystoreKeyring(), PlaintextKeyring()]
    monkeypatch.setattr(ChainerBackend, "backends", chain)
    with pytest.raises(Refused, match="PlaintextKeyring"):
        protected_keyring(ChainerBackend())
    chain.clear()
    with pytest.raises(Refused, match="no keystore"):
        protected_keyring(ChainerBackend())


def test_a_keystore_keeps_a_key_and_is_never_asked_to_replace_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = KeystoreKeyring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    key = create_key("keyring", tmp_path / "unused", "kitchen")
    assert load_key("keyring", tmp_path / "unused", "kitchen") == key
    with pytest.raises(Refused, match="kitchen"):
        create_key("keyring", tmp_path / "unused", "kitchen")
