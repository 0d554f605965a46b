"""Changed messages: a party refuses or the server goes without; never a traceback, a wrong sum or a secret.

Every field of every message is changed by hypothesis (which knows the fields), and every byte by a fuzzer
(which does not). What comes back must be a `Refusal` with a fixed code, a `RoundFailure`, or an exact sum.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa_core.errors import Refused
from fa_core.secagg import IN_ORDER, Reason, Refusal, RoundFailure, Stage, messages
from fa_core.secagg.messages import Kind, Malformed
from tests.secagg import lab
from tests.secagg.lab import TASK, Lab

N = 6
SMALL = replace(TASK, length=3, dropout=Fraction(1, 3), corrupt=Fraction(0))
HEX = re.compile(r"[0-9a-f]{8}|\d{4}|\\x|b'")

# What a change does to some bytes: (bytes, a position, a value) -> other bytes.
Change = Callable[[bytes, int, int], bytes]


def flip(data: bytes, at: int, value: int) -> bytes:
    """One byte, changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ (value % 255 + 1)]) + data[at + 1 :]


def truncate(data: bytes, at: int, value: int) -> bytes:
    """The front of it."""
    return data[: at % len(data)]


def extend(data: bytes, at: int, value: int) -> bytes:
    """Something added."""
    return data + bytes([value % 256]) * (at % 40 + 1)


def blank(data: bytes, at: int, value: int) -> bytes:
    """A run of equal bytes."""
    at %= len(data)
    size = at % 64 + 1
    return (data[:at] + bytes([value % 256]) * size + data[at + size :])[: len(data)]


def swap(data: bytes, at: int, value: int) -> bytes:
    """Two runs of 32 bytes exchanged: keys, hashes and shares are that long, or nearly."""
    one, two = sorted((at % len(data), value % len(data)))
    if two - one < 32 or two + 32 > len(data):
        return flip(data, at, value)
    return data[:one] + data[two : two + 32] + data[one + 32 : two] + data[one : one + 32] + data[two + 32 :]


CHANGES: tuple[Change, ...] = (flip, flip, flip, truncate, extend, blank, swap)


@dataclass(frozen=True)
class Hit:
    """Which message is changed, and how."""

    stage: Stage
    node: int
    outgoing: bool
    change: Change
    at: int
    value: int

    def apply(self, data: bytes) -> bytes:
        return self.change(data, self.at, self.value)


def struck(journal: Path, hit: Hit) -> tuple[Lab, RoundFailure | None]:
    """A round in which one message is changed on its way. Any other exception goes through."""
    bench = lab.make(journal, N, SMALL)

    def request(stage: Stage, node: int, message: bytes) -> bytes:
        return hit.apply(message) if hit.outgoing and (stage, node) == (hit.stage, hit.node) else message

    def reply(stage: Stage, node: int, message: bytes) -> bytes:
        return message if hit.outgoing or (stage, node) != (hit.stage, hit.node) else hit.apply(message)

    try:
        bench.run(request=request, reply=reply)
    except RoundFailure as failure:
        return bench, failure
    return bench, None


def sound(bench: Lab, failure: RoundFailure | None, hit: Hit) -> None:
    """The outcome is allowed: an exact sum over all who were counted with the vector they sent, or none."""
    if failure is not None:
        assert not HEX.search(str(failure)), failure
        return
    if bench.server.left_out:  # the attempt was given up, for a complaint that had no ground
        assert (bench.server.left_out, hit.stage, bench.asked) == ({hit.node}, Stage.CONFIRM, {})
        return
    result = bench.server.result
    changed = not hit.outgoing and hit.stage is Stage.MASKED and hit.node in result.counted
    if changed:  # a device may say what it likes of itself: only its own row differs, and nobody else's
        return
    assert np.array_equal(result.total, bench.expected())
    assert len(result.counted) >= N - 2


def random_hit(choice: random.Random) -> Hit:
    return Hit(
        choice.choice(IN_ORDER),
        choice.randrange(N),
        choice.random() < 0.5,
        choice.choice(CHANGES),
        choice.randrange(1 << 20),
        choice.randrange(1 << 20),
    )


