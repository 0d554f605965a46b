"""`helper.toml`: where a helper listens, whom it trusts, where its witness and database are.

Unknown keys are errors. Paths are taken from the folder of the file.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError, model_validator

from fa_core.collection.helper import Helper, Pinned
from fa_core.collection.migrations import LINEAGE
from fa_core.database.connection import Database, connect_file, connect_server
from fa_core.errors import BadInput, problems
from fa_core.gateway.settings import Address, Seconds, Section
from fa_core.trust.enrolment import read_hex, read_key
from fa_core.trust.witness_service import WitnessClient

CONFIG, KEY, ADDRESS = "helper.toml", "helper.key", "helper.json"
WITNESS_SECONDS: Final = 30.0
"""For how long a witness that restarts is asked again."""


class Settings(Section):
    """The whole of `helper.toml`.

    Attributes:
        name: the host and port that the leader connects to. listen: the address to listen on.
        authority, log, witness, leader: files with public keys.
        socket: the witness's, on this machine: one operator runs both.
        database: postgresql://…, or a file's path. Never the leader's.
        certificate, key: files for TLS, PEM.
        workers: processes that answer, which share a PostgreSQL; with a file there is one.
    """

    name: Address
    listen: Address
    socket: str
    authority: str = "authority.pub"
    log: str = "log.pub"
    witness: str = "witness.pub"
    leader: str = "leader.pub"
    database: str = "helper.db"
    certificate: str = "server.crt"
    key: str = "server.key"
    body_seconds: Seconds = 60.0
    connections: Annotated[int, Field(ge=1)] = 64
    workers: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if self.workers > 1 and "://" not in self.database:
            raise ValueError("several workers share a PostgreSQL database; with a file there is one")
        return self


@dataclass(frozen=True, slots=True)
class Home:
    """A helper's folder and what its `helper.toml` says."""

    folder: Path
    settings: Settings

    def database(self) -> Database:
        """Return the database, whose tables may not be there yet. Raises BadInput for a bad address."""
        where = self.settings.database
        if "://" in where:
            return connect_server(where, LINEAGE)
        return connect_file(self.folder / where, LINEAGE)

    def pinned(self) -> Pinned:
        """Return the keys that it trusts. Raises BadInput."""
        said = self.settings
        authority, log, witness, leader = (
            read_hex(self.folder / name) for name in (said.authority, said.log, said.witness, said.leader)
        )
        return Pinned(authority, log, witness, leader)

    def helper(self, database: Database) -> Helper:
        """Return the helper over its database. Raises BadInput where a key cannot be read."""
        witness = WitnessClient(self.folder / self.settings.socket, WITNESS_SECONDS)
        return Helper(database, read_key(self.folder / KEY), self.pinned(), witness)


def read_home(folder: Path) -> Home:
    """Read `helper.toml` in a folder. Raises BadInput with every problem, by key."""
    path = folder / CONFIG
    try:
        return Home(folder, Settings.model_validate(tomllib.loads(path.read_text("utf-8"))))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; `fa helper init` makes one") from None
    except ValidationError as error:
        raise BadInput("\n".join(f"{path}: {each}" for each in problems(error))) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise BadInput(f"{path} is not TOML: {error}") from None
