"""`vault.toml`: where a vault listens, where its key store and the log are. Unknown keys are errors.

Paths are taken from the folder of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from fa_core.donation.request import DonationRequest, read
from fa_core.errors import BadInput, Refused
from fa_core.gateway.settings import Address, Seconds, Section, read_settings
from fa_core.trust.enrolment import read_hex, read_key
from fa_core.vault import database
from fa_core.vault.keeper import Keeper
from fa_core.vault.wraps import Wraps

CONFIG, KEY, PUBLIC = "vault.toml", "vault.key", "vault.pub"


class LogSection(Section):
    """The transparency log that accesses are entered in.

    Attributes:
        store: of the aggregator, a folder or postgresql://… .
        key, witness: files of the log's private key and of the witness's socket; with both, each entry is put
            under a cosigned checkpoint at once, without, reviewers wait for the log's next one.
    """

    store: str
    key: str | None = None
    witness: str | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.key is None) != (self.witness is None):
            raise ValueError("key and witness belong together: the log signs, the witness cosigns")
        return self


class LimitsSection(Section):
    """What the vault holds, and what one address may cost."""

    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    requests_a_second: Annotated[float, Field(gt=0)] = 2.0
    burst: Annotated[float, Field(ge=1)] = 60.0
    body_seconds: Seconds = 60.0
    connections: Annotated[int, Field(ge=1)] = 1_000


class Settings(Section):
    """The whole of `vault.toml`.

    Attributes:
        name: the host and port that devices and reviewers connect to. listen: the address to listen on.
        authority: file with the enrolment authority's public key, which signs donation requests.
        requests: folder of the donation requests that are served, `*.json`.
        wraps: the key store's folder, which no backup may hold.
        certificate, key: files for TLS, PEM.
    """

    name: Address
    listen: Address
    log: LogSection
    authority: str = "authority.pub"
    requests: str = "requests"
    wraps: str = "wraps"
    certificate: str = "server.crt"
    key: str = "server.key"
    limits: LimitsSection = LimitsSection()


@dataclass(frozen=True, slots=True)
class Home:
    """A vault's folder and what its `vault.toml` says."""

    folder: Path
    settings: Settings

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key that signs statements. Raises BadInput."""
        return read_key(self.folder / KEY)

    def served(self) -> Mapping[bytes, DonationRequest]:
        """Return the donation requests by hash. Raises BadInput or Refused for one that is wrong, not signed
        by the authority, or of another vault."""
        authority = read_hex(self.folder / self.settings.authority)
        own = self.private_key.public_key().public_bytes_raw()
        found = {}
        for path in sorted((self.folder / self.settings.requests).glob("*.json")):
            try:
                request = read(path.read_bytes(), authority)
            except (BadInput, Refused) as error:
                raise type(error)(f"{path}: {error}") from None
            if (request.vault_key, request.vault) != (own, self.settings.name):
                raise BadInput(f"{path}: it names another vault or address than {self.settings.name}")
            found[request.hash] = request
        return found

    def open(self) -> Keeper:
        """Open the vault. Raises BadInput or Refused, and changes nothing, where a part is not there."""
        key, wraps = self.private_key, Wraps(self.folder / self.settings.wraps)
        wraps.check(key.public_key().public_bytes_raw())
        served = self.served()
        connection = database.connect(self.folder / database.FILE)
        return Keeper(connection, wraps, key, served, self.settings.limits.samples)


def read_home(folder: Path) -> Home:
    """Read `vault.toml` in a folder. Raises BadInput with every problem, by key."""
    return Home(folder, read_settings(folder / CONFIG, Settings, "fa vault init"))
