"""The local engine's devices in processes of their own, so that a simulated fleet uses every core.

Each process is a fork that runs the same ClientApp for a run of neighbouring nodes. Keys and noise stay
different in every process: they come from the operating system, and OpenSSL and OpenDP draw afresh after a
fork. The process with the server computes no device's vector.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import TracebackType
from typing import Self

from fa_core.flower.transport import ClientApp, LocalGrid, Message, ServerApp, context_of, no_reply


@dataclass(slots=True)
class _Worker:
    """One process: its pending messages and the current one. One message at a time, lest both ends block."""

    process: ForkProcess
    pipe: Connection
    pending: deque[Message] = field(default_factory=deque)
    current: Message | None = None

    def feed(self) -> None:
        """Send the next message if the process is free."""
        if self.pending and self.current is None:
            self.current = self.pending.popleft()
            with suppress(OSError):  # it has died: `receive` finds out
                self.pipe.send(self.current)

    def receive(self) -> Message:
        """Return the reply to the current message; `no_reply` of a process that has died."""
        assert self.current is not None
        asked, self.current = self.current, None
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return no_reply(asked)


class ForkedGrid(LocalGrid):
    """A local Grid whose nodes run in `processes` forks, each a run of neighbouring nodes. Close it."""

    def __init__(self, app: ClientApp, nodes: int, processes: int) -> None:
        super().__init__(app, nodes)
        self._workers: list[_Worker] = []
        self._replies: dict[str, Message] = {}
        fork = multiprocessing.get_context("fork")
        for _ in range(processes):
            here, there = fork.Pipe()
            others = [worker.pipe for worker in self._workers]
            process = fork.Process(target=self._serve, args=(there, [here, *others]), daemon=True)
            process.start()
            there.close()
            self._workers.append(_Worker(process, here))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages for the processes that run their nodes; return their ids."""
        ids = list(super().push_messages(messages))
        for message_id in ids:
            self._worker(self._waiting[message_id]).pending.append(self._waiting.pop(message_id))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to `message_ids` that are there, after running nodes for a slice of time."""
        end = time.monotonic() + self._slice
        while True:
            for worker in self._workers:
                worker.feed()
            busy = {worker.pipe: worker for worker in self._workers if worker.current is not None}
            for pipe in wait(list(busy), timeout=max(0.0, end - time.monotonic())):
                reply = busy[pipe].receive()  # type: ignore[index]
                self._replies[reply.metadata.reply_to_message_id] = reply
            if not busy or time.monotonic() >= end:
                return [self._replies.pop(each) for each in message_ids if each in self._replies]

    def _worker(self, message: Message) -> _Worker:
        node = int(message.metadata.dst_node_id) - 1
        place = node * len(self._workers) // max(len(self._contexts), 1)
        return self._workers[min(max(place, 0), len(self._workers) - 1)]

    def _serve(self, pipe: Connection, others: Sequence[Connection]) -> None:
        """Answer until the server's end is closed. Ctrl-C is handled by the server alone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for other in others:
            other.close()
        try:
            while True:
                pipe.send(self._answer(pipe.recv()))
        except (EOFError, OSError):
            os._exit(0)


def run_local(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run a ServerApp in this process, over `nodes` nodes in one process a core."""
    with ForkedGrid(client, nodes, len(os.sched_getaffinity(0))) as grid:
        server(grid, context_of(0, {}))
