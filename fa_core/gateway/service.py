"""What devices see of a gateway: requests over HTTPS, each signed, and whether the gateway is well.

    GET  /v1/letters?wait=240     the next request for this device, by long poll; 204: none
    PUT  /v1/letters/{number}     the device's reply to it; 204
    GET  /v1/published/{name}     a file of the publication directory; 304: as the device has it; 404: none
    GET  /v1/collections          the collections that are open, as JSON
    GET  /v1/collections/{task}   the invitation to one; 404: none, or closed
    POST /v1/collections/{task}   the device's report, or its withdrawal; 204, and again for the same bytes
    GET  /health, GET /ready      whether the process runs; whether its database does

An unauthenticated request gets 401, whatever the reason: wrong certificate, wrong signature, a timestamp used
before, a clock far off (every answer carries the gateway's `Date`). A rejected reply gets 409, whatever the
reason: another device's message, no message, a second reply, a stage that is over. So does an upload that is
of another device or collection, or a second one. A device that declines sends nothing; its silence cannot be
distinguished from any other.

What is published, and an invitation, is the same for every device and proves itself, so who asks for it
spends no timestamp: a device may fetch it while its long poll waits, and who repeats a request gets public
bytes. Nor does an upload, which is signed by itself and taken once.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fa_core.errors import UnheardError
from fa_core.gateway.counters import ERRORS, RECEIVED, REQUESTS, SENT, UPLOADS, WAITING, WORK, Counters
from fa_core.gateway.gathering import Gathering
from fa_core.gateway.limits import Limiter
from fa_core.gateway.notifier import Notifier
from fa_core.gateway.queue import DeviceRequest, Queue, Replayed, ReplyOutcome
from fa_core.gateway.schema import MAX_MESSAGE
from fa_core.gateway.settings import Home
from fa_core.gateway.uploads import KINDS, Taken, Upload, Uploads
from fa_core.publication import directory
from fa_core.trust.request_signing import MESSAGE, SKEW_SECONDS, STAGE, Credentials, digest_of

LOOKS_A_SECOND = 5.0
LOOKING, POSTING = 4, 4
"""Database connections of a worker: for polls of devices, and for replies, the notifier and readiness.

When a stage begins, all devices poll at once. Replies have connections of their own, so they do not wait
behind the polls; each reply that is in also means one poll less.
"""

PUBLISHED = "published"
"""What counters of bytes call files of the publication directory, beside the stages of a round."""

INVITATION = "report"
"""What they call invitations to collections: the stage that these are the request of."""

STATUS = {Taken.ACCEPTED: 204, Taken.DUPLICATE: 204, Taken.REJECTED: 409, Taken.OVER: 404, Taken.FULL: 503}
"""The answer to an upload. One that finds the collection full may come again: the leader takes some away."""

FAILURES_A_SECOND, FAILURE_BURST = 1.0, 30.0
"""Unauthenticated requests of one address; after these they get 429, and its devices are still served."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


