"""What a gateway serves of the publication directory: files by a closed grammar, to admitted devices."""

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from clients.device.remote import NotAdmitted, Unreachable
from fa_core.gateway import service
from fa_core.gateway.settings import LimitsSection
from fa_core.publication import directory
from tests.gateway.running_gateway import Gateway, gateway
from tests.gateway.test_service import AUTHORITY, DEVICE, NEXT, OTHER, UNKNOWN, ask, exchange, sign

DATA = b"an artefact"
NAME = directory.artefact_name(sha256(DATA).hexdigest())
TARGET = f"/v1/published/{NAME}"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("published") / "gateway", AUTHORITY) as running:
        directory.write(running.home.published, NAME, DATA)
        (running.home.folder / "secret").write_bytes(b"secret")
        yield running


def test_a_device_gets_a_file_and_hears_that_it_is_the_same(here: Gateway) -> None:
    line = here.line(DEVICE)
    status, tag, data = line.published(NAME, 100)
    assert (status, tag, data) == (200, f'"{sha256(DATA).hexdigest()}"', DATA)
    assert line.published(NAME, 100, tag) == (304, tag, b"")
    assert line.published(NAME, 100, '"another"')[::2] == (200, DATA)
    assert line.published(directory.model_name("00" * 32), 100)[0] == 404
    with pytest.raises(Unreachable):
        line.published(NAME, len(DATA) - 1)
    line.close()


def test_no_file_is_hashed_where_others_wait_for_it(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def hashing(data: bytes) -> object:
        with pytest.raises(RuntimeError):  # of this thread there is no loop: nobody waits for it
            asyncio.get_running_loop()
        threads.append(True)
        return sha256(data)

    monkeypatch.setattr(service, "sha256", hashing)
    assert ask(here, DEVICE, TARGET)[0] == 200
    assert threads


def test_nobody_else_gets_one(here: Gateway) -> None:
    assert exchange(here, "GET", TARGET, b"", {})[0] == 401
    assert ask(here, UNKNOWN, TARGET)[0] == 401
    assert exchange(here, "GET", TARGET, b"", sign(here, DEVICE, "GET", NEXT))[0] == 401
    assert exchange(here, "GET", "/v1/published/../secret", b"", {})[0] == 401
    line = here.line(UNKNOWN)
    with pytest.raises(NotAdmitted):
        line.published(NAME, 100)
    line.close()


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "artefacts/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "secret",
        "artefacts",
        "",
        "/etc/passwd",
        NAME + "/..",
        NAME + "%00",
        NAME.upper(),
    ],
)
def test_no_name_leads_out_of_the_directory(here: Gateway, path: str) -> None:
    status, _, body = ask(here, DEVICE, f"/v1/published/{path}")
    assert status in (401, 404)  # 401 where a percent sign made it another target than was signed
    assert body == b""


def test_control_a_path_that_is_only_joined_leads_out(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "read", lambda folder, name: Path(folder, name).read_bytes())
    assert ask(here, DEVICE, "/v1/published/../secret")[::2] == (200, b"secret")


def test_fetching_takes_no_timestamp_from_the_long_poll(here: Gateway) -> None:
    early = sign(here, DEVICE, "GET", NEXT)
    assert ask(here, DEVICE, TARGET)[0] == 200
    assert exchange(here, "GET", NEXT, b"", early)[0] == 204


def test_a_device_that_fetches_too_often_is_slowed_down(tmp_path: Path) -> None:
    limits = LimitsSection(requests_a_second=1e-6, burst=2.0)
    with gateway(tmp_path / "gateway", AUTHORITY, limits=limits) as here:
        assert [ask(here, DEVICE, TARGET)[0] for _ in range(3)] == [404, 404, 429]
        assert ask(here, OTHER, TARGET)[0] == 404
