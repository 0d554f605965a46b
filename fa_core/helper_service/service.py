"""What the leader sees of a helper: three requests over HTTPS, each signed, and whether it is well.

    POST /v1/tasks      a request for a task; the task, signed by helper and witness
    POST /v1/batches    a batch of reports; the decision on each
    POST /v1/closings   what the leader counted; the helper's noised share of the sum
    GET  /health        whether the process runs

401: the leader did not sign it. 409: refused, in a sentence of public numbers. 503: it may work in a moment.
Nothing of a request is logged but which it was and how it ended.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import FastAPI, Request, Response

from fa_core.collection.exchange import MOST, OPERATIONS, unsealed
from fa_core.collection.helper import Helper
from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError

FORGET_SECONDS: Final = 3600.0

logger = logging.getLogger(__name__)


def build(helper: Helper, leader: bytes, body_seconds: float) -> FastAPI:
    """Return the application. `leader`: the public key whose requests are answered, 32 bytes."""
    answers = dict(zip(OPERATIONS, (helper.open, helper.verify, helper.close), strict=True))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(_forget(helper))
        yield
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    def work(operation: str, answer: Callable[[bytes], bytes], body: bytes) -> Response:
        # On a thread from here on: the hash alone of a large body would hold up everybody else.
        message = unsealed(body, leader, helper.public_key, operation)
        if message is None:
            return _refused(operation, 401, "the leader did not sign this request")
        return _answer(operation, answer, message)

    def route(operation: str, answer: Callable[[bytes], bytes]) -> None:
        @app.post(f"/v1/{operation}")
        async def ask(request: Request) -> Response:
            body = await _body(request, body_seconds)
            if body is None:
                return _refused(operation, 413, "the body is too long or too slow")
            return await anyio.to_thread.run_sync(work, operation, answer, body)

    for operation, answer in answers.items():
        route(operation, answer)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _answer(operation: str, answer: Callable[[bytes], bytes], message: bytes) -> Response:
    try:
        return Response(answer(message), media_type="application/octet-stream")
    except (Unavailable, RoundFailed):  # the database, or the witness, does not answer
        return _refused(operation, 503, "it may work in a moment")
    except Refused as refused:
        return _refused(operation, 409, str(refused))
    except BadInput as error:
        return _refused(operation, 400, str(error))


async def _body(request: Request, seconds: float) -> bytes | None:
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > MOST:
                    return None
                parts.append(part)
    except TimeoutError:
        return None
    return b"".join(parts)


async def _forget(helper: Helper) -> None:
    """Forget the keys of tasks that nobody closed, now and then."""
    while True:
        try:
            await anyio.to_thread.run_sync(helper.forget)
        except UnheardError:
            logger.error("the keys of old tasks could not be deleted; it will be tried again")
        await asyncio.sleep(FORGET_SECONDS)


def _refused(operation: str, status: int, reason: str) -> Response:
    logger.info("refused", extra={"operation": operation, "status": status})
    headers = {"connection": "close"} if status == 413 else {}
    return Response(json.dumps({"refused": reason}), status, headers, media_type="application/json")
