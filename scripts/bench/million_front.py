"""The front of scripts/bench/million.py: HTTP and TLS as the gateway's, and a handler that only answers."""

from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response

from fa_core.gateway.process import https_config


def front(port: int, tls: Path) -> None:
    """Serve until terminated. `tls`: folder of server.crt and server.key."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/collections")
    async def take(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    config = https_config(app, (tls / "server.crt", tls / "server.key"), 64)
    config.host, config.port = "localhost", port
    uvicorn.Server(config).run()
