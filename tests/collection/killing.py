"""A leader and a helper as processes, which kill themselves, or their database's server, before a write."""

import os
import signal
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, event

from fa_core.collection import measured as measuring
from fa_core.collection.exchange import HelperClient, read_address
from fa_core.collection.helper import Helper
from fa_core.collection.leader import Leader
from fa_core.collection.migrations import LINEAGE
from fa_core.database.connection import Database, Unavailable, connect_file, connect_server
from fa_core.helper_service.process import server
from fa_core.helper_service.service import build
from fa_core.helper_service.settings import ADDRESS, KEY, read_home
from fa_core.rounds.keys import local_keys, local_signers
from fa_core.trust.charges import ChargeProof
from fa_core.trust.enrolment import read_key

PATIENCE = 300.0
"""Seconds for which a leader asks its helper again: a guard against hanging, not a measure."""

AGAIN = 3
"""Exit code of a process whose database went away: it is to be started again."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL before the commit of this number, or, unless `commits`, before the write of this number; to
    the process that counts, or to another."""

    at: int
    commits: bool = True
    process: int = 0

    def arm(self) -> None:
        """Count from now on."""
        reached = 0

        def reach(connection: Connection, cursor: object = None, statement: str = "", *_: Any) -> None:
            nonlocal reached
            writes = connection.get_execution_options().get("unheard_writes", False)
            if not writes or statement.startswith(("SELECT", "BEGIN", "SET")):
                return
            if reached == self.at:
                os.kill(self.process or os.getpid(), signal.SIGKILL)
            reached += 1

        event.listen(Engine, "commit", reach)
        if not self.commits:
            event.listen(Engine, "before_cursor_execute", reach)


@dataclass(frozen=True)
class Given:
    """What both processes are given.

    Attributes:
        folder: the world's, with the helper's in it; what they find is written there.
        databases: of leader and helper, a file or an address. at: the time for both.
        leader_key: raw. plan, release, charge, window: of the task that is opened.
        reports: none while the task is opened.
    """

    folder: Path
    databases: dict[str, str]
    at: datetime
    leader_key: bytes
    plan: bytes
    release: bytes
    charge: bytes
    window: tuple[datetime, datetime]
    reports: tuple[bytes, ...] = ()

    def clock(self) -> datetime:
        """The time."""
        return self.at

    def database(self, role: str) -> Database:
        """Return the database of a role, its tables up to date."""
        where = self.databases[role]
        found = connect_server(where, LINEAGE) if "://" in where else connect_file(Path(where), LINEAGE)
        found.prepare()
        return found

    def draw(self, layout: Any, role: str) -> Any:
        """Return noise that says which draw it is: its number is in the file `draws` before it is used."""
        with (self.folder / "draws").open("ab", buffering=0) as draws:
            draws.write(role[:1].encode())
            return np.full(layout.length, draws.tell(), np.int64)


@dataclass(frozen=True)
class Watched:
    """A helper that keeps a hash of every share of a sum that it gives away in the file `shares`."""

    client: HelperClient
    shares: Path

    def open(self, request: bytes) -> bytes:
        return self.client.open(request)

    def verify(self, batch: bytes) -> bytes:
        return self.client.verify(batch)

    def close(self, request: bytes) -> bytes:
        answer = self.client.close(request)
        with self.shares.open("a") as shares:
            shares.write(sha256(answer).hexdigest() + "\n")
        return answer


def lead(given: Given, kill: Kill | None) -> None:
    """Open the task into the file `task`; take reports, if there are any, and close into the file `sums`."""
    measuring.noise_of = given.draw
    folder, key = given.folder, Ed25519PrivateKey.from_private_bytes(given.leader_key)
    address = read_address(folder / "helper" / ADDRESS)
    helper = Watched(HelperClient(address, key, PATIENCE), folder / "shares")
    try:
        database = given.database("leader")
        if kill is not None:
            kill.arm()
        leader = Leader(database, key, local_keys(folder / "local").authority.public_key, given.clock)
        charge = ChargeProof.decode(given.charge)
        task = leader.open(given.plan, given.release, charge, given.window, helper).task
        (folder / "task").write_bytes(task.encode())
        if given.reports:
            assert not any(leader.take_all(task.id, given.reports))
            sums = leader.close(task.id, helper)
            assert leader.tally(task.id).counted == len(given.reports)
            (folder / "sums").write_bytes(sums.tobytes())
    except Unavailable:
        os._exit(AGAIN)


def serve(given: Given, kill: Kill | None, listening: socket) -> None:
    """Serve the helper until killed, at a socket that outlives it."""
    measuring.noise_of = given.draw
    home, keys = read_home(given.folder / "helper"), local_keys(given.folder / "local")
    witness = local_signers(keys, given.clock).witness
    try:
        database = given.database("helper")
    except Unavailable:
        os._exit(AGAIN)
    helper = Helper(database, read_key(home.folder / KEY), home.pinned(), witness, given.clock)
    if kill is not None:
        kill.arm()
    server(home, build(helper, home.pinned().leader, 60.0)).run(sockets=[listening])
