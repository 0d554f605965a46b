"""A round ends with the sum over exactly those devices that completed it, or without a sum."""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest

from clients.app import relay
from fa_core.flower.transport import LocalGrid, Message, RecordDict
from fa_core.rounds.round import Interrupted
from fa_core.secagg.task import IN_ORDER, RoundFailure, Stage
from tests.rounds import fakes
from tests.rounds.fakes import CANARY, FakeClock, FakeDevice, Fault, SpoilingGrid, over, run_round

BAD = 2  # the device that fails; its node is BAD + 1


def test_the_sum_equals_numpys() -> None:
    table = fakes.vectors()
    ran = run_round([FakeDevice(row) for row in table])
    assert np.array_equal(ran.result.total, table.sum(axis=0))
    assert (ran.invited, ran.result.joined, len(ran.result.counted)) == (6, 6, 6)


@pytest.mark.parametrize("fault", [fakes.decline, fakes.crash, fakes.silence, fakes.garbage])
@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_device_that_fails_is_dropped_and_changes_nothing_else(stage: Stage, fault: Fault) -> None:
    table = fakes.vectors()
    devices = [FakeDevice(row) for row in table]
    devices[BAD] = FakeDevice(table[BAD], {stage: fault})
    ran = run_round(devices)
    counted = [i for i in range(6) if i != BAD or stage is Stage.UNMASK]
    assert np.array_equal(ran.result.total, table[counted].sum(axis=0))
    assert len(ran.result.counted) == len(counted)
    assert ran.result.joined == (5 if stage is Stage.JOIN else 6)


def twice(message: Message) -> list[Message]:
    return [message, message]


def under_another_stage(message: Message) -> list[Message]:
    message.metadata.message_type = "query.join"
    return [message]


def for_another_release(message: Message) -> list[Message]:
    message.metadata.group_id = "cd" * 16
    return [message]


def from_another_node(message: Message) -> list[Message]:
    message.metadata.__dict__["_src_node_id"] = 1
    return [message]


def with_content(content: RecordDict, message: Message) -> list[Message]:
    return [Message(content, reply_to=_asked(message))]


def _asked(message: Message) -> Message:
    """Return a message that `message` could be the reply to."""
    asked = Message(RecordDict(), message.metadata.src_node_id, message.metadata.message_type)
    asked.metadata.group_id = message.metadata.group_id
    asked.metadata.__dict__["_message_id"] = message.metadata.reply_to_message_id
    return asked


