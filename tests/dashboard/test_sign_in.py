"""Attacks on signing in: guesses that arrive together, headers that a browser adds, and a cookie without `Secure`.

Rows 7, 8 and 10 of the privacy review. Each attack is also played on a broken form of the dashboard, where it succeeds.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dashboard.auth import middleware, sign_in
from dashboard.auth.middleware import COOKIE, HEADER, Access, AuthMiddleware, ProxyTrust
from dashboard.auth.sign_in import AT_ONCE, MOST_TRIES, TRY_SECONDS, WAITING, SignIns, TooMany
from dashboard.auth.users import SESSIONS, User

SECRET = "correct horse battery"
PROXY = "10.0.0.7"
GUESSES = 60
ADA = User("ada", frozenset())


@dataclass
class Verifier:
    """A password file whose verification waits, `seconds` at most, until `together` are being verified."""

    together: int = 1
    seconds: float = 60.0
    verified: int = 0
    most: int = 0
    _inside: int = 0
    _full: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, name: str, password: str) -> User | None:
        with self._lock:
            self.verified += 1
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside >= self.together:
                self._full.set()
        self._full.wait(self.seconds)
        with self._lock:
            self._inside -= 1
        return ADA if (name, password) == ("ada", SECRET) else None

    def let_go(self) -> None:
        self._full.set()


async def _page(request: Request) -> Response:
    user = SESSIONS.find(request.headers[HEADER])
    return JSONResponse({"name": user.name if user else None})


def app(folder: Path, **access: object) -> Starlette:
    chosen = Access(hosts=None, folder=folder, **access)  # type: ignore[arg-type]
    routes = [Route("/{path:path}", _page)]
    return Starlette(routes=routes, middleware=[Middleware(AuthMiddleware, access=chosen)])


Try = tuple[str, str, str]
"""The browser's address, as a trusted proxy says it; name; password."""


