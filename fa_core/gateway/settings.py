"""`gateway.toml`: where a gateway listens, whom it admits, how large cohorts may be. Unknown keys are errors.

Paths are taken from the folder of the file.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fa_core.database.connection import Database, connect_file, connect_server
from fa_core.errors import BadInput, problems
from fa_core.gateway.migrations import LINEAGE
from fa_core.trust.enrolment import read_hex

CONFIG, FILE, STATE = "gateway.toml", "gateway.db", "run"

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Section(BaseModel):
    """Base of every section: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnySection = TypeVar("AnySection", bound=Section)


class CohortSection(Section):
    """How a cohort is formed: for each node, `maximum` devices in `window_seconds` at most.

    If fewer than `minimum` join, no reply is passed on and the server sees no device.
    """

    window_seconds: Seconds = 20.0
    minimum: Annotated[int, Field(ge=1)] = 3
    maximum: Annotated[int, Field(ge=1, le=1 << 20)] = 10_000

    @model_validator(mode="after")
    def _in_order(self) -> "CohortSection":
        if self.minimum > self.maximum:
            raise ValueError("minimum must not be above maximum")
        return self


class RelaySection(Section):
    """The socket for relays (a path), and the users, by number, that may connect beside this one."""

    socket: str = "gateway.sock"
    relays: list[Annotated[int, Field(ge=0)]] = []


class LimitsSection(Section):
    """What one device, one address, one worker and one collection may cost.

    Attributes:
        reply_bytes: of a device's reply, report or withdrawal; of the latter two it may send one each to a
            collection.
        collections: that may be kept at once. collection_bytes: of the uploads that wait in one of them.
    """

    reply_bytes: Annotated[int, Field(ge=1024, le=1 << 28)] = 4 * 1024 * 1024
    collections: Annotated[int, Field(ge=1, le=1024)] = 64
    collection_bytes: Annotated[int, Field(ge=1024, le=1 << 44)] = 8 * 1024 * 1024 * 1024
    body_seconds: Seconds = 30.0
    wait_seconds: Seconds = 240.0
    requests_a_second: Annotated[float, Field(gt=0)] = 2.0
    burst: Annotated[float, Field(ge=1)] = 30.0
    connections: Annotated[int, Field(ge=1)] = 12_000


class Settings(Section):
    """The whole of `gateway.toml`.

    Attributes:
        name: the host and port that devices connect to; they sign it.
        listen: the address to listen on. operations: where health and metrics are, for the operator alone.
        database: postgresql://…, or a file's path; left out: `gateway.db`, which one worker may use.
        authority: file with the enrolment authority's public key.
        certificate, key: files for TLS, PEM.
        published: the publication directory, which devices may fetch from.
        relay: called `door` in files of older versions, which are read too.
    """

    name: Address
    listen: Address
    operations: Address = "127.0.0.1:9464"
    database: str = FILE
    authority: str = "authority.pub"
    certificate: str = "server.crt"
    key: str = "server.key"
    published: str = "published"
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    cohort: CohortSection = CohortSection()
    relay: RelaySection = Field(default=RelaySection(), validation_alias=AliasChoices("relay", "door"))
    limits: LimitsSection = LimitsSection()

    @model_validator(mode="after")
    def _one_writer(self) -> "Settings":
        if self.workers > 1 and "://" not in self.database:
            raise ValueError("several workers share a PostgreSQL database; with a file there is one")
        return self


@dataclass(frozen=True, slots=True)
class Home:
    """A gateway's folder and what its `gateway.toml` says."""

    folder: Path
    settings: Settings

    def database(self) -> Database:
        """Return the database, whose tables may not be there yet. Raises BadInput for a bad address."""
        where = self.settings.database
        if "://" in where:
            return connect_server(where, LINEAGE, durable=False)
        return connect_file(self.folder / where, LINEAGE, durable=False)

    def authority(self) -> bytes:
        """Return the enrolment authority's public key. Raises BadInput."""
        return read_hex(self.folder / self.settings.authority)

    @property
    def published(self) -> Path:
        """The publication directory; nothing is published where it is not there."""
        return self.folder / self.settings.published

    @property
    def counts(self) -> Path:
        """Where processes leave their counts."""
        return self.folder / STATE


def address(text: str) -> tuple[str, int]:
    """Return the host and port of an address, a host of IPv6 without its brackets."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def read_home(folder: Path) -> Home:
    """Read `gateway.toml` in a folder. Raises BadInput with every problem, by key."""
    return Home(folder, read_settings(folder / CONFIG, Settings, "fa gateway init"))


def read_settings(path: Path, settings: type[AnySection], made_by: str) -> AnySection:
    """Read a TOML file as settings. Raises BadInput with every problem, by key.

    Args:
        made_by: the command that makes such a file, for whoever has none.
    """
    try:
        return settings.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; `{made_by}` makes one") from None
    except ValidationError as error:
        raise BadInput("\n".join(f"{path}: {each}" for each in problems(error))) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise BadInput(f"{path} is not TOML: {error}") from None
