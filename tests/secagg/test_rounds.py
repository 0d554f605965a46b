"""The secure sum is the plain sum, bit for bit, for every dropout that the plan tolerates; past that none."""

import random
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fa_core.errors import RoundFailed
from fa_core.secagg import IN_ORDER, RoundFailure, Stage, Task, choose, messages
from fa_core.secagg.complaint import dealt_message
from tests.secagg import lab
from tests.secagg.lab import IDENTITIES, TASK

TOLERANCES = [
    (Fraction(0), Fraction(0)),
    (Fraction(1, 10), Fraction(1, 10)),
    (Fraction(1, 5), Fraction(1, 10)),
    (Fraction(3, 10), Fraction(0)),
]


@dataclass(frozen=True)
class Case:
    """One random round: what it is, and who is lost before which stage."""

    task: Task
    n: int
    vectors: NDArray[np.int64]
    drops: dict[Stage, set[int]]

    @property
    def joined(self) -> int:
        return self.n - len(self.drops[Stage.JOIN])

    @property
    def tolerated(self) -> bool:
        lost = sum(len(self.drops[stage]) for stage in IN_ORDER if stage is not Stage.JOIN)
        return lost <= int(self.task.dropout * self.joined)


def random_case(seed: int, largest: int) -> Case:
    choice = random.Random(seed)
    numbers = np.random.default_rng(seed)
    bits = choice.choice((32, 64))
    f, gamma = choice.choice(TOLERANCES)
    n = choice.randint(4, largest)
    task = replace(
        TASK,
        release=sha256(seed.to_bytes(8, "big")).digest()[:16],
        length=choice.randint(1, 40),
        bits=bits,
        dropout=f,
        corrupt=gamma,
    )
    bound = (2 ** (bits - 1) - 1) // n
    vectors = numbers.integers(-bound, bound, size=(n, task.length), endpoint=True)
    nodes = list(range(n))
    choice.shuffle(nodes)
    budget = choice.randint(0, min(2 * int(f * n) + 1, n - 3))
    drops: dict[Stage, set[int]] = {stage: set() for stage in IN_ORDER}
    for node in nodes[:budget]:
        drops[choice.choice(IN_ORDER)].add(node)
    return Case(task, n, vectors, drops)


def check(case: Case, journal: Path) -> bool:
    """Run the case. Whether it released; an assertion fails if it did wrongly, or should have and did not."""
    bench = lab.make(journal, case.n, case.task, case.vectors)
    should = case.tolerated and choose(case.joined, case.task.dropout, case.task.corrupt) is not None
    if not should:
        with pytest.raises(RoundFailure):
            bench.run(case.drops)
        with pytest.raises(RuntimeError):
            _ = bench.server.result
        return False
    bench.run(case.drops)
    lost = set().union(*(case.drops[stage] for stage in IN_ORDER[:-1]))
    result = bench.server.result
    assert set(result.counted) == set(range(case.n)) - lost
    assert result.missing == {stage: len(case.drops[stage]) for stage in IN_ORDER}
    assert np.array_equal(result.total, case.vectors[list(result.counted)].sum(axis=0))
    return True


def run_cases(seeds: range, largest: int, journal: Path) -> float:
    """The share of cases that released."""
    released = [check(random_case(seed, largest), journal / str(seed % 50) / str(seed)) for seed in seeds]
    return sum(released) / len(released)


def test_200_random_rounds(tmp_path: Path) -> None:
    assert 0.2 < run_cases(range(200), 10, tmp_path) < 0.9  # both ends are met often


@pytest.mark.long
def test_10_000_random_rounds(tmp_path: Path) -> None:
    assert 0.2 < run_cases(range(1_000, 11_000), 24, tmp_path) < 0.9


@pytest.mark.parametrize("stage", IN_ORDER[1:])
def test_a_sparse_graph_with_a_tenth_lost(tmp_path: Path, stage: Stage) -> None:
    task = replace(TASK, dropout=Fraction(1, 10), length=300)
    bench = lab.make(tmp_path, 70, task, np.arange(70 * 300, dtype=np.int64).reshape(70, 300) - 9000)
    bench.run({stage: set(range(10, 17))})
    assert choose(70, task.dropout, task.corrupt).neighbours < 69  # type: ignore[union-attr]
    assert np.array_equal(bench.server.result.total, bench.expected())
    assert len(bench.server.result.counted) == (70 if stage is Stage.UNMASK else 63)


def test_losses_add_up_over_the_stages(tmp_path: Path) -> None:
    drops = {Stage.SHARES: {1}, Stage.MASKED: {2}, Stage.UNMASK: {3}}
    bench = lab.make(tmp_path, 15).run(drops)  # f = 1/5: three may go
    assert np.array_equal(bench.server.result.total, bench.expected())
    with pytest.raises(RoundFailure) as caught:
        lab.make(tmp_path / "more", 15).run({**drops, Stage.UNMASK: {3, 4}})
    assert (caught.value.stage, caught.value.missing) == (Stage.UNMASK, 4)


@pytest.mark.parametrize("stage", IN_ORDER[1:])
def test_past_the_tolerance_it_says_who_was_missing_where(tmp_path: Path, stage: Stage) -> None:
    bench = lab.make(tmp_path, 6)
    with pytest.raises(RoundFailure) as caught:
        bench.run({stage: {0, 4}})
    assert (caught.value.stage, caught.value.missing, caught.value.exit_code) == (stage, 2, 4)
    assert isinstance(caught.value, RoundFailed)
    assert str(caught.value) == (
        f"secure aggregation failed at {stage.value}: 2 of 6 devices are missing; at least 5 must remain"
    )
    with pytest.raises(RuntimeError):
        bench.server.receive({})


