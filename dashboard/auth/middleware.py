"""The gate: nothing of the dashboard, not even its scripts, is served to somebody who is not in.

It stands in front of Streamlit as ASGI middleware. Whoever is in has an unguessable key, in a cookie that
scripts cannot read; the gate hands it to the pages in a header of its own, and takes that header off whatever
comes from outside.
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
    """Which header of which proxy says who somebody is, and which one says as what."""

    user_header: str
    roles_header: str | None
    proxies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Access:
    """How people come in: by password, by a proxy's word, or, on this machine alone, by being here.

    Attributes:
        hosts: the names under which the dashboard answers; None for any.
        folder: where the audit trail is.
        local: who everybody is where neither passwords nor a proxy are set.
    """

    hosts: frozenset[str] | None
    folder: Path
    local: User | None = None
    passwords: Passwords | None = None
    proxy: ProxyTrust | None = None


@dataclass(slots=True)
class _Tries:
    """Failed sign-ins of each address within the last minute."""

    failed: dict[str, list[float]] = field(default_factory=dict)

    def too_many(self, address: str) -> bool:
        now = time.monotonic()
        recent = [at for at in self.failed.get(address, []) if at > now - TRY_SECONDS]
        self.failed = {who: times for who, times in self.failed.items() if times[-1] > now - TRY_SECONDS}
        if recent:
            self.failed[address] = recent
        return len(recent) >= MOST_TRIES

    def add(self, address: str) -> None:
        self.failed.setdefault(address, []).append(time.monotonic())


class AuthMiddleware:
    """ASGI middleware that lets in whom `access` lets in."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._tries = _Tries()
        self._by_user: dict[User, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if not self._host_is_ours(connection):
            await _refuse(scope, receive, send, PlainTextResponse("this host name is not served here", 421))
            return
        if scope["type"] == "http" and self._access.passwords is not None:
            page = await self._own_page(Request(scope, receive))
            if page is not None:
                await page(scope, receive, send)
                return
        key = self._key(connection)
        if key is None:
            await _refuse(scope, receive, send, self._turn_away(scope, connection))
            return
        headers = MutableHeaders(scope=scope)
        del headers[HEADER]
        headers[HEADER] = key
        await self._app(scope, receive, send)

    def _host_is_ours(self, connection: HTTPConnection) -> bool:
        if self._access.hosts is None:
            return True
        try:
            name = urlsplit("//" + connection.headers.get("host", "")).hostname
        except ValueError:
            return False
        return name is not None and name.lower() in self._access.hosts

    def _key(self, connection: HTTPConnection) -> str | None:
        """Return the session of whoever this is, None for somebody who is not in."""
        if self._access.passwords is not None:
            key = connection.cookies.get(COOKIE, "")
            return key if SESSIONS.find(key) is not None else None
        user = (
            self._access.local if self._access.proxy is None else self._named(connection, self._access.proxy)
        )
        if user is None:
            return None
        key = self._by_user.get(user, "")
        if SESSIONS.find(key) is None:
            key = self._by_user[user] = SESSIONS.open(user)
        return key

    @staticmethod
    def _named(connection: HTTPConnection, trust: ProxyTrust) -> User | None:
        peer = connection.client.host if connection.client else ""
        name = connection.headers.get(trust.user_header, "").strip()
        if peer not in trust.proxies or not name or len(name) > 200:
            return None
        said = "" if trust.roles_header is None else connection.headers.get(trust.roles_header, "")
        return User(name, roles_of(said))

    def _turn_away(self, scope: Scope, connection: HTTPConnection) -> Response:
        wants_page = "text/html" in connection.headers.get("accept", "")
        if self._access.passwords is not None and scope["type"] == "http" and wants_page:
            target = scope["path"] + (
                "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
            )
            return RedirectResponse(f"/login?next={quote(target, safe='')}", status_code=303)
        return PlainTextResponse("sign in first", status_code=401)

    async def _own_page(self, request: Request) -> Response | None:
        """Return the answer where the gate itself is asked: signing in and out."""
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
        target = _inside(form("next"))
        if self._tries.too_many(address):
            return _login_page(target, "Too many tries. Wait a minute, then try again.", 429)
        user = await anyio.to_thread.run_sync(self._access.passwords.check, form("name"), form("password"))
        if user is None:
            self._tries.add(address)
            audit.record(self._access.folder, "somebody", "sign in refused", {"address": address})
            return _login_page(target, "Name or password is wrong.", 401)
        audit.record(self._access.folder, user.name, "sign in", {"address": address})
        response = RedirectResponse(target, status_code=303)
        response.set_cookie(
            COOKIE, SESSIONS.open(user), max_age=int(SESSION_SECONDS), httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


async def _form(request: Request) -> Callable[[str], str]:
    """Return a function that gives a field of a small form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            body = b""
            break
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return lambda name: fields.get(name, [""])[0]


async def _refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
    else:
        await response(scope, receive, send)


def _same_origin(headers: Headers) -> bool:
    """Return whether a form came from a page of this host (browsers say so with every POST)."""
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "")


def _inside(target: str) -> str:
    """Return a path of this dashboard, `/` for anything that would lead elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() else "/"


def _login_page(target: str, trouble: str = "", status: int = 200) -> Response:
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("{{next}}", html.escape(_inside(target), quote=True))
    page = page.replace("{{trouble}}", html.escape(trouble))
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return HTMLResponse(page, status_code=status, headers=headers)
