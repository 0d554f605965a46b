"""The vault's process: one, with TLS, until it is stopped."""

import logging
import os

import uvicorn
from fastapi import FastAPI

from fa_core.errors import BadInput
from fa_core.gateway.logs import structured
from fa_core.gateway.process import https_config, listen
from fa_core.vault.access_log import AccessLog
from fa_core.vault.service import build, utc_now
from fa_core.vault.settings import Home

logger = logging.getLogger(__name__)


def serve(home: Home, log: AccessLog) -> None:
    """Serve until SIGTERM or SIGINT. Raises BadInput or Refused before anything is served."""
    os.umask(0o077)
    settings = home.settings
    for name in (settings.certificate, settings.key):
        if not (home.folder / name).is_file():
            raise BadInput(f"{home.folder / name}: there is no such file; TLS needs it")
    keeper = home.open()
    try:
        keeper.mend(utc_now())
        listening = listen(settings.listen)
        structured("vault")
        logger.info("the vault serves")
        server(home, build(settings, keeper, log)).run(sockets=[listening])
    finally:
        keeper.close()


def server(home: Home, app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, with the folder's certificate."""
    settings = home.settings
    tls = (home.folder / settings.certificate, home.folder / settings.key)
    return uvicorn.Server(https_config(app, tls, settings.limits.connections))
