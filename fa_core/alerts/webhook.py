"""Posting an alert: JSON, signed with a secret that the receiver has too.

    Content-Type: application/json
    X-Unheard-Alert: the alert's id; the same for each attempt
    X-Unheard-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256(secret, "<t>." + body)>

The time is under the signature, so that a receiver can refuse what is old: a copy sent again is no new alert.
"""

import hashlib
import hmac
import http.client
import urllib.error
import urllib.request
from datetime import datetime
from email.message import Message
from typing import IO, Final

from fa_core.alerts.alert import Alert

SECONDS: Final = 10.0


class NotSent(Exception):
    """An alert did not arrive. The text says why, and holds no secret."""


def signature(secret: bytes, body: bytes, at: datetime) -> str:
    """Return the value of X-Unheard-Signature.

    >>> from datetime import UTC
    >>> signature(b"secret", b"{}", datetime(2026, 11, 28, tzinfo=UTC))[:15]
    't=1795824000,v1'
    """
    seconds = int(at.timestamp())
    digest = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def post(url: str, secret: bytes, alert: Alert, now: datetime) -> None:
    """Post an alert. Raises NotSent where the receiver does not answer with 2xx within `SECONDS`."""
    body = alert.body()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "unheard-alerts",
        "X-Unheard-Alert": alert.id,
        "X-Unheard-Signature": signature(secret, body, now),
    }
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - http(s), by the settings
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise NotSent(f"the receiver answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise NotSent(f"the receiver cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotSent(f"the receiver did not answer: {error}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is a failure: what is signed for one receiver is for no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None
