"""Uploads that arrive at the same time are kept in one transaction: each commit costs a write to the disk.

While one transaction runs, what arrives gathers for the next; nothing waits for others to come. A device is
answered once its own upload is on disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fa_core.gateway.uploads import Taken, Upload

MOST: Final = 256
"""Uploads of one transaction, at most."""

Keep = Callable[[bytes, Sequence[Upload]], Awaitable[Sequence[Taken]]]
"""Keeps uploads of a task, in order, in one transaction; returns what became of each."""

_Waiting = tuple[Upload, "asyncio.Future[Taken]"]


class Gathering:
    """The uploads that wait for a worker's next transaction, by task. For one event loop."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._waiting: dict[bytes, list[_Waiting]] = {}
        self._running: asyncio.Task[None] | None = None

    async def take(self, task: bytes, upload: Upload) -> Taken:
        """Return what became of an upload. Raises what `keep` raises for the transaction that it is in."""
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task, []).append((upload, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        """Keep what waits until nothing does, the task that waits longest first."""
        try:
            while self._waiting:
                task = next(iter(self._waiting))
                waiting = self._waiting.pop(task)
                if len(waiting) > MOST:
                    self._waiting[task] = waiting[MOST:]
                await self._answer(task, waiting[:MOST])
        finally:
            self._running = None

    async def _answer(self, task: bytes, waiting: Sequence[_Waiting]) -> None:
        """Keep some uploads and answer them, but for those whose device has gone."""
        try:
            taken = await self._keep(task, [upload for upload, _ in waiting])
        except Exception as error:  # noqa: BLE001 - each request ends with it
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(waiting, taken, strict=True):
            if not answer.done():
                answer.set_result(outcome)
