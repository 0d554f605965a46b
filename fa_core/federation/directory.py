"""The directory of a federation: what it holds, and the settings in `federation.toml`.

    federation.toml    name, address, store, deadline, nodes, how sums by two aggregators are collected
    tls/               ca.crt, ca.key, server.crt, server.key
    nodes/             node-00.key, node-00.pub, …: one NIST P-384 key a SuperNode
    authority/         the enrolment authority (`fa enrol`)
    witness/           the witness's key and journal (`fa witness`)
    review/            plan.key with its .pub: its holder decides what devices are asked
    helper/            of a lab's helper, or to be given to the witness's operator: its settings and key
    keys/              log.key and leader.key with their .pub, superexec.secret, helper.json
    leader/            the leader's database, where it is not in PostgreSQL
    home/              FLWR_HOME of the user who launches: config.toml with the connection
    units/             systemd units, a compose file, and the owners of files (owners.sh)
    runs/              what was launched: one folder a run
    run/, state/       the witness's socket; the SuperLink's database
    store/             ledger, log and releases, where they are not in PostgreSQL
    hubs/, sockets/    devices, one folder a hub, and where a relay meets them (in a lab: in run/)
    lab.json, log/     of a lab that `fa federation up` started

In a deployment each part goes to its owner: `authority/`, `witness/`, `helper/` and `review/` never to the
aggregator.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from fa_core.database.connection import SECRET
from fa_core.errors import BadInput, problems
from fa_core.values import HERE

CONFIG = "federation.toml"
PLACE = Path(".unheard") / "federations"
"""Where a federation is looked for by its name, from the working directory."""

LONGEST_HOURS = 30 * 24
"""A helper opens no collection for longer than 31 days."""

LONGEST_SOCKET = 107
"""Most bytes of a Unix socket's path on Linux (unix(7))."""


def _without_a_password(address: str) -> str:
    if "://" in address and (urlsplit(address).password or parse_qs(urlsplit(address).query).keys() & SECRET):
        raise ValueError(
            "every node would receive the password; put it into ~/.pgpass of the user who runs SuperExec"
        )
    return address


Place = Annotated[str, AfterValidator(_without_a_password)]
"""A folder or file (from the federation's directory) or postgresql://…, without a password: Flower sends a
run's configuration to every node. The database's client finds it in ~/.pgpass or PGPASSFILE."""


class Collecting(BaseModel):
    """`[collection]` of `federation.toml`: sums by two aggregators.

    Attributes:
        helper: file of the helper, as `fa helper init` writes it; "": no such sums.
        database: the leader's, a file or postgresql://….
        hours: for which reports are taken, where `fa run` does not say.
        seconds: between two drains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    helper: str = ""
    database: Place = "leader/leader.db"
    hours: Annotated[float, Field(gt=0, le=LONGEST_HOURS)] = 24.0
    seconds: Annotated[float, Field(ge=1, le=24 * 3600)] = 300.0

    def text(self) -> str:
        """Return the section."""
        return (
            "\n[collection]               # sums by two aggregators\n"
            f'helper = "{self.helper}"                # file of the helper; empty: no such sums\n'
            f'database = "{self.database}"  # the leader\'s: a file, or postgresql://…\n'
            f"hours = {self.hours}               # for which reports are taken\n"
            f"seconds = {self.seconds}            # between two drains\n"
        )


class Settings(BaseModel):
    """`federation.toml`.

    Attributes:
        name: what a release calls the engine.
        host, port: of the SuperLink, which serves all of Flower's APIs there.
        store: a folder, or postgresql://….
        population: whose budget is charged; a lab's is its fleet's.
        deadline: seconds that a stage may take.
        nodes: SuperNodes to wait for. devices: how many devices they stand for together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]+$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1024, le=65000)] = 18443
    store: Place = "store"
    population: str = ""
    deadline: Annotated[float, Field(gt=0, le=12 * 3600)] = 180.0
    nodes: Annotated[int, Field(ge=1)] = 3
    devices: Annotated[int, Field(ge=1)] = 3
    collection: Collecting = Collecting()

    @field_validator("name")
    @classmethod
    def _no_engine_of_this_machine(cls, name: str) -> str:
        if name in HERE:
            raise ValueError(f"{name} is an engine of this machine; a release must say where it was made")
        return name

    def text(self) -> str:
        """Return the file."""
        return (
            "# A federation of Unheard. `fa federation up` starts a lab of it, `fa run --engine` uses it.\n"
            f'name = "{self.name}"\n'
            f'host = "{self.host}"          # of the SuperLink\n'
            f"port = {self.port}\n"
            f'store = "{self.store}"              # a folder, or postgresql://…\n'
            f'population = "{self.population}"          # whose budget is charged\n'
            f"deadline = {self.deadline}          # seconds that a stage may take\n"
            f"nodes = {self.nodes}                  # SuperNodes to wait for\n"
            f"devices = {self.devices}                # devices that they stand for, together\n"
            f"{self.collection.text()}"
        )


