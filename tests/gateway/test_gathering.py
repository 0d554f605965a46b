"""Uploads that arrive together are kept together, and each request gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from fa_core.errors import UnheardError
from fa_core.gateway import gathering
from fa_core.gateway.gathering import Gathering
from fa_core.gateway.uploads import REPORT, Taken, Upload

ONE, TWO = b"1" * 32, b"2" * 32
UPLOADS = [Upload(REPORT, bytes([number]) * 32, b"report") for number in range(9)]


class Store:
    """Keeps what it is given once it may; rejects the third device, and fails where it shall."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, list[Upload]]] = []
        self.free = asyncio.Event()
        self.failing = False

    async def keep(self, task: bytes, sent: Sequence[Upload]) -> Sequence[Taken]:
        self.kept.append((task, list(sent)))
        await self.free.wait()
        if self.failing:
            raise UnheardError("no database")
        return [Taken.REJECTED if each == UPLOADS[2] else Taken.ACCEPTED for each in sent]


async def begun(gathered: Gathering, task: bytes, numbers: range) -> list["asyncio.Task[Taken]"]:
    """Send uploads that nobody has answered yet."""
    sent = [asyncio.create_task(gathered.take(task, UPLOADS[number])) for number in numbers]
    await asyncio.sleep(0)
    return sent


def test_what_arrives_while_one_transaction_runs_is_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST", 3)

    async def play() -> None:
        store = Store()
        gathered = Gathering(store.keep)
        first = await begun(gathered, ONE, range(1))
        await asyncio.sleep(0)
        more = await begun(gathered, ONE, range(1, 6))
        other = await begun(gathered, TWO, range(6, 7))
        more[3].cancel()  # its device has gone; the others are answered
        store.free.set()
        assert await asyncio.gather(*first) == [Taken.ACCEPTED]
        assert await asyncio.gather(*more[:3], more[4]) == [
            Taken.ACCEPTED,
            Taken.REJECTED,
            *[Taken.ACCEPTED] * 2,
        ]
        assert await asyncio.gather(*other) == [Taken.ACCEPTED]
        assert store.kept == [
            (ONE, UPLOADS[:1]),
            (ONE, UPLOADS[1:4]),
            (TWO, UPLOADS[6:7]),
            (ONE, UPLOADS[4:6]),
        ]
        assert await gathered.take(ONE, UPLOADS[7]) is Taken.ACCEPTED

    asyncio.run(play())


def test_a_transaction_that_fails_ends_its_requests_and_no_others() -> None:
    async def play() -> None:
        store = Store()
        gathered = Gathering(store.keep)
        sent = await begun(gathered, ONE, range(4))
        store.failing = True
        store.free.set()
        assert [type(each) for each in await asyncio.gather(*sent, return_exceptions=True)] == [
            UnheardError
        ] * 4
        store.failing = False
        assert await gathered.take(ONE, UPLOADS[5]) is Taken.ACCEPTED

    asyncio.run(play())