class _Ended(Exception):
    """A request that ends with this status and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class _WorkerState:
    """What a worker's requests share."""

    home: Home
    authority: bytes
    queue: Queue
    uploads: Uploads
    notifier: Notifier
    counters: Counters
    devices: Limiter
    unauthenticated: Limiter
    looking: CapacityLimiter
    posting: CapacityLimiter
    clock: Callable[[], float]

    async def look(self, call: Callable[[], T]) -> T:
        """Run a poll's query as `work` does, with a limit on threads of its own."""
        return await self.work(call, self.looking)

    async def work(self, call: Callable[[], T], limiter: CapacityLimiter | None = None) -> T:
        """Run a blocking call in a thread. Ends the request with 503 where the database cannot be used."""

        def timed() -> T:
            began = time.perf_counter()
            try:
                return call()
            finally:
                self.counters.add(WORK, time.perf_counter() - began)

        try:
            return await anyio.to_thread.run_sync(timed, limiter=limiter or self.posting)
        except UnheardError:
            self.counters.add(ERRORS)
            logger.error("the database cannot be used")
            raise _Ended(503) from None

    def admit(self, request: Request) -> Credentials:
        """Return who asks, if it is admitted: certified, signed for this gateway, in time, not too often.

        Credentials are checked before any limit of the address: who fails there shuts out nobody behind it.
        """
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            found = Credentials.read(request.headers.get("authorization", ""))
        except ValueError:
            found = None
        now = self.clock() * 1_000_000
        if (
            found is None
            or abs(found.timestamp - now) > SKEW_SECONDS * 1_000_000
            or not found.hold(self.authority, self.home.settings.name, request.method, target)
        ):
            address = request.client.host if request.client else ""
            raise _Ended(401 if self.unauthenticated.allows(address) else 429)
        if not self.devices.allows(found.device):
            raise _Ended(429)
        return found

    async def body(self, request: Request, digest: bytes) -> bytes:
        """Return the request's body: whole, in time, not too large, and the one that was signed."""
        limits = self.home.settings.limits
        if int(request.headers.get("content-length", "0")) > limits.reply_bytes:
            raise _Ended(413)
        parts, size = [], 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limits.reply_bytes:
                        raise _Ended(413)
                    parts.append(part)
        except TimeoutError:
            raise _Ended(408) from None
        body = b"".join(parts)
        if digest_of(body) != digest:
            raise _Ended(401)
        return body

    async def watch(self) -> None:
        """Notify the waiting requests of changes in the database, and write the counts."""
        written = 0.0
        while True:
            await asyncio.sleep(1 / LOOKS_A_SECOND)
            try:
                self.notifier.notify(await self.work(lambda: self.queue.statuses(self.clock())))
            except _Ended:
                await asyncio.sleep(1.0)
            if time.monotonic() - written > 1.0:
                written = time.monotonic()
                self.counters.set(WAITING, len(self.notifier))
                await anyio.to_thread.run_sync(self.counters.write, self.home.counts)


def build(home: Home, clock: Callable[[], float] = time.time) -> FastAPI:
    """Return the application of one worker. Raises BadInput where its files or address are wrong."""
    database, limits = home.database(), home.settings.limits
    state = _WorkerState(
        home,
        home.authority(),
        Queue(database),
        Uploads(database),
        Notifier(),
        Counters(),
        Limiter(limits.requests_a_second, limits.burst),
        Limiter(FAILURES_A_SECOND, FAILURE_BURST),
        CapacityLimiter(LOOKING),
        CapacityLimiter(POSTING),
        clock,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        home.counts.mkdir(mode=0o700, exist_ok=True)
        watching = asyncio.create_task(state.watch())
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        state.counters.set(WAITING, 0)
        state.counters.write(home.counts)
        database.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Counted, counters=state.counters)
    app.exception_handler(_Ended)(_ended)
    app.exception_handler(RequestValidationError)(_malformed)
    _routes(app, state)
    _collections(app, state)
    return app


