"""Authentication: who is signed in, with which roles, and that nothing is served without a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dashboard.auth import audit
from dashboard.auth.middleware import HEADER, LOOPBACK, Access, AuthMiddleware, ProxyTrust
from dashboard.auth.users import SESSIONS, Passwords, User, add_user, read_passwords
from dashboard.serve import Address, check
from fa_core.errors import BadInput, Refused

SECRET = "correct horse battery"


async def _page(request: Request) -> Response:
    return JSONResponse({"session": request.headers.get(HEADER)})


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(socket.headers.get(HEADER, ""))
    await socket.close()


Client = Callable[..., TestClient]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Return a function that opens a client of a page behind the middleware."""

    def opened(base: str = "http://127.0.0.1:8501", peer: str = "127.0.0.1", **access: object) -> TestClient:
        arguments = {
            "hosts": LOOPBACK,
            "folder": tmp_path,
            "local": User("here", frozenset({"operator"})),
        } | access
        routes = [Route("/{path:path}", _page), WebSocketRoute("/_stcore/stream", _socket)]
        app = Starlette(routes=routes, middleware=[Middleware(AuthMiddleware, access=Access(**arguments))])  # type: ignore[arg-type]
        return TestClient(app, base_url=base, client=(peer, 5000), follow_redirects=False)

    return opened


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Passwords:
    file = tmp_path_factory.mktemp("people") / "passwords"
    add_user(file, "ada", ["operator"], SECRET)
    add_user(file, "bo", [], SECRET + " too")
    return read_passwords(file)


def session_of(response: object) -> User | None:
    return SESSIONS.find(response.json()["session"] or "")  # type: ignore[attr-defined]


def test_without_authentication_every_session_has_the_local_user(client: Client) -> None:
    assert session_of(client().get("/segments")) == User("here", frozenset({"operator"}))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "", "[", "10.0.0.1"]
)
def test_an_unknown_host_name_is_not_served(client: Client, host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 421


def test_a_session_header_of_a_request_is_removed(client: Client, people: Passwords) -> None:
    key = SESSIONS.open(User("ada", frozenset({"operator"})))
    response = client(passwords=people).get("/", headers={HEADER: key, "accept": "application/json"})
    assert response.status_code == 401
    assert session_of(client().get("/", headers={HEADER: key})) == User("here", frozenset({"operator"}))


def test_with_passwords_nothing_is_served_without_a_session(client: Client, people: Passwords) -> None:
    unauthenticated = client(passwords=people)
    assert unauthenticated.get("/static/js/index.js").status_code == 401
    asked = unauthenticated.get("/segments?plan=a&by=b", headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (
        303,
        "/login?next=%2Fsegments%3Fplan%3Da%26by%3Db",
    )
    with (
        pytest.raises(WebSocketDisconnect),
        unauthenticated.websocket_connect("ws://127.0.0.1:8501/_stcore/stream"),
    ):
        pass


def sign_in(visitor: TestClient, name: str, password: str, target: str = "/segments") -> object:
    form = {"name": name, "password": password, "next": target}
    return visitor.post("/login", data=form, headers={"origin": str(visitor.base_url)})


def test_a_password_starts_a_session_and_signing_out_ends_it(
    client: Client, people: Passwords, tmp_path: Path
) -> None:
    visitor = client(passwords=people)
    signed_in = sign_in(visitor, "ada", SECRET)
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/segments")
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert session_of(visitor.get("/")) == User("ada", frozenset({"operator"}))
    with visitor.websocket_connect("ws://127.0.0.1:8501/_stcore/stream") as socket:
        assert SESSIONS.find(socket.receive_text()) == User("ada", frozenset({"operator"}))
    key = visitor.cookies["unheard_session"]
    visitor.post("/logout", headers={"origin": str(visitor.base_url)})
    assert SESSIONS.find(key) is None
    assert [action.name for action in audit.read(tmp_path)[0]] == ["sign in"]


@pytest.mark.parametrize("name, password", [("ada", "wrong"), ("nobody", SECRET), ("", ""), ("bo", SECRET)])
def test_a_wrong_name_and_a_wrong_password_get_the_same_message(
    client: Client, people: Passwords, name: str, password: str
) -> None:
    refused = sign_in(client(passwords=people), name, password)
    assert refused.status_code == 401
    assert "Name or password is wrong." in refused.text
    assert SECRET not in refused.text


def test_a_cross_origin_form_does_not_sign_in(client: Client, people: Passwords) -> None:
    visitor = client(passwords=people)
    form = {"name": "ada", "password": SECRET, "next": "/"}
    for headers in ({"origin": "https://evil.example"}, {}):
        assert visitor.post("/login", data=form, headers=headers).status_code == 405


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", ""],
)
def test_signing_in_never_redirects_to_another_host(client: Client, people: Passwords, target: str) -> None:
    assert sign_in(client(passwords=people), "ada", SECRET, target).headers["location"] == "/"


def test_the_sign_in_page_escapes_its_parameters(client: Client, people: Passwords) -> None:
    page = client(passwords=people).get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in page.text


def test_a_trusted_proxy_names_the_user_and_roles(client: Client) -> None:
    trust = {"proxy": ProxyTrust("x-user", "x-roles"), "proxies": frozenset({"10.0.0.7"})}
    headers = {"x-user": "ada", "x-roles": "reviewer, king"}
    known = client(peer="10.0.0.7", **trust)
    assert session_of(known.get("/", headers=headers)) == User("ada", frozenset({"reviewer"}))
    assert known.get("/").status_code == 401
    forged = {**headers, "x-forwarded-for": "10.0.0.7"}
    assert client(peer="10.0.0.8", **trust).get("/", headers=forged).status_code == 401


def test_unauthenticated_access_from_other_machines_is_refused(people: Passwords, tmp_path: Path) -> None:
    unauthenticated = Access(None, tmp_path, local=User("here", frozenset()))
    with pytest.raises(Refused, match="without authentication"):
        check(Address("0.0.0.0", 8501), unauthenticated)
    check(Address("127.0.0.1", 8501), unauthenticated)
    check(Address("0.0.0.0", 8501), Access(None, tmp_path, passwords=people))


@pytest.mark.parametrize(
    "text, message",
    [
        ("ada", "name:role,role:argon2 hash"),
        ("ada:viewer:plain", "not an argon2 hash"),
        ("a b:viewer:HASH", "a name is 1 to 64"),
        ("ada:king:HASH", "the roles are viewer, operator, reviewer"),
        ("ada:viewer:HASH\nada:viewer:HASH", "is listed twice"),
        ("# nobody", "it has no user"),
    ],
)
def test_a_bad_password_file_is_reported_by_line(
    tmp_path: Path, people: Passwords, text: str, message: str
) -> None:
    file = tmp_path / "passwords"
    known = people.people["ada"][1]
    file.write_text(text.replace("HASH", known))
    file.chmod(0o600)
    with pytest.raises(BadInput, match=message) as caught:
        read_passwords(file)
    assert known not in str(caught.value)


def test_a_password_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    add_user(file, "ada", ["viewer"], SECRET)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o666)
    with pytest.raises(BadInput, match="others may write"):
        read_passwords(file)
    with pytest.raises(BadInput, match="at least 10"):
        add_user(tmp_path / "new", "ada", [], "short")
