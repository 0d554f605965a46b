"""One HTTPS request to a vault: a body is posted, an answer of bounded size comes back."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Final

from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.errors import BadInput, UnheardError

SECONDS: Final = 60.0
MOST: Final = 4 * 1024 * 1024


class VaultSilent(UnheardError):
    """The vault did not answer, or not as one does: what was sent may have arrived, or not."""

    exit_code = BadInput.exit_code


def trust_of(authority: Path | None) -> ssl.SSLContext:
    """Return what checks a vault's certificate: an authority's, PEM, or the system's. Raises BadInput."""
    try:
        trust = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError):
        raise BadInput(f"{authority}: expected a certificate authority's certificate, in PEM") from None
    trust.minimum_version = ssl.TLSVersion.TLSv1_3
    return trust


def reach(vault: str, trust: ssl.SSLContext) -> None:
    """Connect to a vault (HOST:PORT) and say nothing. Raises VaultSilent."""
    connection = http.client.HTTPSConnection(vault, context=trust, timeout=SECONDS)
    try:
        connection.connect()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _silent(vault, error) from None
    finally:
        connection.close()


def post(vault: str, trust: ssl.SSLContext, target: str, body: bytes) -> bytes:
    """Post a body to a vault (HOST:PORT) and return its answer.

    Raises:
        RefusedByVault: it refuses, by a code.
        VaultSilent: it cannot be reached, its certificate does not hold, or its answer is another program's.
    """
    connection = http.client.HTTPSConnection(vault, context=trust, timeout=SECONDS)
    try:
        connection.request("POST", target, body, {"content-type": "application/octet-stream"})
        response = connection.getresponse()
        data = response.read(MOST)
        if response.length or (not response.isclosed() and response.read(1)):
            raise VaultSilent(f"the vault {vault} answers with more than a vault says")
        status = response.status
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _silent(vault, error) from None
    finally:
        connection.close()
    if status == 200:
        return data
    try:
        refusal = Refusal(json.loads(data)["refused"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise VaultSilent(f"the vault {vault} answers as no vault does (status {status})") from None
    raise RefusedByVault(refusal)


def _silent(vault: str, error: Exception) -> VaultSilent:
    why = "its certificate is not trusted" if isinstance(error, ssl.SSLError) else "it does not answer"
    return VaultSilent(f"the vault {vault} cannot be asked: {why}")
