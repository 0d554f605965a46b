"""What the other processes of the concurrency tests do. Forked off a server: each has its own store."""

import time
from multiprocessing.connection import Connection

from fa_core.errors import Refused
from fa_core.privacy.ledger import Charge
from fa_core.store import chain, open_store


def serve(where: str, pipe: Connection) -> None:
    """Make the charges of each schedule that arrives, and answer with those that were admitted."""
    with open_store(where) as store:
        pipe.send("ready")
        while (schedule := pipe.recv()) is not None:
            admitted = []
            for pause, charge in schedule:
                time.sleep(pause)
                try:
                    store.charge(charge)
                except Refused:
                    continue
                admitted.append(charge.release)
            pipe.send(admitted)


def charge_until_killed(where: str, pipe: Connection, charges: list[Charge]) -> None:
    """Make one charge after another and report each once it is committed; only a kill ends it."""
    with open_store(where) as store:
        for charge in charges:
            store.charge(charge)
            pipe.send(charge.release)
        time.sleep(3600)


def hang_inside(where: str, pipe: Connection, charge: Charge) -> None:
    """Write a charge, and hang before its transaction ends."""
    with open_store(where) as store, store._database.writing() as connection:
        chain.charge(connection, charge, chain.nothing_set_aside)
        pipe.send("inside")
        time.sleep(3600)
