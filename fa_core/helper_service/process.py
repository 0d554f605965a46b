"""The helper's process: one, with TLS, until it is stopped."""

import logging
import os

import uvicorn
from fastapi import FastAPI

from fa_core.errors import BadInput
from fa_core.gateway.logs import structured
from fa_core.gateway.process import KEEP_ALIVE_SECONDS, STOP_SECONDS, listen
from fa_core.helper_service.service import build
from fa_core.helper_service.settings import Home

logger = logging.getLogger(__name__)


def serve(home: Home) -> None:
    """Serve until SIGTERM or SIGINT. Raises BadInput before anything is served."""
    os.umask(0o077)
    settings = home.settings
    for name in (settings.certificate, settings.key):
        if not (home.folder / name).is_file():
            raise BadInput(f"{home.folder / name}: there is no such file; TLS needs it")
    database = home.database()
    helper = home.helper(database)
    database.prepare()
    try:
        listening = listen(settings.listen)
        structured("helper")
        logger.info("the helper serves")
        app = build(helper, home.pinned().leader, settings.body_seconds)
        server(home, app).run(sockets=[listening])
    finally:
        database.close()


def server(home: Home, app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, with the folder's certificate."""
    settings = home.settings
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="fa_core.gateway.long_poll:HeadLimitProtocol",
            ws="none",
            ssl_certfile=home.folder / settings.certificate,
            ssl_keyfile=home.folder / settings.key,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
