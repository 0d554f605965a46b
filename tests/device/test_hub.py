"""A node with many devices: the slow ones cost the others nothing, for the one reply goes out in time."""

import socket
import struct
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import clients.app
from clients.app import Devices, app, relay
from clients.device import serve
from clients.device.interface import Stage
from clients.device.serve import ANSWER_SECONDS
from fa_core.flower.transport import ClientApp, LocalGrid, NodeMessage, context_of, pull, push

LIFE = 100.0
RELEASE = "ab" * 16


class Clock:
    """Stands in for the module `time`: moves when a device takes its time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clients.app, "time", made)
    monkeypatch.setattr(serve, "time", made)
    return made


class Slow:
    """A device that answers after so many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def handle(self, stage: Stage, request: bytes) -> bytes:
        self._clock.now += self._seconds
        return b"reply"


def replies(client: ClientApp, config: dict[str, object] | None = None) -> dict[int, bytes]:
    """Return what the devices of a node said to an invitation that lives for LIFE."""
    grid = LocalGrid(client, 1)
    grid._contexts[1] = context_of(1, config or {})  # type: ignore[arg-type]
    sent = push(grid, NodeMessage(1, "join", RELEASE, {}, b"invitation"), LIFE)
    assert sent is not None
    ((_, answer),) = pull(grid, {sent: 1}, "join", RELEASE)
    assert answer is not None
    return dict(answer.parts)


def test_the_reply_of_a_slow_hub_goes_out_with_life_left(clock: Clock) -> None:
    hub: Devices = {slot: Slow(clock, LIFE / 10) for slot in range(10)}
    said = replies(relay(lambda config: hub))
    assert [bool(said[slot]) for slot in range(10)] == [True] * 8 + [False] * 2
    assert clock.now == 0.8 * LIFE


def test_no_device_behind_a_socket_is_waited_for_beyond_that(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[list[float]] = []

    class Watched(socket.socket):
        """Notes how long each call of a connection may wait."""

        def __init__(self, *kind: int) -> None:
            super().__init__(*kind)
            waits.append([])

        def settimeout(self, value: float | None) -> None:
            assert value is not None
            waits[-1].append(value)
            super().settimeout(value)

    monkeypatch.setattr(serve, "socket", SimpleNamespace(**{**vars(socket), "socket": Watched}))
    path = tmp_path / "device.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            for seconds in (50.0, 10.0):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1000)
                    clock.now += seconds
                    connection.sendall(struct.pack(">BI", 1, 5) + b"reply")

        thread = threading.Thread(target=answer)
        thread.start()
        assert replies(app, {"socket": str(path), "devices": 2}) == {0: b"reply", 1: b"reply"}
        thread.join()
    first, second = waits
    assert (first[0], first[-1]) == (ANSWER_SECONDS, 25.0)  # of three quarters of LIFE, 50 seconds are over
    assert (second[0], second[-1]) == (25.0, 15.0)
