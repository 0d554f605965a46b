"""The one HTML page that everything runs in: Streamlit's own, with the server's address and a content security policy added."""

import json
from pathlib import Path
from typing import Final

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

PATHS: Final = (
    "",
    "segments",
    "thresholds",
    "confusions",
    "trends",
    "release",
    "rollouts",
    "plans",
    "privacy",
)
"""The pages' paths, Health first."""

POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' ws: wss:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Nothing is loaded from or sent to another host. Charts are compiled in the browser, hence 'unsafe-eval'."""


def routes(base: str = "") -> list[Route]:
    """Return the routes of the pages, which go before Streamlit's own. `base` is the path they are under."""
    page = _page(base)

    async def index(request: Request) -> Response:
        headers = {
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(page, headers=headers)

    return [Route(f"/{path}", index, methods=["GET", "HEAD"]) for path in PATHS]


def _page(base: str) -> str:
    """Return Streamlit's page with its server's address, so that a deep link does not have to search for it."""
    here = (
        f"<script>window.__streamlit={{BACKEND_BASE_URL:window.location.origin+{json.dumps(base)}}}</script>"
    )
    text = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    return text.replace("<title>Streamlit</title>", f"<title>Unheard</title>{here}")
