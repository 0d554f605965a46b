"""Where the dashboard listens: the next free port, and a path behind a proxy (FIELD 12)."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dashboard.auth.middleware import LOOPBACK, Access, AuthMiddleware
from dashboard.auth.under_path import UnderPath
from dashboard.auth.users import add_user, read_passwords
from dashboard.serve import Address, _listening
from dashboard.style import shell
from fa_core.cli import build
from fa_core.errors import BadInput
from tests.ports import free_ports

SECRET = "correct horse battery"


def test_a_taken_port_leads_to_the_next_one() -> None:
    first = free_ports(3)
    with _listening(Address("127.0.0.1", first), 3) as one, _listening(Address("127.0.0.1", first), 3) as two:
        assert [each.getsockname()[1] for each in (one, two)] == [first, first + 1]


def test_a_port_that_was_asked_for_is_used_or_refused() -> None:
    port = free_ports()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with (
            pytest.raises(BadInput, match="cannot be used: Address already in use; --port names another"),
            _listening(Address("127.0.0.1", port), 1),
        ):
            pass


@pytest.mark.parametrize("text", ["voice", "/a b", "/a//b", "/<script>", "/a?b", "//evil.example"])
def test_a_base_path_is_a_plain_path(text: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["dashboard", "--store", str(tmp_path), "--base-path", text])
    assert isinstance(result.exception, BadInput)
    assert "write a path such as /voice" in str(result.exception)


async def _path(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


@pytest.fixture
def client(tmp_path: Path) -> Callable[[str], TestClient]:
    """Return a function that opens a client of a dashboard under a path, with passwords."""
    file = tmp_path / "passwords"
    add_user(file, "ada", [], SECRET)

    def opened(base: str) -> TestClient:
        access = Access(LOOPBACK, tmp_path, passwords=read_passwords(file), base=base)
        layers = [Middleware(UnderPath, base=base), Middleware(AuthMiddleware, access=access)]
        app = Starlette(routes=[Route("/{path:path}", _path)], middleware=layers)
        return TestClient(app, base_url="http://127.0.0.1:8501", follow_redirects=False)

    return opened


def test_signing_in_and_out_stays_under_the_path(client: Callable[[str], TestClient]) -> None:
    browser = client("/voice")
    asked = browser.get("/voice/segments?plan=x", headers={"accept": "text/html"})
    assert asked.headers["location"] == "/voice/login?next=%2Fsegments%3Fplan%3Dx"
    form = browser.get(asked.headers["location"])
    assert 'action="/voice/login"' in form.text
    data = {"name": "ada", "password": SECRET, "next": "/segments?plan=x"}
    origin = {"origin": "http://127.0.0.1:8501"}
    signed_in = browser.post("/voice/login", data=data, headers=origin)
    assert signed_in.headers["location"] == "/voice/segments?plan=x"
    assert "Path=/voice;" in signed_in.headers["set-cookie"]
    assert browser.get("/voice/segments").text == "/segments"
    assert browser.post("/voice/logout", headers=origin).headers["location"] == "/voice/login"
    assert browser.get("/voice/segments").status_code == 401


def test_a_proxy_may_take_the_path_off_before(client: Callable[[str], TestClient]) -> None:
    assert client("/voice").get("/login").status_code == 200


def test_the_path_itself_leads_to_its_folder(client: Callable[[str], TestClient]) -> None:
    """The page names its scripts relative to its own address."""
    assert client("/voice").get("/voice").headers["location"] == "/voice/"
    assert client("/voice").get("/voices/login").status_code == 401


def test_without_a_path_nothing_changes(client: Callable[[str], TestClient]) -> None:
    asked = client("").get("/segments", headers={"accept": "text/html"})
    assert asked.headers["location"] == "/login?next=%2Fsegments"


def test_the_page_names_its_server_with_the_path() -> None:
    assert 'BACKEND_BASE_URL:window.location.origin+"/voice"}' in shell._page("/voice")
