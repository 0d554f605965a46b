"""Ports of the loopback interface for servers that tests start as processes."""

import socket
from secrets import randbelow

BLOCKS = range(20_000, 32_000, 64)
"""Below 32768: from there on ports are given to connections."""

_reserved: list[socket.socket] = []


def free_ports(count: int = 1) -> int:
    """Return the first of up to 64 ports in a row on which nothing listens.

    No other process that calls this is given one of them until this process ends, for a server may start
    listening long after. An abstract socket (Linux) reserves them, and leaves nothing behind.
    """
    begin = randbelow(len(BLOCKS))
    for first in (*BLOCKS[begin:], *BLOCKS[:begin]):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0unheard-tests-ports-{first}")
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return first
    raise AssertionError("no ports are free")
