"""One round: five stages, each with a deadline and a quorum, and a sum or a failure at the end.

The round moves bytes between a protocol (`Aggregation`: secure or plain, a state machine without clock or
network) and Flower's Grid. A device that answers with an error, late, twice, with something malformed or
for another stage has dropped out, which does not affect the others. A stage ends when everybody has
answered or dropped, or at its deadline, or as soon as too few are left.

    join -> (roster signed) -> shares -> confirm -> masked -> (survivors signed) -> unmask -> sum
                                           └-> dispute -> join again, without those at fault

A device that was dealt garbage complains at `confirm`, before anything was masked; the attempt is given up,
and the next one is made with the same release, the same charge and those devices that kept to the protocol.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fa_core.errors import RoundFailed
from fa_core.flower.transport import Grid, NodeMessage, pull, push
from fa_core.rounds.standing import Standing
from fa_core.secagg.server import Result
from fa_core.secagg.task import MAX_ATTEMPTS, RoundFailure, Stage

logger = logging.getLogger(__name__)


class Aggregation(Protocol):
    """The server's side of a protocol for one release, as `fa_core.secagg` has it, secure or plain."""

    @property
    def stage(self) -> Stage | None:
        """The stage that is due, None when the sum is there."""
        ...

    @property
    def quorum(self) -> int:
        """The fewest replies with which the due stage can end well."""
        ...

    @property
    def result(self) -> Result:
        """The sum, after the last stage."""
        ...

    @property
    def left_out(self) -> frozenset[int]:
        """Devices that complaints show to be at fault. Where there are any, the attempt had no sum."""
        ...

    def requests(self) -> Mapping[int, bytes]:
        """Return the request to each device that is still in, by its number."""
        ...

    def receive(self, replies: Mapping[int, bytes]) -> None:
        """Take the replies of the due stage and move on. Raises RoundFailed where they are too few."""
        ...


class Interrupted(RoundFailed):
    """The round was stopped by its operator."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(f"the round was stopped at stage {stage.value}; nothing was released")
        self.stage = stage


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stage may take and how often to look for replies, in seconds."""

    deadline: float
    poll: float


class Clock(Protocol):
    """Time as a round sees it."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class MonotonicClock:
    """The clock of a machine."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is: public counts only.

    Attributes:
        asked: devices asked; at `join` the nodes asked, until hubs have said how many they serve.
        answered, dropped: of those, so far.
        left: seconds to the deadline.
    """

    stage: Stage
    asked: int
    answered: int
    dropped: int
    left: float


@dataclass(frozen=True, slots=True)
class Watch:
    """The caller's callbacks: `report` receives each `Progress`, `stopped` returns whether to end now, and
    `collected` receives each `Standing` of a sum by two aggregators."""

    report: Callable[[Progress], None]
    stopped: Callable[[], bool]
    collected: Callable[[Standing], None] = lambda _: None


Address = tuple[int, int]
"""A device's address: Flower's node id, and its slot behind that node."""


def conduct(
    grid: Grid,
    nodes: Sequence[int],
    invite: Callable[[int], bytes],
    release: str,
    begin: Callable[[int, Iterable[int]], Aggregation],
    pace: Pace,
    clock: Clock,
    watch: Watch,
) -> tuple[Result, int]:
    """Run a whole round over `nodes`; return its result and the number of devices invited.

    `invite` gives the request at `join` of an attempt (from 0), the same for every device. `release` is the
    hex id that every message carries. `begin` is called for each attempt with the numbers of the devices
    invited, once hubs have said how many they serve. Raises RoundFailed where the round ends without a sum.
    """
    exchange = _Exchange(grid, release, pace, clock, watch)
    first = invite(0)
    invitations = [NodeMessage(node, Stage.JOIN, release, {}, first) for node in nodes]
    join = exchange.collect(Stage.JOIN, invitations, 0)
    addresses = sorted([*join.replies, *join.dropped])
    numbers = {address: number for number, address in enumerate(addresses)}
    asked: Sequence[int] = list(numbers.values())
    replies: Mapping[Address, bytes] = join.replies
    for attempt in range(MAX_ATTEMPTS):
        joined = {numbers[address] for address in replies}
        aggregation = begin(attempt, asked)
        while True:
            aggregation.receive({numbers[address]: reply for address, reply in replies.items()})
            stage = aggregation.stage
            if stage is None:
                break
            messages = _messages(stage, release, addresses, aggregation.requests())
            replies = exchange.collect(stage, messages, aggregation.quorum).replies
        if not aggregation.left_out:
            return aggregation.result, len(addresses)
        logger.warning(
            "attempt %d was given up for a complaint: %d left out", attempt, len(aggregation.left_out)
        )
        if attempt + 1 < MAX_ATTEMPTS:
            asked = sorted(joined - aggregation.left_out)
            messages = _messages(Stage.JOIN, release, addresses, dict.fromkeys(asked, invite(attempt + 1)))
            replies = exchange.collect(Stage.JOIN, messages, 0).replies
    text = f"devices were dealt shares that do not open in each of {MAX_ATTEMPTS} attempts"
    raise RoundFailure(Stage.DISPUTE, len(aggregation.left_out), text)


def _messages(
    stage: Stage, release: str, addresses: Sequence[Address], requests: Mapping[int, bytes]
) -> Iterator[NodeMessage]:
    """Yield one message a node, with the requests to the devices behind it; lazily, to save memory."""
    behind: dict[int, dict[int, int]] = {}
    for number in requests:
        node, slot = addresses[number]
        behind.setdefault(node, {})[slot] = number
    for node, slots in behind.items():
        yield NodeMessage(node, stage, release, {slot: requests[number] for slot, number in slots.items()})


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Sends a stage's messages through Flower and collects the replies that arrive in time."""

    grid: Grid
    release: str
    pace: Pace
    clock: Clock
    watch: Watch

    def collect(self, stage: Stage, messages: Iterable[NodeMessage], quorum: int) -> "_Tally":
        """Send messages and return the replies in time, or those so far once `quorum` is out of reach."""
        deadline = self.clock.now() + self.pace.deadline
        tally = _Tally(stage)
        for message in messages:
            tally.sent(message, push(self.grid, message, self.pace.deadline))
        while True:
            left = deadline - self.clock.now()
            if self.watch.stopped():
                raise Interrupted(stage)
            arrived = left > 0 and tally.pull(self.grid, self.release)
            if left <= 0:
                tally.give_up()
            self.watch.report(tally.progress(max(left, 0.0)))
            if not tally.waiting or (stage is not Stage.JOIN and tally.possible < quorum):
                return tally
            if not arrived:
                self.clock.sleep(min(self.pace.poll, left))