def fuzz_rounds(journal: Path, cases: range) -> None:
    for case in cases:
        hit = random_hit(random.Random(case))
        bench, failure = struck(journal / str(case), hit)
        sound(bench, failure, hit)


def test_a_changed_message_on_the_way(tmp_path: Path) -> None:
    fuzz_rounds(tmp_path, range(150))


@pytest.mark.long
def test_10_000_changed_messages_on_the_way(tmp_path: Path) -> None:
    fuzz_rounds(tmp_path, range(1_000, 11_000))


# A party that has got as far as each stage can be struck again and again: a refusal leaves it as it was.


@dataclass
class Standing:
    """Parties at every stage, each with the right request in hand; every reader with its right message."""

    parties: list[tuple[Lab, Stage, bytes]]
    readers: list[tuple[Callable[[bytes], object], bytes]]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    parties, readers = [], []
    session = SMALL.session
    for stage in IN_ORDER:
        bench = lab.make(tmp_path_factory.mktemp(stage.value), N, SMALL).run(until=stage)
        parties.append((bench, stage, bench.server.requests()[0]))
    replies: dict[Stage, bytes] = {}

    def keep(stage: Stage, node: int, reply: bytes) -> bytes:
        replies[stage] = reply
        return reply

    done = lab.make(tmp_path_factory.mktemp("done"), N, SMALL).run(reply=keep)
    flags = np.ones(N, dtype=np.bool_)
    roster = messages.roster_request(SMALL, b"", [r.encode() for r in done.server._records])
    readers = [
        (messages.read_join_request, messages.join_request(SMALL)),
        (lambda data: messages.read_join_reply(session, data), replies[Stage.JOIN]),
        (lambda data: messages.read_shares_request(session, data), parties[1][2]),
        (lambda data: messages.read_shares_reply(session, data, N - 1), replies[Stage.SHARES]),
        (lambda data: messages.read_confirm_request(session, data, N), parties[2][2]),
        (lambda data: messages.read_count(Kind.CONFIRM_REPLY, session, data), replies[Stage.CONFIRM]),
        (lambda data: messages.read_masked_request(session, data), parties[3][2]),
        (lambda data: messages.read_masked_reply(SMALL, data), replies[Stage.MASKED]),
        (lambda data: messages.read_unmask_request(session, data, N), parties[4][2]),
        (lambda data: messages.read_unmask_reply(session, data, N - 1), replies[Stage.UNMASK]),
        (messages.read_roster_request, roster),
        (
            lambda data: messages.read_roster_reply(session, data),
            messages.roster_reply(session, done.server._roster),
        ),
        (messages.read_survivors_request, messages.survivors_request(SMALL, flags, flags)),
        (
            lambda data: messages.read_survivors_reply(session, data),
            messages.survivors_reply(session, bytes(64)),
        ),
    ]
    return Standing(parties, readers)


def strike_party(bench: Lab, stage: Stage, changed: bytes) -> None:
    """The party refuses in fixed words, and is as it was."""
    party = bench.parties[0]
    before = (len(party._answers), party._contribute is None)
    with pytest.raises(Refusal) as caught:
        getattr(party, stage.value)(changed)
    assert str(caught.value) in {reason.value for reason in Reason}
    assert caught.value.__cause__ is None
    assert (len(party._answers), party._contribute is None) == before


def strike_readers(standing: Standing, choice: random.Random) -> None:
    reader, right = choice.choice(standing.readers)
    changed = choice.choice(CHANGES)(right, choice.randrange(1 << 20), choice.randrange(1 << 20))
    try:
        reader(changed)
    except Malformed as error:
        assert not HEX.search(str(error))  # noqa: PT017


def strike_witness(bench: Lab, choice: random.Random, right: bytes) -> None:
    changed = choice.choice(CHANGES)(right, choice.randrange(1 << 20), choice.randrange(1 << 20))
    if changed == right:  # a run of bytes was blanked that were so by chance
        return
    try:
        bench.witness.sign_roster(changed)
    except Refused:
        return
    assert messages.read_roster_request(changed)[0] != SMALL, "it signed a changed roster of the same round"