def _routes(app: FastAPI, state: _WorkerState) -> None:
    @app.get("/v1/letters")
    async def next_request(
        request: Request,
        wait: Annotated[float, Query(ge=0, le=600)] = 0.0,
    ) -> Response:
        who = state.admit(request)
        await state.body(request, who.digest)
        seconds = min(wait, state.home.settings.limits.wait_seconds)
        asked = await _next(state, request, who, seconds)
        if asked is None:
            return Response(status_code=204)
        state.counters.add(SENT, len(asked.request), stage=asked.stage)
        headers = {MESSAGE: str(asked.message), STAGE: asked.stage, "cache-control": "no-store"}
        return Response(asked.request, media_type="application/octet-stream", headers=headers)

    @app.put("/v1/letters/{number}")
    async def reply(request: Request, number: int) -> Response:
        who = state.admit(request)
        body = await state.body(request, who.digest)
        if not body or not 0 < number < MAX_MESSAGE:
            raise _Ended(409)
        outcome = await _fresh(
            state.work(lambda: state.queue.answer(who.device, who.timestamp, number, body))
        )
        if outcome is ReplyOutcome.REJECTED:
            raise _Ended(409)
        state.counters.add(RECEIVED, len(body))
        return Response(status_code=204)

    @app.get("/v1/published/{name:path}")
    async def published(request: Request, name: str) -> Response:
        who = state.admit(request)
        await state.body(request, who.digest)
        found = await state.work(lambda: _tagged(directory.read(state.home.published, name)))
        if found is None:
            raise _Ended(404)
        data, tag = found
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        state.counters.add(SENT, len(data), stage=PUBLISHED)
        return Response(data, media_type="application/octet-stream", headers=headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        await state.work(lambda: state.queue.statuses(state.clock()))
        return {"status": "ok"}


def _collections(app: FastAPI, state: _WorkerState) -> None:
    most = state.home.settings.limits.collection_bytes

    async def keep(task: bytes, sent: Sequence[Upload]) -> Sequence[Taken]:
        return await state.work(lambda: state.uploads.take(task, sent, state.clock(), most))

    gathering = Gathering(keep)

    @app.get("/v1/collections")
    async def offered(request: Request) -> Response:
        who = state.admit(request)
        await state.body(request, who.digest)
        found = await state.work(lambda: state.uploads.offered(state.clock()))
        listed = [{"task": task.hex(), "closes": closes} for task, closes in found]
        return JSONResponse({"collections": listed}, headers={"cache-control": "no-cache"})

    @app.get("/v1/collections/{name}")
    async def invitation(request: Request, name: str) -> Response:
        who = state.admit(request)
        await state.body(request, who.digest)
        task = _task(name)
        found = await state.work(lambda: state.uploads.invitation(task, state.clock()))
        if found is None:
            raise _Ended(404)
        state.counters.add(SENT, len(found), stage=INVITATION)
        return Response(found, media_type="application/octet-stream", headers={"cache-control": "no-cache"})

    @app.post("/v1/collections/{name}")
    async def upload(request: Request, name: str) -> Response:
        who = state.admit(request)
        body = await state.body(request, who.digest)
        task = _task(name)
        sent = Upload.read(task, body)
        if sent is None or sent.device != who.device:
            raise _Ended(409)
        taken = await gathering.take(task, sent)
        if STATUS[taken] != 204:
            raise _Ended(STATUS[taken])
        state.counters.add(RECEIVED, len(body))
        if taken is Taken.ACCEPTED:
            state.counters.add(UPLOADS, kind=KINDS[sent.kind], outcome="taken")
        return Response(status_code=204)


def _task(name: str) -> bytes:
    """Return the id of a task as an address names it. Ends the request with 404 for any other name."""
    if re.fullmatch(r"[0-9a-f]{64}", name) is None:
        raise _Ended(404)
    return bytes.fromhex(name)


def _tagged(data: bytes | None) -> tuple[bytes, str] | None:
    """Return a file with its tag. Hashing 16 MiB takes tens of milliseconds: never on the event loop."""
    return None if data is None else (data, f'"{sha256(data).hexdigest()}"')


async def _next(
    state: _WorkerState, request: Request, who: Credentials, seconds: float
) -> DeviceRequest | None:
    """Return the next request for a device, after waiting at most `seconds`; None where there is none.

    Nothing is looked up for a device that has disconnected: where many wait for the database, that would
    delay those that are still connected.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with state.notifier.waiting() as waiter:
        found = await _fresh(
            state.look(
                lambda: state.queue.next(who.device, who.timestamp, state.clock(), state.notifier.free > 0)
            )
        )
        while found.asked is None:
            waiter.joined(found.rounds)
            if not await waiter.news(deadline - loop.time()) or await request.is_disconnected():
                return None
            found = await state.look(
                lambda: state.queue.again(who.device, state.clock(), state.notifier.free > 0)
            )
        return found.asked


async def _fresh(work: Awaitable[T]) -> T:
    try:
        return await work
    except Replayed:
        raise _Ended(401) from None


async def _ended(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, _Ended) else 500
    headers = {"connection": "close"} if status in (408, 413) else {}
    if status in (429, 503):
        headers["retry-after"] = "5"
    return Response(status_code=status, headers=headers)


async def _malformed(request: Request, error: Exception) -> Response:
    """Answer a malformed request without its content, which FastAPI would repeat."""
    return Response(status_code=400)


class _Counted:
    """Counts answers by method and status."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in ("GET", "PUT", "POST") else "other"

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                code = str(message["status"])
                self._counters.add(REQUESTS, method=method, code=code)
            await send(message)

        await self._app(scope, receive, counting)