SPOILED: dict[str, Callable[[Message], list[Message]]] = {
    "twice": twice,
    "another stage": under_another_stage,
    "another release": for_another_release,
    "another node": from_another_node,
    "never": lambda message: [],
    "no record": partial(with_content, RecordDict()),
    "two parts for one device": partial(with_content, fakes.content([b"ok", b"ok"])),
    "a slot twice": partial(with_content, fakes.content([b"ok", b"ok"], [0, 0])),
    "a negative slot": partial(with_content, fakes.content([b"ok"], [-1])),
    "fewer slots than parts": partial(with_content, fakes.content([b"ok"], [])),
    "no part": partial(with_content, fakes.content([])),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
@pytest.mark.parametrize("stage", ["shares", "masked"])
def test_a_reply_that_is_spoiled_on_its_way_is_a_dropout(
    stage: Stage, spoil: Callable[[Message], list[Message]]
) -> None:
    table = fakes.vectors()
    grid = partial(SpoilingGrid, node=BAD + 1, stage=stage, spoil=spoil)
    ran = run_round([FakeDevice(row) for row in table], grid=grid)
    assert np.array_equal(ran.result.total, np.delete(table, BAD, axis=0).sum(axis=0))
    assert (ran.result.joined, len(ran.result.counted)) == (6, 5)


class SlowGrid(LocalGrid):
    """Holds one node's replies back until the clock says so."""

    def __init__(self, app: object, nodes: int, clock: FakeClock, node: int, seconds: float) -> None:
        super().__init__(app, nodes)
        self._clock, self._node, self._seconds = clock, node, seconds
        self._held: list[tuple[float, Message]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = self._clock.now()
        for message in super().pull_messages(message_ids):
            if message.metadata.src_node_id == self._node:
                self._held.append((now + self._seconds, message))
            else:
                yield message
        yield from (message for due, message in self._held if due <= now)
        self._held = [held for held in self._held if held[0] > now]


@pytest.mark.parametrize(("seconds", "counted"), [(59.0, 6), (61.0, 5)])
def test_a_late_reply_is_a_dropout_and_only_then(seconds: float, counted: int) -> None:
    table, clock = fakes.vectors(), FakeClock()
    grid = partial(SlowGrid, clock=clock, node=BAD + 1, seconds=seconds)
    ran = run_round([FakeDevice(row) for row in table], grid=grid, clock=clock)
    assert len(ran.result.counted) == counted
    kept = table if counted == 6 else np.delete(table, BAD, axis=0)
    assert np.array_equal(ran.result.total, kept.sum(axis=0))


def test_a_stage_does_not_wait_where_everybody_has_answered_or_failed() -> None:
    clock, table = FakeClock(), fakes.vectors()
    run_round([FakeDevice(table[0]), FakeDevice(table[1], {"masked": fakes.decline})], clock=clock)
    assert clock.now() < 2.0


@pytest.mark.parametrize("stage", IN_ORDER)
def test_too_few_devices_end_the_round_without_a_sum(stage: Stage) -> None:
    table = fakes.vectors()
    devices = [FakeDevice(row, {stage: fakes.decline} if i < 2 else {}) for i, row in enumerate(table)]
    with pytest.raises(RoundFailure, match=f"at {stage.value}: 2 of 6") as caught:
        run_round(devices, needed=5)
    assert (caught.value.stage, caught.value.missing, caught.value.exit_code) == (stage, 2, 4)


def test_a_round_that_cannot_succeed_does_not_wait_for_its_deadline() -> None:
    table, clock = fakes.vectors(), FakeClock()
    devices = [FakeDevice(row, {"masked": fakes.decline} if i < 2 else {}) for i, row in enumerate(table)]
    grid = partial(SlowGrid, clock=clock, node=6, seconds=30.0)
    with pytest.raises(RoundFailure):
        run_round(devices, needed=5, grid=grid, clock=clock)
    assert clock.now() < 3 * 30 + 2  # the stages before waited for the slow one, masked did not


def test_a_round_can_be_stopped() -> None:
    with pytest.raises(Interrupted, match="stopped at stage join"):
        run_round([FakeDevice(row) for row in fakes.vectors()], stopped=lambda: True)


def test_progress_is_reported_stage_by_stage() -> None:
    table = fakes.vectors()
    devices = [FakeDevice(row, {"masked": fakes.silence} if i == BAD else {}) for i, row in enumerate(table)]
    seen = run_round(devices).seen
    assert list(dict.fromkeys(each.stage for each in seen)) == list(IN_ORDER)
    last = {each.stage: (each.asked, each.answered, each.dropped) for each in seen}
    assert last == {
        "join": (6, 6, 0),
        "shares": (6, 6, 0),
        "confirm": (6, 6, 0),
        "masked": (6, 5, 1),
        "unmask": (5, 5, 0),
    }


def test_a_hub_of_many_devices_counts_each() -> None:
    table = fakes.vectors()
    hubs = [
        {0: FakeDevice(table[0]), 1: FakeDevice(table[1], {"masked": fakes.crash}), 2: FakeDevice(table[2])},
        {0: FakeDevice(table[3]), 7: FakeDevice(table[4], {"join": fakes.decline})},
    ]
    ran = over(LocalGrid(relay(lambda config: hubs[config["partition-id"]]), 2))
    assert np.array_equal(ran.result.total, table[[0, 2, 3]].sum(axis=0))
    assert (ran.invited, ran.result.joined, len(ran.result.counted)) == (5, 4, 3)


def test_no_text_of_a_device_reaches_the_server() -> None:
    seen: list[str] = []

    def keep(message: Message) -> list[Message]:
        seen.append(repr(message))
        return [message]

    def broken(config: object) -> object:
        raise RuntimeError(CANARY)

    table = fakes.vectors()
    devices = [FakeDevice(row, {"masked": fakes.crash}) for row in table]
    grid = partial(SpoilingGrid, node=BAD + 1, stage="masked", spoil=keep)
    with pytest.raises(RoundFailure) as caught:
        run_round(devices, grid=grid)
    with pytest.raises(RoundFailure):
        over(SpoilingGrid(relay(broken), 6, node=BAD + 1, stage="join", spoil=keep))  # type: ignore[arg-type]
    assert len(seen) == 2
    assert not any(CANARY in text for text in [*seen, str(caught.value)])


class FullGrid(LocalGrid):
    """Takes no message for one node, as Flower does for a node that has just left."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept = [each for each in messages if each.metadata.dst_node_id != BAD + 1]
        return super().push_messages(kept)


def test_a_node_that_cannot_be_reached_is_a_dropout() -> None:
    table, clock = fakes.vectors(), FakeClock()
    ran = run_round([FakeDevice(row) for row in table], grid=FullGrid, clock=clock)
    assert np.array_equal(ran.result.total, np.delete(table, BAD, axis=0).sum(axis=0))
    assert (ran.invited, ran.result.joined) == (6, 5)
    assert clock.now() < 2.0