@dataclass(frozen=True, slots=True)
class Federation:
    """A federation's directory, opened. Paths are absolute."""

    folder: Path
    settings: Settings

    @property
    def address(self) -> str:
        """Where the SuperLink answers, host:port."""
        return f"{self.settings.host}:{self.settings.port}"

    @property
    def store(self) -> str:
        """The store that runs write into, as `open_store` takes it."""
        return self._place(self.settings.store)

    @property
    def leader(self) -> str:
        """The leader's database: a file, or postgresql://…."""
        return self._place(self.settings.collection.database)

    @property
    def leader_key(self) -> Path:
        """The leader's private key."""
        return self.folder / "keys" / "leader.key"

    @property
    def helper(self) -> Path | None:
        """The helper's file, None where two aggregators form no sums."""
        said = self.settings.collection.helper
        return self.folder / said if said else None

    @property
    def helper_folder(self) -> Path:
        """The folder of a helper that was made with the federation; it may not be there."""
        return self.folder / "helper"

    def _place(self, said: str) -> str:
        return said if "://" in said else str(self.folder / said)

    @property
    def certificate(self) -> Path:
        """The TLS authority's certificate."""
        return self.folder / "tls" / "ca.crt"

    @property
    def witness_socket(self) -> Path:
        """Where the witness listens."""
        return socket_path(self.folder / "run" / "witness.sock")

    def node_key(self, number: int) -> Path:
        """Return the private key of a SuperNode."""
        return self.folder / "nodes" / f"{node_name(number)}.key"

    def hub(self, number: int) -> Path:
        """Return the folder of the devices behind a SuperNode."""
        return self.folder / "hubs" / node_name(number)

    def hub_socket(self, number: int) -> Path:
        """Return where the devices behind a SuperNode listen."""
        return socket_path(self.folder / "run" / f"{node_name(number)}.sock")


def node_name(number: int) -> str:
    """Return what a SuperNode is called."""
    return f"node-{number:02d}"


def socket_path(path: Path) -> Path:
    """Return `path`. Raises BadInput where it is too long for a Unix socket."""
    if len(str(path).encode()) > LONGEST_SOCKET:
        raise BadInput(
            f"{path} is longer than a socket's path may be ({LONGEST_SOCKET} bytes); "
            "choose a folder nearer to the root"
        )
    return path


def open_federation(place: Path) -> Federation:
    """Return the federation in a directory, or the one of that name in `.unheard/federations`.

    Raises BadInput where there is none, or its `federation.toml` is wrong.
    """
    folder = place if (place / CONFIG).is_file() or place.is_dir() else PLACE / place
    file = folder / CONFIG
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
        return Federation(folder.resolve(), Settings(**said))
    except FileNotFoundError:
        raise BadInput(
            f"there is no federation at {place}; `fa federation init {place}` makes one, and the engines "
            f"{', '.join(HERE)} need none"
        ) from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise BadInput(f"{file}: {problems(error)[0]}") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise BadInput(f"{file} is not TOML: {error}") from None
