"""One worker of a gateway, as uvicorn starts it: it finds its gateway, and ends when its supervisor does."""

import ctypes
import os
import signal
from pathlib import Path

from fastapi import FastAPI

from fa_core.gateway.logs import structured
from fa_core.gateway.service import build
from fa_core.gateway.settings import read_home

ENVIRONMENT = "UNHEARD_GATEWAY"
"""Environment variable that names the gateway's folder to a worker."""

_PR_SET_PDEATHSIG = 1


def application() -> FastAPI:
    """Return what uvicorn serves. Raises BadInput where the gateway's folder is not one."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    structured("gateway")
    return build(read_home(Path(os.environ[ENVIRONMENT])))
