"""Serving under a path, as a proxy asks for with `https://example.org/voice/`."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class UnderPath:
    """ASGI middleware that takes a leading path off every request, whether or not the proxy took it off before.

    Args:
        base: "" for none, or as "/voice", without a slash at the end.
    """

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app = app
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if self._base and path == self._base and scope["type"] == "http":
            # The page names its scripts relative to its own address, so the address must end in a slash.
            await RedirectResponse(f"{self._base}/", status_code=307)(scope, receive, send)
            return
        if self._base and path.startswith(f"{self._base}/"):
            rest = path[len(self._base) :]
            scope = {**scope, "path": rest, "raw_path": rest.encode("utf-8")}
        await self._app(scope, receive, send)
