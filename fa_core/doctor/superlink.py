"""Checks of a federation's SuperLink: whether it answers, is the right one, and has this machine's time."""

import http.client
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from fa_core.doctor.finding import Finding, broken, good, look
from fa_core.doctor.stores import SKEW

SECONDS = 5.0


def superlink(address: str, authority: Path) -> Iterator[Finding]:
    """Ask the SuperLink at host:port anything, over TLS under the federation's own authority."""
    host, _, port = address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(authority))
        line = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=SECONDS, context=context)
        try:
            line.request("GET", "/")
            said = line.getresponse().headers["Date"]
        finally:
            line.close()
    except ssl.SSLCertVerificationError as error:
        yield broken(
            "superlink",
            f"what answers at {address} is not this federation's SuperLink ({error.verify_message})",
            f"compare {authority} with the SuperLink's, and {address} with the name in its certificate",
        )
        return
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        yield look("superlink", f"{address}: {why}", "start it: `fa federation up`, or its unit")
        return
    yield good("superlink", f"answers at {address}, with a certificate of this federation's authority")
    yield _clock(said, datetime.now(UTC))


def _clock(said: str | None, now: datetime) -> Finding:
    try:
        theirs = parsedate_to_datetime(said or "")
    except ValueError:
        return look("superlink's clock", "it does not say what time it has", "compare the two clocks")
    off = abs(now - theirs)
    if off > SKEW:
        return broken(
            "superlink's clock",
            f"it says {theirs:%Y-%m-%dT%H:%M:%SZ}, this machine {now:%Y-%m-%dT%H:%M:%SZ}",
            "set the clocks (NTP): a SuperLink takes no message that is older than it may live",
        )
    return good("superlink's clock", f"within {off.total_seconds():.0f} s of this machine's")
