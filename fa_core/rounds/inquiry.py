"""Asking the nodes of a federation for reports: one message a node at a time, until it has nothing new.

A hub answers for each of its devices, in slots from 0 on, and has nothing more. A gateway answers with what
arrived there, by serials from 1 on, and keeps it until it is acknowledged by the next message: the number is
the highest serial of its last reply, whose parts are in the leader's database by then. A drain begins with 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fa_core.flower.transport import Grid, NodeMessage, pull, push
from fa_core.rounds.round import Clock, Pace

STAGE: Final = "report"
_ACK_SIZE: Final = 8
_LARGEST: Final = (1 << 32) - 1
"""The last serial of a gateway."""


@dataclass(slots=True)
class Inquiry:
    """What the nodes are asked in one drain.

    Attributes:
        release: hex id. request: the encoded invitation, the same for every device.
        problem: why nodes could not be asked, "" where they could.
    """

    grid: Grid
    release: str
    request: bytes = field(repr=False)
    pace: Pace
    clock: Clock
    problem: str = ""
    _sent: dict[str, tuple[int, float]] = field(default_factory=dict)
    _known: dict[int, int] = field(default_factory=dict)
    _more: list[int] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        """Whether a node's reply is still expected."""
        return bool(self._sent)

    def begin(self, chosen: Callable[[int], bool]) -> None:
        """Ask every node that is online and chosen."""
        try:
            for node in self.grid.get_node_ids():
                if chosen(node):
                    self._known[node] = 0
                    self._push(node)
        except Exception as error:  # noqa: BLE001 - the network may fail in any way
            self._note(error)

    def next(self) -> list[bytes]:
        """Return the parts of the replies that are there now, after a moment's wait where there are none."""
        now = self.clock.now()
        self._sent = {name: sent for name, sent in self._sent.items() if now < sent[1]}
        expected = {name: node for name, (node, _) in self._sent.items()}
        try:
            replies = list(pull(self.grid, expected, STAGE, self.release))
        except Exception as error:  # noqa: BLE001 - the network may fail in any way
            self._note(error)
            return []
        parts = [part for name, reply in replies for part in self._parts(name, reply)]
        if not replies and self._sent:
            self.clock.sleep(self.pace.poll)
        return parts

    def acknowledge(self) -> None:
        """Ask again the nodes that may have more: all that they sent is in the database now."""
        try:
            while self._more:
                self._push(self._more.pop())
        except Exception as error:  # noqa: BLE001 - the network may fail in any way
            self._note(error)

    def _parts(self, name: str, reply: NodeMessage | None) -> list[bytes]:
        """Return what one reply holds. A second reply to the same message holds nothing."""
        if self._sent.pop(name, None) is None or reply is None:
            return []
        parts = [part for part in reply.parts.values() if part]
        serials = [serial for serial, part in reply.parts.items() if part]
        if parts and 0 not in reply.parts and self._known[reply.node] < max(serials) <= _LARGEST:
            self._known[reply.node] = max(serials)
            self._more.append(reply.node)
        return parts

    def _push(self, node: int) -> None:
        ack = self._known[node].to_bytes(_ACK_SIZE, "big")
        message = NodeMessage(node, STAGE, self.release, {0: ack}, self.request)
        sent = push(self.grid, message, self.pace.deadline)
        if sent is not None:
            self._sent[sent] = node, self.clock.now() + self.pace.deadline

    def _note(self, error: Exception) -> None:
        """Give up on the nodes in this drain. Of an error only its type is shown."""
        self._sent.clear()
        self._more.clear()
        self.problem = f"the nodes could not be asked ({type(error).__name__})"
