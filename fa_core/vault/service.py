"""What others see of a vault: three requests over HTTPS, and whether it is well.

    POST /v1/samples       a sealed sample; the vault's signed statement that it keeps it
    POST /v1/withdrawals   a request's hash and a token; the signed statement that nothing is held
    POST /v1/access        a reviewer's signed statement; what it may have, once it stands in the log
    GET  /health           whether the process runs

A refusal is `{"refused": CODE}` with a code of `fa_core.donation.refusal`, and repeats nothing that was sent.
Nothing is logged of a request but its code. Addresses are kept in memory, for the rate limit alone.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio.to_thread
from fastapi import FastAPI, Request, Response

from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.sealing import LARGEST, TOKEN_SIZE
from fa_core.errors import UnheardError
from fa_core.gateway.limits import Limiter
from fa_core.vault.access_log import AccessLog
from fa_core.vault.keeper import Keeper
from fa_core.vault.settings import Settings

LARGEST_STATEMENT: Final = 8192
EXPIRE_SECONDS: Final = 3600.0

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _State:
    """What requests share."""

    settings: Settings
    keeper: Keeper
    log: AccessLog
    limiter: Limiter
    clock: Callable[[], datetime]

    async def answer(self, request: Request, most: int, work: Callable[[bytes], bytes]) -> Response:
        """Read a bounded body and answer it in a thread."""
        try:
            body = await self._body(request, most)
            return Response(await anyio.to_thread.run_sync(work, body), media_type="application/json")
        except RefusedByVault as refused:
            return _refused(refused.refusal)
        except (UnheardError, OSError, sqlite3.Error):
            logger.error("the vault's log, file or key store cannot be used")
            return _refused(Refusal.UNAVAILABLE)

    async def _body(self, request: Request, most: int) -> bytes:
        if not self.limiter.allows(request.client.host if request.client else ""):
            raise RefusedByVault(Refusal.TOO_OFTEN)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise RefusedByVault(Refusal.TOO_LARGE)
                    parts.append(part)
        except TimeoutError:
            raise RefusedByVault(Refusal.TOO_SLOW) from None
        return b"".join(parts)

    async def expire(self) -> None:
        """Destroy what is past its time, now and then."""
        while True:
            try:
                await anyio.to_thread.run_sync(self.keeper.expire, self.clock())
            except (UnheardError, OSError, sqlite3.Error):
                logger.error(
                    "samples that are past their time could not be destroyed; it will be tried again"
                )
            await asyncio.sleep(EXPIRE_SECONDS)


def build(
    settings: Settings, keeper: Keeper, log: AccessLog, clock: Callable[[], datetime] = utc_now
) -> FastAPI:
    """Return the application."""
    limits = settings.limits
    state = _State(settings, keeper, log, Limiter(limits.requests_a_second, limits.burst), clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(state.expire())
        yield
        expiring.cancel()
        await asyncio.gather(expiring, return_exceptions=True)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/samples")
    async def samples(request: Request) -> Response:
        return await state.answer(request, LARGEST, lambda body: keeper.keep(body, clock()))

    @app.post("/v1/withdrawals")
    async def withdrawals(request: Request) -> Response:
        return await state.answer(request, 32 + TOKEN_SIZE, lambda body: keeper.withdraw(body, clock()))

    @app.post("/v1/access")
    async def access(request: Request) -> Response:
        return await state.answer(request, LARGEST_STATEMENT, lambda body: keeper.answer(body, log, clock()))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _refused(refusal: Refusal) -> Response:
    body = json.dumps({"refused": refusal.value})
    headers = {"connection": "close"} if refusal in (Refusal.TOO_LARGE, Refusal.TOO_SLOW) else {}
    logger.info("refused", extra={"code": refusal.value})
    return Response(body, refusal.status, headers, media_type="application/json")
