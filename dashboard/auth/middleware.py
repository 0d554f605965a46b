"""Authentication middleware: nothing of the dashboard, not even its scripts, is served without a session.

ASGI middleware in front of Streamlit. A session has an unguessable key, in a cookie that scripts cannot read; the
middleware passes it to the pages in a header of its own, and removes that header from every incoming request.
"""

import html
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.auth import audit
from dashboard.auth.users import SESSION_SECONDS, SESSIONS, Passwords, User, roles_of

HEADER: Final = "x-unheard-session"
COOKIE: Final = "unheard_session"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
MOST_TRIES, TRY_SECONDS = 5, 60.0
MOST_BODY: Final = 4096
PAGE: Final = Path(__file__).parent / "login.html"


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """Which headers of which proxies name the user and the user's roles."""

    user_header: str
    roles_header: str | None
    proxies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Access:
    """How users are authenticated: by password, by a trusted proxy's header, or, on this machine only, not at all.

    Attributes:
        hosts: the host names that the dashboard is served under; None for any.
        folder: where the audit trail is.
        local: the user of every session where neither passwords nor a proxy are set.
    """

    hosts: frozenset[str] | None
    folder: Path
    local: User | None = None
    passwords: Passwords | None = None
    proxy: ProxyTrust | None = None


@dataclass(slots=True)
class _FailedSignIns:
    """Failed sign-ins of each address within the last minute."""

    times: dict[str, list[float]] = field(default_factory=dict)

    def too_many(self, address: str) -> bool:
        now = time.monotonic()
        recent = [at for at in self.times.get(address, []) if at > now - TRY_SECONDS]
        self.times = {each: times for each, times in self.times.items() if times[-1] > now - TRY_SECONDS}
        if recent:
            self.times[address] = recent
        return len(recent) >= MOST_TRIES

    def add(self, address: str) -> None:
        self.times.setdefault(address, []).append(time.monotonic())


class AuthMiddleware:
    """ASGI middleware that serves only sessions that `access` allows."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._failed = _FailedSignIns()
        self._by_user: dict[User, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if not self._known_host(connection):
            await _reject(scope, receive, send, PlainTextResponse("this host name is not served here", 421))
            return
        if scope["type"] == "http" and self._access.passwords is not None:
            page = await self._sign_in_pages(Request(scope, receive))
            if page is not None:
                await page(scope, receive, send)
                return
        key = self._key(connection)
        if key is None:
            await _reject(scope, receive, send, self._unauthenticated(scope, connection))
            return
        headers = MutableHeaders(scope=scope)
        del headers[HEADER]
        headers[HEADER] = key
        await self._app(scope, receive, send)

    def _known_host(self, connection: HTTPConnection) -> bool:
        if self._access.hosts is None:
            return True
        try:
            name = urlsplit("//" + connection.headers.get("host", "")).hostname
        except ValueError:
            return False
        return name is not None and name.lower() in self._access.hosts

    def _key(self, connection: HTTPConnection) -> str | None:
        """Return the key of the request's session, None where it has none."""
        if self._access.passwords is not None:
            key = connection.cookies.get(COOKIE, "")
            return key if SESSIONS.find(key) is not None else None
        user = (
            self._access.local
            if self._access.proxy is None
            else self._proxy_user(connection, self._access.proxy)
        )
        if user is None:
            return None
        key = self._by_user.get(user, "")
        if SESSIONS.find(key) is None:
            key = self._by_user[user] = SESSIONS.open(user)
        return key

    @staticmethod
    def _proxy_user(connection: HTTPConnection, trust: ProxyTrust) -> User | None:
        peer = connection.client.host if connection.client else ""
        name = connection.headers.get(trust.user_header, "").strip()
        if peer not in trust.proxies or not name or len(name) > 200:
            return None
        roles = "" if trust.roles_header is None else connection.headers.get(trust.roles_header, "")
        return User(name, roles_of(roles))

    def _unauthenticated(self, scope: Scope, connection: HTTPConnection) -> Response:
        wants_page = "text/html" in connection.headers.get("accept", "")
        if self._access.passwords is not None and scope["type"] == "http" and wants_page:
            target = scope["path"] + (
                "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
            )
            return RedirectResponse(f"/login?next={quote(target, safe='')}", status_code=303)
        return PlainTextResponse("sign in first", status_code=401)

    async def _sign_in_pages(self, request: Request) -> Response | None:
        """Return the response to a request for signing in or out, None for other paths."""
        path, method = request.url.path, request.method
        if path == "/login" and method == "GET":
            return _login_page(request.query_params.get("next", "/"))
        if path not in ("/login", "/logout"):
            return None
        if method != "POST" or not _same_origin(request.headers):
            return PlainTextResponse("sign in and out by the form of this page", status_code=405)
        if path == "/logout":
            SESSIONS.close(request.cookies.get(COOKIE, ""))
            response: Response = RedirectResponse("/login", status_code=303)
            response.delete_cookie(COOKIE, httponly=True, samesite="lax")
            return response
        return await self._sign_in(request)

    async def _sign_in(self, request: Request) -> Response:
        assert self._access.passwords is not None
        address = request.client.host if request.client else ""
        form = await _form(request)
        target = _local_path(form("next"))
        if self._failed.too_many(address):
            return _login_page(target, "Too many failed sign-ins. Wait a minute, then try again.", 429)
        user = await anyio.to_thread.run_sync(self._access.passwords.check, form("name"), form("password"))
        if user is None:
            self._failed.add(address)
            audit.record(self._access.folder, "unknown", "sign in refused", {"address": address})
            return _login_page(target, "Name or password is wrong.", 401)
        audit.record(self._access.folder, user.name, "sign in", {"address": address})
        response = RedirectResponse(target, status_code=303)
        response.set_cookie(
            COOKIE, SESSIONS.open(user), max_age=int(SESSION_SECONDS), httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


async def _form(request: Request) -> Callable[[str], str]:
    """Return a function that returns a field of a small form, empty where it is missing."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            body = b""
            break
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return lambda name: fields.get(name, [""])[0]


async def _reject(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
    else:
        await response(scope, receive, send)


def _same_origin(headers: Headers) -> bool:
    """Return whether a form came from a page of this host (browsers say so with every POST)."""
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "")


def _local_path(target: str) -> str:
    """Return a path of this dashboard, `/` for anything that would lead elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() else "/"


def _login_page(target: str, error: str = "", status: int = 200) -> Response:
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("{{next}}", html.escape(_local_path(target), quote=True))
    page = page.replace("{{error}}", html.escape(error))
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return HTMLResponse(page, status_code=status, headers=headers)