def sign_ins(folder: Path, verifier: Verifier, tries: Iterable[Try]) -> Counter[int]:
    """Send all tries at once, through a proxy; return how many got which status."""

    async def send() -> Counter[int]:
        served = app(folder, passwords=verifier, proxies=frozenset({PROXY}))
        transport = httpx.ASGITransport(served, client=(PROXY, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://dash.example") as browser:

            async def one(address: str, name: str, password: str) -> int:
                headers = {"origin": "http://dash.example", "x-forwarded-for": f"1.2.3.4, {address}"}
                form = {"name": name, "password": password, "next": "/"}
                return (await browser.post("/login", data=form, headers=headers)).status_code

            return Counter(await asyncio.gather(*(one(*each) for each in tries)))

    return asyncio.run(send())


ATTACKS: dict[str, Callable[[int], Try]] = {
    "one address, one name": lambda number: ("192.0.2.1", "ada", f"guess {number}"),
    "one address, many names": lambda number: ("192.0.2.1", f"name{number}", "guess"),
    "many addresses, one name": lambda number: (f"192.0.2.{number}", "ada", f"guess {number}"),
    "many addresses, no name": lambda number: (f"192.0.2.{number}", "?" * (number + 1), "guess"),
}


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all guesses of an attack wait, so that only the limits of an address and a name refuse them."""
    monkeypatch.setattr(sign_in, "WAITING", GUESSES)


@pytest.mark.parametrize("attack", ATTACKS)
def test_guesses_that_arrive_together_are_counted_before_they_are_verified(
    attack: str, wide: None, tmp_path: Path
) -> None:
    verifier = Verifier()
    answers = sign_ins(tmp_path, verifier, map(ATTACKS[attack], range(GUESSES)))
    assert verifier.verified == MOST_TRIES
    assert answers == {401: MOST_TRIES, 429: GUESSES - MOST_TRIES}


@pytest.mark.parametrize("attack", ATTACKS)
def test_control_counting_afterwards_verifies_all_of_them(
    attack: str, wide: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = SignIns._count
    monkeypatch.setattr(SignIns, "_count", lambda self, keys: 0.0)

    async def counted_afterwards(self: SignIns, address: str, name: str, password: str) -> User | None:
        user = await checked(self, address, name, password)
        count(self, (("address", address), ("name", name)))
        return user

    checked = SignIns.check
    monkeypatch.setattr(SignIns, "check", counted_afterwards)
    monkeypatch.setattr(sign_in, "AT_ONCE", GUESSES)
    verifier = Verifier(together=GUESSES // 2)
    sign_ins(tmp_path, verifier, map(ATTACKS[attack], range(GUESSES)))
    assert verifier.verified == GUESSES


def scattered(number: int) -> Try:
    """A guess from an address and under a name of its own, which no limit but the common one refuses."""
    return f"192.0.2.{number}", f"name{number}", "guess"


def test_two_are_verified_at_the_same_time_and_the_rest_wait(wide: None, tmp_path: Path) -> None:
    verifier = Verifier(together=AT_ONCE + 1, seconds=0.01)
    answers = sign_ins(tmp_path, verifier, map(scattered, range(GUESSES)))
    assert (verifier.verified, verifier.most) == (GUESSES, 2)
    assert answers == {401: GUESSES}


def test_control_without_that_limit_more_are_verified(
    wide: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "AT_ONCE", GUESSES)
    verifier = Verifier(together=AT_ONCE + 1)
    sign_ins(tmp_path, verifier, map(scattered, range(GUESSES)))
    assert verifier.most > AT_ONCE


def test_those_who_wait_are_bounded_and_the_rest_are_refused_uncounted() -> None:
    verifier = Verifier(together=GUESSES)

    async def attack() -> list[BaseException | User | None]:
        guarded = SignIns(verifier)
        tries = [asyncio.create_task(guarded.check(*scattered(number))) for number in range(GUESSES)]
        await asyncio.sleep(0)
        refused = [each.exception() for each in tries if each.done()]
        assert [type(each) for each in refused] == [TooMany] * (GUESSES - AT_ONCE - WAITING)
        assert "Try again in a few seconds" in str(refused[0])
        assert len(guarded._tries) == 2 * (AT_ONCE + WAITING)
        verifier.let_go()
        return await asyncio.gather(*tries, return_exceptions=True)

    answers = asyncio.run(attack())
    assert verifier.verified == answers.count(None) == AT_ONCE + WAITING


def test_a_failed_try_is_forgotten_after_a_minute_and_a_good_one_at_once() -> None:
    now = [1000.0]
    verifier = Verifier()

    async def in_turn() -> None:
        guarded = SignIns(verifier, lambda: now[0])
        for _ in range(2 * MOST_TRIES):
            assert await guarded.check("192.0.2.1", "ada", SECRET) == ADA
        assert not any(guarded._tries.values())
        for _ in range(MOST_TRIES):
            assert await guarded.check("192.0.2.1", "ada", "guess") is None
        for address, name in (("192.0.2.1", "bo"), ("192.0.2.2", "ada")):
            with pytest.raises(TooMany, match="Wait a minute"):
                await guarded.check(address, name, SECRET)
        assert await guarded.check("192.0.2.2", "bo", "guess") is None
        now[0] += TRY_SECONDS
        assert await guarded.check("192.0.2.1", "ada", SECRET) == ADA
        assert sum(map(len, guarded._tries.values())) == 0

    asyncio.run(in_turn())


def answered(served: Starlette, peer: str, headers: list[tuple[str, str]]) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(served, client=(peer, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://dash.example") as browser:
            return await browser.get("/", headers=headers)

    return asyncio.run(send())


@pytest.fixture
def behind_a_proxy(tmp_path: Path) -> Starlette:
    return app(tmp_path, proxy=ProxyTrust("x-user", "x-roles"), proxies=frozenset({PROXY}))


FROM_THE_PROXY = [("x-user", "ada"), ("x-roles", "viewer"), ("x-forwarded-for", "192.0.2.1")]
FROM_THE_BROWSER = [("x-user", "mallory"), ("x-roles", "operator"), ("x-forwarded-for", "127.0.0.1")]


@pytest.mark.parametrize("added", FROM_THE_BROWSER, ids=lambda each: each[0])
@pytest.mark.parametrize("first", [True, False])
def test_a_trusted_header_that_occurs_twice_is_refused(
    behind_a_proxy: Starlette, added: tuple[str, str], first: bool
) -> None:
    headers = [added, *FROM_THE_PROXY] if first else [*FROM_THE_PROXY, (added[0].title(), added[1])]
    refused = answered(behind_a_proxy, PROXY, headers)
    assert refused.status_code == 400
    assert f"the header {added[0]} occurs more than once" in refused.text
    assert answered(behind_a_proxy, PROXY, FROM_THE_PROXY).json() == {"name": "ada"}
    assert answered(behind_a_proxy, "10.0.0.8", headers).status_code == 401


def test_control_without_that_check_the_name_is_the_browsers(
    behind_a_proxy: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuthMiddleware, "_repeated_header", lambda self, connection: None)
    answer = answered(behind_a_proxy, PROXY, [("x-user", "mallory"), *FROM_THE_PROXY])
    assert answer.json() == {"name": "mallory"}


def cookies(folder: Path, origin: str) -> list[tuple[object, object, object]]:
    """Sign in and out from pages of an origin; the proxy speaks plain HTTP to the dashboard.

    Return what both cookies say of `Secure`, `HttpOnly` and `SameSite`.
    """

    async def send() -> list[httpx.Response]:
        served = app(folder, passwords=Verifier())
        transport = httpx.ASGITransport(served, client=(PROXY, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://dash.example") as browser:
            form = {"name": "ada", "password": SECRET, "next": "/"}
            headers = {"origin": origin}
            return [
                await browser.post("/login", data=form, headers=headers),
                await browser.post("/logout", headers=headers),
            ]

    answers = asyncio.run(send())
    assert [each.status_code for each in answers] == [303, 303]
    found = [SimpleCookie(each.headers["set-cookie"])[COOKIE] for each in answers]
    return [(bool(each["secure"]), each["httponly"], each["samesite"]) for each in found]


def test_the_cookie_is_secure_where_a_proxy_ends_tls(tmp_path: Path) -> None:
    assert cookies(tmp_path, "https://dash.example") == [(True, True, "lax")] * 2
    assert cookies(tmp_path, "http://dash.example") == [(False, True, "lax")] * 2


def test_control_by_the_scheme_of_the_request_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scheme_is_https(headers: Headers) -> bool:
        return False  # between proxy and dashboard: plain HTTP, whatever the browser used

    monkeypatch.setattr(middleware, "_over_tls", scheme_is_https)
    assert cookies(tmp_path, "https://dash.example") == [(False, True, "lax")] * 2
