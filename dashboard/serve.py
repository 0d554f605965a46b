"""Starting the dashboard: the access rules are checked before it listens on a port."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.middleware import Middleware
from streamlit import App
from streamlit.web import bootstrap

from dashboard import settings
from dashboard.auth.middleware import LOOPBACK, Access, AuthMiddleware
from dashboard.auth.under_path import UnderPath
from dashboard.data import reading
from dashboard.style import shell
from dashboard.style.theme import DARK, LIGHT, Palette
from fa_core.errors import BadInput, Refused

SCRIPT: Final = Path(__file__).parent / "app.py"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and the path under which a proxy serves it: "" or as "/voice"."""

    host: str
    port: int
    base: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    @property
    def url(self) -> str:
        """The address as a URL."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}{self.base}"


def check(address: Address, access: Access) -> None:
    """Raise Refused where other machines could reach the dashboard without authentication."""
    if not address.loopback and access.passwords is None and access.proxy is None:
        raise Refused(
            f"{address.host} can be reached from other machines, without authentication; "
            "add --password-file FILE, or --user-header NAME behind a proxy that authenticates users"
        )


def serve(
    chosen: settings.Settings, address: Address, access: Access, say: Callable[[str], None], tries: int = 1
) -> None:
    """Serve the dashboard until stopped. Raises Refused for unauthenticated access, BadInput for a port in use.

    `say` is given the address once it is this dashboard's. So many ports are tried, from the address's own up.
    """
    check(address, access)
    settings.use(chosen)
    reading.open_catalogue(chosen.store)
    with _listening(address, tries) as listener:
        taken, address = address, replace(address, port=listener.getsockname()[1])
        moved = f" ({taken.port} is taken)" if taken.port not in (0, address.port) else ""
        say(f"{address.url} shows {chosen.store}{moved}; Ctrl-C ends it")
        bootstrap.load_config_options(options(address))
        # Imported before the server starts, so that no request waits for it; the port is bound already.
        for path in shell.PATHS:
            import_module(f"dashboard.views.{path or 'health'}")
        layers = [Middleware(UnderPath, base=address.base), Middleware(AuthMiddleware, access=access)]
        app = App(SCRIPT, routes=shell.routes(address.base), middleware=layers)
        threading.Thread(target=reading.preload, args=(chosen.store,), daemon=True).start()
        # Proxy headers are left unchanged: the middleware compares the peer's own address.
        config = uvicorn.Config(
            app, proxy_headers=False, server_header=False, log_level="warning", access_log=False,
            ws_max_size=32 * 2**20, timeout_graceful_shutdown=3,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _listening(address: Address, tries: int) -> Iterator[socket.socket]:
    """Yield a socket that listens at the address, or at the first of the ports after it that is free."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for port in range(address.port, address.port + tries):
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address.host, port))
                listener.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port < address.port + tries - 1:
                    continue
                wrong = f"{address.url} cannot be used: {error.strerror}"
                raise BadInput(f"{wrong}; --port names another") from None
            yield listener
            return


def options(address: Address) -> dict[str, Any]:
    """Return Streamlit's settings: no telemetry, no file watching, error details stay on the server."""
    fixed: dict[str, Any] = {
        "browser.gatherUsageStats": False,
        "browser.serverAddress": address.host,
        "client.allowedOrigins": [],
        "client.disableDataExport": True,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.toolbarMode": "minimal",
        "global.developmentMode": False,
        "global.disableWidgetStateDuplicationWarning": True,
        "runner.magicEnabled": False,
        "server.address": address.host,
        "server.enableAgentApi": False,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.maxUploadSize": 1,
        "server.port": address.port,
        "server.showEmailPrompt": False,
        "theme.baseRadius": "8px",
        "theme.baseFontSize": 15,
        "theme.headingFontSizes": ["1.9rem", "1.3rem", "1.08rem"],
        "theme.showWidgetBorder": True,
    }
    return fixed | _theme("light", LIGHT) | _theme("dark", DARK)


def _theme(name: str, palette: Palette) -> dict[str, Any]:
    return {
        f"theme.{name}.primaryColor": palette.accent,
        f"theme.{name}.backgroundColor": palette.paper,
        f"theme.{name}.secondaryBackgroundColor": palette.sunken,
        f"theme.{name}.textColor": palette.ink,
        f"theme.{name}.linkColor": palette.accent,
        f"theme.{name}.borderColor": palette.line,
    }
