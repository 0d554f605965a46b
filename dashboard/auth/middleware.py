"""Authentication middleware: nothing of the dashboard, not even its scripts, is served without a session.

ASGI middleware in front of Streamlit. A session has an unguessable key, in a cookie that scripts cannot read; the
middleware passes it to the pages in a header of its own, and removes that header from every incoming request.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.auth import audit
from dashboard.auth.sign_in import SignIns, TooMany
from dashboard.auth.users import SESSION_SECONDS, SESSIONS, Passwords, User, roles_of

HEADER: Final = "x-unheard-session"
COOKIE: Final = "unheard_session"
FORWARDED_FOR: Final = "x-forwarded-for"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
MOST_BODY: Final = 4096
PAGE: Final = Path(__file__).parent / "login.html"


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """Which headers of a trusted proxy name the user and the user's roles."""

    user_header: str
    roles_header: str | None


@dataclass(frozen=True, slots=True)
class Access:
    """How users are authenticated: by password, by a trusted proxy's header, or, on this machine only, not at all.

    Attributes:
        hosts: the host names that the dashboard is served under; None for any.
        folder: where the audit trail is.
        local: the user of every session where neither passwords nor a proxy are set.
        proxies: addresses of trusted proxies. The headers of `proxy`, and X-Forwarded-For, are read in requests from
            these alone; a request in which one of them occurs twice is refused, since the first may be the browser's.
        base: the path under which a proxy serves the dashboard: "" or as "/voice".
    """

    hosts: frozenset[str] | None
    folder: Path
    local: User | None = None
    passwords: Passwords | None = None
    proxy: ProxyTrust | None = None
    proxies: frozenset[str] = frozenset()
    base: str = ""

    def trusted_headers(self) -> tuple[str, ...]:
        """Return the names of the headers that a trusted proxy sets."""
        named = () if self.proxy is None else (self.proxy.user_header, self.proxy.roles_header)
        return (FORWARDED_FOR, *(name for name in named if name is not None))


class AuthMiddleware:
    """ASGI middleware that serves only sessions that `access` allows."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._sign_ins = None if access.passwords is None else SignIns(access.passwords)
        self._by_user: dict[User, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if not self._known_host(connection):
            await _reject(scope, receive, send, PlainTextResponse("this host name is not served here", 421))
            return
        if twice := self._repeated_header(connection):
            text = f"the header {twice} occurs more than once; the proxy must replace it, not add another"
            await _reject(scope, receive, send, PlainTextResponse(text, 400))
            return
        if scope["type"] == "http" and self._sign_ins is not None:
            page = await self._sign_in_pages(Request(scope, receive), self._sign_ins)
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

    def _by_proxy(self, connection: HTTPConnection) -> bool:
        return connection.client is not None and connection.client.host in self._access.proxies

    def _repeated_header(self, connection: HTTPConnection) -> str | None:
        """Return the name of a trusted header that occurs more than once in a proxy's request."""
        if not self._by_proxy(connection):
            return None
        names = self._access.trusted_headers()
        return next((name for name in names if len(connection.headers.getlist(name)) > 1), None)

    def _address(self, connection: HTTPConnection) -> str:
        """Return the address of the browser: the peer's, or the one that a trusted proxy added last."""
        peer = connection.client.host if connection.client else ""
        if not self._by_proxy(connection):
            return peer
        return connection.headers.get(FORWARDED_FOR, "").rpartition(",")[2].strip() or peer

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

    def _proxy_user(self, connection: HTTPConnection, trust: ProxyTrust) -> User | None:
        name = connection.headers.get(trust.user_header, "").strip()
        if not self._by_proxy(connection) or not name or len(name) > 200:
            return None
        roles = "" if trust.roles_header is None else connection.headers.get(trust.roles_header, "")
        return User(name, roles_of(roles))

    def _unauthenticated(self, scope: Scope, connection: HTTPConnection) -> Response:
        wants_page = "text/html" in connection.headers.get("accept", "")
        if self._access.passwords is not None and scope["type"] == "http" and wants_page:
            target = scope["path"] + (
                "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
            )
            return RedirectResponse(
                f"{self._access.base}/login?next={quote(target, safe='')}", status_code=303
            )
        return PlainTextResponse("sign in first", status_code=401)

    async def _sign_in_pages(self, request: Request, sign_ins: SignIns) -> Response | None:
        """Return the response to a request for signing in or out, None for other paths."""
        path, method = request.url.path, request.method
        if path == "/login" and method == "GET":
            return _login_page(self._access.base, request.query_params.get("next", "/"))
        if path not in ("/login", "/logout"):
            return None
        if method != "POST" or not _same_origin(request.headers):
            return PlainTextResponse("sign in and out by the form of this page", status_code=405)
        if path == "/logout":
            SESSIONS.close(request.cookies.get(COOKIE, ""))
            response: Response = RedirectResponse(f"{self._access.base}/login", status_code=303)
            response.delete_cookie(
                COOKIE,
                self._access.base or "/",
                httponly=True,
                samesite="lax",
                secure=_over_tls(request.headers),
            )
            return response
        return await self._sign_in(request, sign_ins)

    async def _sign_in(self, request: Request, sign_ins: SignIns) -> Response:
        address = self._address(request)
        form = await _form(request)
        target = _local_path(form("next"))
        try:
            user = await sign_ins.check(address, form("name"), form("password"))
        except TooMany as error:
            return _login_page(self._access.base, target, str(error), 429)
        if user is None:
            audit.record(self._access.folder, "unknown", "sign in refused", {"address": address})
            return _login_page(self._access.base, target, "Name or password is wrong.", 401)
        audit.record(self._access.folder, user.name, "sign in", {"address": address})
        response = RedirectResponse(self._access.base + target, status_code=303)
        response.set_cookie(
            COOKIE, SESSIONS.open(user), max_age=int(SESSION_SECONDS), httponly=True, samesite="lax",
            secure=_over_tls(request.headers), path=self._access.base or "/",
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


def _over_tls(headers: Headers) -> bool:
    """Return whether the browser that sent a form reached this host over TLS, here or at a proxy.

    The browser says so itself, in the `Origin` that `_same_origin` requires: no proxy's header has to be trusted.
    """
    return urlsplit(headers.get("origin", "")).scheme == "https"


def _local_path(target: str) -> str:
    """Return a path of this dashboard, `/` for anything that would lead elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() else "/"


def _login_page(base: str, target: str, error: str = "", status: int = 200) -> Response:
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("{{base}}", html.escape(base, quote=True))
    page = page.replace("{{next}}", html.escape(_local_path(target), quote=True))
    page = page.replace("{{error}}", html.escape(error))
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return HTMLResponse(page, status_code=status, headers=headers)