class _Tally:
    """The state of one stage: replies by address, who dropped out, and whose reply is still expected.

    A node that has not said how many devices it serves counts as one, in slot 0.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.waiting: dict[str, tuple[int, frozenset[int]]] = {}
        self.replies: dict[Address, bytes] = {}
        self.dropped: set[Address] = set()

    def sent(self, message: NodeMessage, message_id: str | None) -> None:
        """Expect the reply to a message, or count its devices as dropped where it could not be sent."""
        slots = frozenset(message.parts)
        if message_id is None:
            self._drop(message.node, slots)
        else:
            self.waiting[message_id] = (message.node, slots)

    def pull(self, grid: Grid, release: str) -> bool:
        """Take the replies that are there; whether there were any."""
        nodes = {message_id: node for message_id, (node, _) in self.waiting.items()}
        arrived = list(pull(grid, nodes, self.stage, release))
        often = Counter(message_id for message_id, _ in arrived)
        for message_id, reply in dict(arrived).items():
            node, slots = self.waiting.pop(message_id)
            if reply is None or often[message_id] > 1 or (slots and reply.parts.keys() != slots):
                self._drop(node, slots)
            else:
                self._count(reply)
        return bool(arrived)

    def give_up(self) -> None:
        """Count every device whose reply is still expected as dropped."""
        for node, slots in self.waiting.values():
            self._drop(node, slots)
        self.waiting.clear()

    def _count(self, reply: NodeMessage) -> None:
        for slot, part in reply.parts.items():
            if part:
                self.replies[reply.node, slot] = part
            else:
                self.dropped.add((reply.node, slot))

    def _drop(self, node: int, slots: frozenset[int]) -> None:
        self.dropped.update((node, slot) for slot in slots or {0})

    @property
    def possible(self) -> int:
        """The most devices that can still have answered when the stage ends."""
        return len(self.replies) + sum(len(slots) or 1 for _, slots in self.waiting.values())

    def progress(self, left: float) -> Progress:
        """Return how far the stage is, with `left` seconds to its deadline."""
        asked = self.possible + len(self.dropped)
        return Progress(self.stage, asked, len(self.replies), len(self.dropped), left)
