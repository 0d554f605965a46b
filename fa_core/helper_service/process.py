"""The helper's processes, with TLS, until they are stopped: one, or workers and their supervisor."""

import ctypes
import logging
import os
import signal
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from fa_core.errors import BadInput
from fa_core.gateway.logs import structured
from fa_core.gateway.process import https_config, listen
from fa_core.helper_service.service import build
from fa_core.helper_service.settings import Home, read_home

ENVIRONMENT: Final = "UNHEARD_HELPER"
"""Environment variable that names the helper's folder to a worker."""

_PR_SET_PDEATHSIG: Final = 1

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
        if settings.workers == 1:
            app = build(helper, home.pinned().leader, settings.body_seconds)
            server(home, app).run(sockets=[listening])
        else:
            os.environ[ENVIRONMENT] = str(home.folder.resolve())
            config = _config(home, f"{__name__}:application")
            Multiprocess(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
    finally:
        database.close()


def application() -> FastAPI:
    """Return what a worker serves, which ends when its supervisor does. Raises BadInput."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    structured("helper")
    home = read_home(Path(os.environ[ENVIRONMENT]))
    return build(home.helper(home.database()), home.pinned().leader, home.settings.body_seconds)


def server(home: Home, app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, with the folder's certificate."""
    return uvicorn.Server(_config(home, app))


def _config(home: Home, app: FastAPI | str) -> uvicorn.Config:
    settings = home.settings
    tls = home.folder / settings.certificate, home.folder / settings.key
    workers = settings.workers if isinstance(app, str) else None
    return https_config(app, tls, settings.connections, workers=workers)