def test_too_few_join(tmp_path: Path) -> None:
    with pytest.raises(RoundFailure, match="2 devices joined \\(4 did not\\); the plan needs 3"):
        lab.make(tmp_path, 6).run({Stage.JOIN: {0, 1, 2, 3}})


def test_a_cohort_with_no_parameters_names_the_next_size_that_has(tmp_path: Path) -> None:
    task = replace(TASK, dropout=Fraction(3, 10), corrupt=Fraction(1, 5))
    with pytest.raises(RoundFailure, match="the next size that can is 12"):
        lab.make(tmp_path, 10, task).run()


def test_the_noise_share_may_depend_on_the_roster(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, 8).run({Stage.JOIN: {5}})
    assert bench.asked == {i: 7 for i in range(8) if i != 5}


def test_a_contribution_of_another_shape_is_a_defect_and_not_sent(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, vectors=np.zeros((6, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="shape"):
        bench.run()


def test_requests_are_the_same_each_time_and_name_only_who_is_still_in(tmp_path: Path) -> None:
    bench = lab.make(tmp_path).run({Stage.SHARES: {2}}, until=Stage.CONFIRM)
    requests = bench.server.requests()
    assert set(requests) == {0, 1, 3, 4, 5}
    assert len(requests) == 5
    assert requests[4] == requests[4]
    assert bench.server.quorum == 5


def test_replies_of_a_stage_have_equal_length(tmp_path: Path) -> None:
    lengths: dict[Stage, set[int]] = {}

    def measure(stage: Stage, node: int, reply: bytes) -> bytes:
        lengths.setdefault(stage, set()).add(len(reply))
        return reply

    rows = np.zeros((10, TASK.length), dtype=np.int64)
    rows[1] = 10**6
    lab.make(tmp_path, 10, vectors=rows).run({Stage.SHARES: {4}, Stage.MASKED: {7}}, reply=measure)
    assert all(len(sizes) == 1 for sizes in lengths.values())


def spoil(shares: messages.Flags, reply: bytes, width: int, neighbours: int) -> bytes:
    """An unmask reply with the shares in the flagged slots changed."""
    values = messages.read_unmask_reply(TASK.session, reply, neighbours).astype(np.int64)
    values[shares, :width] = (values[shares, :width] + 1) % (2**31 - 1)
    return messages.unmask_reply(TASK.session, values.astype(np.uint32))


@pytest.mark.parametrize("width", [1, 9])
@pytest.mark.parametrize("liars", [{3}, {3, 8}, {3, 8, 11}])
def test_bad_shares_are_found_and_left_out(tmp_path: Path, width: int, liars: set[int]) -> None:
    """15 devices, 14 shares of which 9 open a secret: two liars are found; with three the round fails."""
    parameters = choose(15, TASK.dropout, TASK.corrupt)
    assert parameters
    assert (parameters.neighbours, parameters.threshold) == (14, 9)
    every = np.ones(14, dtype=np.bool_)

    def lie(stage: Stage, node: int, reply: bytes) -> bytes:
        return spoil(every, reply, width, 14) if stage is Stage.UNMASK and node in liars else reply

    bench = lab.make(tmp_path, 15)
    if len(liars) <= 2:
        bench.run({Stage.MASKED: {5}}, reply=lie)
        assert np.array_equal(bench.server.result.total, bench.expected())
        return
    with pytest.raises(RoundFailure, match="wrong shares came back"):
        bench.run({Stage.MASKED: {5}}, reply=lie)


def test_a_share_outside_the_field_is_absent_and_not_wrong(tmp_path: Path) -> None:
    """Five of fourteen shares may be absent where nine open a secret; only two of them may be wrong."""
    liars = {3, 8, 11}

    def overflow(stage: Stage, node: int, reply: bytes) -> bytes:
        if stage is not Stage.UNMASK or node not in liars:
            return reply
        shares = messages.read_unmask_reply(TASK.session, reply, 14)
        shares[:, 4] = 2**31 - 1 + node
        return messages.unmask_reply(TASK.session, shares)

    bench = lab.make(tmp_path, 15).run(reply=overflow)
    assert np.array_equal(bench.server.result.total, bench.expected())


def test_shares_of_another_secret_than_the_committed_one_fail_the_round(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, 10)

    def swap(stage: Stage, node: int, reply: bytes) -> bytes:
        if stage is not Stage.SHARES or node != 2:
            return reply
        dealt = messages.read_shares_reply(TASK.session, reply, 9)
        other = sha256(dealt.commitment).digest()
        message = dealt_message(bench.server._hash, other, dealt.sealed.tobytes())
        forged = IDENTITIES[2].key.sign(message)
        return messages.shares_reply(TASK.session, replace(dealt, commitment=other, signature=forged))

    with pytest.raises(RoundFailure, match="could not be opened"):
        bench.run(reply=swap)


def test_a_commitment_that_the_device_did_not_sign_is_a_missing_device(tmp_path: Path) -> None:
    def change(stage: Stage, node: int, reply: bytes) -> bytes:
        if stage is Stage.SHARES and node == 2:
            return reply[:36] + bytes(32) + reply[68:]
        return reply

    bench = lab.make(tmp_path, 10).run(reply=change)
    assert 2 not in bench.server.result.counted
    assert np.array_equal(bench.server.result.total, bench.expected())


def test_one_device_on_two_nodes_counts_once(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, 10, identities=[*IDENTITIES[:9], IDENTITIES[0]]).run()
    assert bench.server.result.counted == tuple(range(9))
    assert bench.server.result.missing[Stage.JOIN] == 1
