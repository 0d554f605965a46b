"""One round: four stages, a deadline and a quorum for each, and a sum or a failure at the end.

The round moves bytes between a protocol (`Aggregation`: secure or plain, a state machine without clock or
network) and Flower's Grid. A device that answers with an error, late, twice, with something malformed or
for another stage has dropped out, which changes nothing for the others. A stage ends when everybody has
answered or dropped, or at its deadline, or as soon as too few are left.

    join -> (roster signed by the witness) -> shares -> masked -> (survivors signed) -> unmask -> sum
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from fa_core.errors import RoundFailed
from fa_core.transport import Grid, Letter, pull, push
from fa_core.values import Int64Array

Stage = Literal["join", "shares", "masked", "unmask"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """What a finished round knows: int64 sums, how many devices joined and how many are in the sums."""

    sums: Int64Array
    joined: int
    counted: int


class Aggregation(Protocol):
    """The server's side of a protocol for one release. Devices are numbered from 0, in any order."""

    @property
    def stage(self) -> Stage | None:
        """The stage that is due, None when the sum is there."""
        ...

    @property
    def quorum(self) -> int:
        """The fewest replies with which the due stage can end well."""
        ...

    def requests(self) -> Mapping[int, bytes]:
        """Return the request to each device that is still in; not asked at `join`."""
        ...

    def receive(self, replies: Mapping[int, bytes]) -> None:
        """Take the replies of the due stage and move on. Raises `StageFailed` or another RoundFailed."""
        ...

    def result(self) -> Aggregate:
        """Return the sum, after the last stage."""
        ...


class StageFailed(RoundFailed):
    """Too few devices were left at a stage; nothing is released."""

    def __init__(self, stage: Stage, asked: int, answered: int, needed: int) -> None:
        super().__init__(
            f"the round failed at stage {stage}: {answered} of {asked} devices answered, {asked - answered} "
            f"were missing, {needed} are needed; nothing was released"
        )
        self.stage: Stage = stage
        self.missing = asked - answered


class Interrupted(RoundFailed):
    """Somebody stopped the round."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(f"the round was stopped at stage {stage}; nothing was released")
        self.stage: Stage = stage


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
    """Who looks on: `report` is told how far the round is, `stopped` says whether it should end now."""

    report: Callable[[Progress], None]
    stopped: Callable[[], bool]


Address = tuple[int, int]
"""A device as a letter finds it: Flower's node id, and its slot behind that node."""


def conduct(
    grid: Grid,
    nodes: Sequence[int],
    invitation: bytes,
    release: str,
    aggregation: Aggregation,
    pace: Pace,
    clock: Clock,
    watch: Watch,
) -> tuple[Aggregate, int]:
    """Run a whole round over `nodes`; return its sum and the number of devices invited.

    `invitation` is the request at `join`, the same for every device. `release` is the hex id that every
    message carries. Raises RoundFailed (StageFailed, Interrupted, or the protocol's own) where it ends
    without a sum.
    """
    room = _Room(grid, release, pace, clock, watch)
    joined = room.collect(
        "join", [Letter(node, "join", release, {}, invitation) for node in nodes], aggregation.quorum
    )
    addresses = sorted(joined.replies)
    aggregation.receive({number: joined.replies[address] for number, address in enumerate(addresses)})
    numbers = {address: number for number, address in enumerate(addresses)}
    while (stage := aggregation.stage) is not None:
        requests = {addresses[number]: request for number, request in aggregation.requests().items()}
        tally = room.collect(stage, _letters(stage, release, requests), aggregation.quorum)
        aggregation.receive({numbers[address]: reply for address, reply in tally.replies.items()})
    return aggregation.result(), joined.asked


def _letters(stage: Stage, release: str, requests: Mapping[Address, bytes]) -> list[Letter]:
    """Put the requests to the devices of one node into one letter."""
    parts: dict[int, dict[int, bytes]] = {}
    for (node, slot), request in requests.items():
        parts.setdefault(node, {})[slot] = request
    return [Letter(node, stage, release, slots) for node, slots in parts.items()]


@dataclass(frozen=True, slots=True)
class _Room:
    """Where one round meets Flower: it sends letters and collects what comes back in time."""

    grid: Grid
    release: str
    pace: Pace
    clock: Clock
    watch: Watch

    def collect(self, stage: Stage, letters: Sequence[Letter], quorum: int) -> "_Tally":
        """Send letters and return what came back in time. Raises StageFailed under the quorum."""
        deadline = self.clock.now() + self.pace.deadline
        tally = _Tally(stage)
        for letter, message_id in zip(letters, push(self.grid, letters, self.pace.deadline), strict=True):
            tally.sent(letter, message_id)
        while True:
            left = deadline - self.clock.now()
            if self.watch.stopped():
                raise Interrupted(stage)
            heard = left > 0 and tally.pull(self.grid, self.release)
            self.watch.report(tally.progress(max(left, 0.0)))
            if left <= 0 or not tally.waiting or tally.hopeless(quorum):
                break
            if not heard:
                self.clock.sleep(min(self.pace.poll, left))
        if len(tally.replies) < quorum:
            raise StageFailed(stage, tally.asked, len(tally.replies), quorum)
        return tally


class _Tally:
    """What one stage has heard so far: replies by address, and the letters that wait for theirs."""

    def __init__(self, stage: Stage) -> None:
        self.stage: Stage = stage
        self.waiting: dict[str, Letter] = {}
        self.replies: dict[Address, bytes] = {}
        self._dropped = 0

    def sent(self, letter: Letter, message_id: str | None) -> None:
        """Wait for the reply to a letter, or count its devices as dropped where it could not be sent."""
        if message_id is None:
            self._dropped += _size(letter)
        else:
            self.waiting[message_id] = letter

    def pull(self, grid: Grid, release: str) -> bool:
        """Take the replies that are there; whether there were any."""
        arrived = list(pull(grid, {i: each.node for i, each in self.waiting.items()}, self.stage, release))
        often = Counter(message_id for message_id, _ in arrived)
        for message_id, letter in dict(arrived).items():
            asked = self.waiting.pop(message_id)
            self._count(asked, letter if often[message_id] == 1 else None)
        return bool(arrived)

    def _count(self, asked: Letter, letter: Letter | None) -> None:
        if letter is None or (asked.parts and letter.parts.keys() != asked.parts.keys()):
            self._dropped += _size(asked)
            return
        answers = {(letter.node, slot): part for slot, part in letter.parts.items() if part}
        self.replies.update(answers)
        self._dropped += len(letter.parts) - len(answers)

    @property
    def asked(self) -> int:
        """Devices asked: all that were heard of, and those that are waited for."""
        return len(self.replies) + self._dropped + sum(map(_size, self.waiting.values()))

    def hopeless(self, quorum: int) -> bool:
        """Whether the quorum is out of reach. Never said at `join`: a hub may yet speak for many."""
        return self.stage != "join" and self.asked - self._dropped < quorum

    def progress(self, left: float) -> Progress:
        """Return how far the stage is, with `left` seconds to its deadline."""
        return Progress(self.stage, self.asked, len(self.replies), self._dropped, left)


def _size(letter: Letter) -> int:
    """Return how many devices a letter asks; a node that has not said how many it serves counts as one."""
    return len(letter.parts) or 1