def fuzz_standing(standing: Standing, cases: range) -> int:
    """How many changed requests were refused: all that did change.

    Not those of `confirm`: a changed sealed share is complained of (`test_complaints.py`).
    """
    refused = 0
    targets = [entry for entry in standing.parties if entry[1] is not Stage.CONFIRM]
    for case in cases:
        choice = random.Random(case)
        strike_readers(standing, choice)
        bench, stage, right = choice.choice(targets)
        changed = choice.choice(CHANGES)(right, choice.randrange(1 << 20), choice.randrange(1 << 20))
        if changed != right:
            strike_party(bench, stage, changed)
            refused += 1
    return refused


def test_changed_requests_are_refused_and_leave_no_trace(standing: Standing) -> None:
    assert fuzz_standing(standing, range(3_000)) > 2_900


@pytest.mark.long
def test_100_000_changed_requests_are_refused_and_leave_no_trace(standing: Standing) -> None:
    assert fuzz_standing(standing, range(10_000, 110_000)) > 99_000


def test_the_witness_reads_anything(standing: Standing) -> None:
    bench, _, _ = standing.parties[0]
    _, right = standing.readers[10]
    for case in range(300):
        strike_witness(bench, random.Random(case), right)


def fields() -> Iterator[tuple[str, Change]]:
    """Every field of the requests, by where it lies."""
    head = {"magic": (0, 3), "kind": (3, 4), "session": (4, 36)}
    task = {
        "plan hash": (36, 68),
        "release": (68, 84),
        "attempt": (84, 88),
        "length": (88, 92),
        "bits": (92, 93),
        "dropout": (93, 101),
        "corrupt": (101, 109),
        "min devices": (109, 113),
        "context": (113, 145),
    }
    roster = {
        "devices": (36, 40),
        "root": (40, 72),
        "nonce": (72, 104),
        "signature": (104, 168),
        "index": (168, 172),
        "proof count": (172, 173),
        "proof": (173, 205),
    }
    places = {Stage.JOIN: head | task, Stage.SHARES: head | roster, Stage.UNMASK: head | {"bitmap": (36, 37)}}
    for stage, named in places.items():
        for name, (start, end) in named.items():
            yield f"{stage.value}: {name}", replace_field(start, end)


def replace_field(start: int, end: int) -> Change:
    def change(data: bytes, at: int, value: int) -> bytes:
        number = random.Random(f"{at} {value}").randbytes(end - start)
        return data[:start] + number + data[end:]

    return change


@pytest.mark.parametrize("name, change", list(fields()))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=st.integers(0, 2**32))
def test_every_field(standing: Standing, name: str, change: Change, value: int) -> None:
    stage = Stage(name.split(":")[0])
    for bench, at, right in standing.parties:
        if at is stage:
            changed = change(right, 0, value)
            if changed != right:
                with pytest.raises(Refusal):
                    getattr(bench.parties[0], stage.value)(changed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_readers_take_any_bytes(data: bytes) -> None:
    for read in (
        messages.read_join_request,
        messages.read_roster_request,
        messages.read_survivors_request,
        lambda data: messages.read_shares_request(SMALL.session, data),
    ):
        for body in (data, messages.join_request(SMALL)[:36] + data):
            with pytest.raises(Malformed):
                read(body)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_message_of_a_fixed_size_has_no_byte_more_and_none_less(bits: int) -> None:
    task = replace(TASK, bits=bits)
    vector = np.arange(task.length, dtype="<u4" if bits == 32 else "<u8")
    masked = messages.masked_reply(task.session, vector)
    number = messages.count_message(Kind.PLAIN_VECTOR_REQUEST, task.session, 7)
    assert np.array_equal(messages.read_masked_reply(task, masked), vector)
    assert messages.read_count(Kind.PLAIN_VECTOR_REQUEST, task.session, number) == 7
    for change in (masked[:-1], masked + b"\0"):
        with pytest.raises(Malformed):
            messages.read_masked_reply(task, change)
    for change in (number[:-1], number + b"\0"):
        with pytest.raises(Malformed):
            messages.read_count(Kind.PLAIN_VECTOR_REQUEST, task.session, change)


def test_after_all_that_the_right_request_is_answered(standing: Standing) -> None:
    for bench, stage, right in standing.parties:
        getattr(bench.parties[0], stage.value)(right)
