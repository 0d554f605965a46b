"""What must hold of Prio3, without the official vectors: sums, refusals one by one, and broken controls."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fa_core.prio import prio3 as module
from fa_core.prio.circuits import Histogram, L1BoundSum, MultihotCountVec, SumVec
from fa_core.prio.field import FIELD64, FIELD128, Array, Field
from fa_core.prio.flp import Circuit, Products, Quadratic, decide, prove, query, sizes
from fa_core.prio.prio3 import Begun, Input, Prio3, Refusal, Shares
from fa_core.prio.xof import HmacAes
from tests.prio import reference
from tests.prio.reference import P64, Reference

CTX, KEY = b"task", bytes(range(32))
CIRCUITS = {
    "SumVec": (lambda field: SumVec(field, 5, 5, 4), [[0, 1, 5, 3, 4], [5] * 5, [0] * 5]),
    "Histogram": (lambda field: Histogram(field, 6, 4), [[5], [0], [5]]),
    "MultihotCountVec": (
        lambda field: MultihotCountVec(field, 4, 2, 3),
        [[1, 0, 0, 1], [0] * 4, [0, 1, 1, 0]],
    ),
    "L1BoundSum": (lambda field: L1BoundSum(field, 3, 6, 4), [[1, 2, 3], [0, 6, 0], [0, 0, 0]]),
}


def vdaf(circuit: Circuit | None = None) -> Prio3:
    return Prio3(circuit or SumVec(FIELD64, 5, 5, 4), 0xFFFF0000, HmacAes(), 3)


def report(prio: Prio3, measurement: object, source: random.Random) -> tuple[bytes, Shares]:
    nonce = source.randbytes(16)
    return nonce, prio.shard(CTX, measurement, nonce, source.randbytes(prio.random_size))


def inputs(reports: list[tuple[bytes, Shares]]) -> tuple[list[Input], list[Input]]:
    return (
        [Input(nonce, shares.public, shares.leader) for nonce, shares in reports],
        [Input(nonce, shares.public, shares.helper) for nonce, shares in reports],
    )


def begin(
    prio: Prio3, leader: list[Input], helper: list[Input]
) -> tuple[Begun, Begun, tuple[bytes | None, ...]]:
    first, second = prio.begin(0, KEY, CTX, leader), prio.begin(1, KEY, CTX, helper)
    return first, second, prio.decide(CTX, first.verifiers, second.verifiers)


@pytest.mark.parametrize("field", [FIELD64, FIELD128], ids=["Field64", "Field128"])
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_sum_of_valid_reports_is_exact(name: str, field: Field) -> None:
    make, measurements = CIRCUITS[name]
    prio, source = vdaf(make(field)), random.Random(1)
    reports = [report(prio, measurement, source) for measurement in measurements]
    for _, shares in reports:
        sizes_ = len(shares.public), len(shares.leader), len(shares.helper)
        assert sizes_ == (prio.public_size, prio.leader_size, prio.helper_size)
    leader, helper, messages = begin(prio, *inputs(reports))
    assert {len(share) for share in leader.verifiers + helper.verifiers} == {prio.verifier_size}
    assert {len(message) for message in messages if message is not None} == {prio.message_size}
    finished = [prio.finish(begun, messages) for begun in (leader, helper)]
    assert all(side.accepted.all() for side in finished)
    vectors = np.stack([prio.circuit.truncate(prio.circuit.encode(m)[None])[0] for m in measurements])
    assert (
        prio.unshard([side.total for side in finished]).tolist()
        == vectors.astype(object).sum(axis=0).tolist()
    )


def test_every_byte_is_that_of_the_plain_reference() -> None:
    """Over the XOF in use."""
    prio = vdaf(SumVec(FIELD64, 3, 5, 4))
    plain = Reference(reference.sum_vec(P64, 3, 5, 4), 0xFFFF0000, HmacAes(), 3)
    source = random.Random(2)
    nonce, randomness = source.randbytes(16), source.randbytes(prio.random_size)
    shares = prio.shard(CTX, [5, 0, 2], nonce, randomness)
    vector = [int(value) for value in prio.circuit.encode([5, 0, 2])]
    assert plain.shard(CTX, vector, nonce, randomness) == (shares.public, [shares.leader, shares.helper])
    leader, helper, messages = begin(prio, *inputs([(nonce, shares)]))
    slow = [
        plain.begin(role, KEY, CTX, nonce, shares.public, share)
        for role, share in enumerate((shares.leader, shares.helper))
    ]
    assert [begun.verifiers[0] for begun in (leader, helper)] == [verifier for verifier, _, _ in slow]
    assert messages == (plain.decide(CTX, [verifier for verifier, _, _ in slow]),)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


Tamper = Callable[[Prio3, Input, Input], tuple[Input, Input]]

TAMPERED: dict[str, tuple[Tamper, Refusal, Refusal]] = {
    "an element of the leader's vector": (
        lambda _, a, b: (replace(a, share=flip(a.share, 0)), b), Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "an element of the leader's proof": (
        lambda p, a, b: (replace(a, share=flip(a.share, 8 * p.circuit.length)), b),
        Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the leader's blind": (
        lambda _, a, b: (replace(a, share=flip(a.share, len(a.share) - 1)), b),
        Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the helper's seed": (
        lambda _, a, b: (a, replace(b, share=flip(b.share, 0))), Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the helper's blind": (
        lambda _, a, b: (a, replace(b, share=flip(b.share, 63))), Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the leader's part in both public shares": (
        lambda _, a, b: (replace(a, public=flip(a.public, 0)), replace(b, public=flip(b.public, 0))),
        Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the helper's part in both public shares": (
        lambda _, a, b: (replace(a, public=flip(a.public, 40)), replace(b, public=flip(b.public, 40))),
        Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "the nonce": (
        lambda _, a, b: (replace(a, nonce=flip(a.nonce, 0)), replace(b, nonce=flip(b.nonce, 0))),
        Refusal.NOT_DECIDED, Refusal.NOT_DECIDED),
    "a leader's element that is p": (
        lambda _, a, b: (replace(a, share=P64.to_bytes(8, "little") + a.share[8:]), b),
        Refusal.NOT_AN_ELEMENT, Refusal.NOT_DECIDED),
    "a proof's element of all ones": (
        lambda _, a, b: (replace(a, share=a.share[:-40] + b"\xff" * 8 + a.share[-32:]), b),
        Refusal.NOT_AN_ELEMENT, Refusal.NOT_DECIDED),
    "a leader's share that is short": (
        lambda _, a, b: (replace(a, share=a.share[:-1]), b), Refusal.SHARE_SIZE, Refusal.NOT_DECIDED),
    "a helper's share that is long": (
        lambda _, a, b: (a, replace(b, share=b.share + b"\0")), Refusal.NOT_DECIDED, Refusal.SHARE_SIZE),
    "a public share that is empty": (
        lambda _, a, b: (replace(a, public=b""), replace(b, public=b"")), Refusal.PUBLIC_SIZE,
        Refusal.PUBLIC_SIZE),
    "a nonce of 15 bytes": (
        lambda _, a, b: (replace(a, nonce=a.nonce[1:]), replace(b, nonce=b.nonce[1:])),
        Refusal.NONCE_SIZE, Refusal.NONCE_SIZE),
}  # fmt: skip


def test_each_tampered_report_is_refused_by_itself_and_the_others_are_summed() -> None:
    prio, source = vdaf(), random.Random(3)
    measurements = [[source.randrange(6) for _ in range(5)] for _ in range(2 * len(TAMPERED) + 1)]
    leader, helper = inputs([report(prio, measurement, source) for measurement in measurements])
    for index, (tamper, _, _) in enumerate(TAMPERED.values()):
        row = 2 * index + 1
        leader[row], helper[row] = tamper(prio, leader[row], helper[row])
    first, second, messages = begin(prio, leader, helper)
    finished = [prio.finish(begun, messages) for begun in (first, second)]
    for index, (what, (_, *expected)) in enumerate(TAMPERED.items()):
        assert [side.refused[2 * index + 1] for side in finished] == expected, what
    honest = np.arange(len(measurements)) % 2 == 0
    assert finished[0].accepted.tolist() == finished[1].accepted.tolist() == honest.tolist()
    expected_sum = np.array(measurements)[honest].sum(axis=0)
    assert prio.unshard([side.total for side in finished]).tolist() == expected_sum.tolist()


def test_tampered_verifiers_and_messages_are_refused() -> None:
    prio, source = vdaf(), random.Random(4)
    leader, helper, messages = begin(prio, *inputs([report(prio, [1] * 5, source) for _ in range(7)]))
    changed = list(leader.verifiers)
    changed[0] = flip(changed[0], 0)
    changed[1] = flip(changed[1], prio.verifier_size - 33)
    changed[2] = b"\xff" * 8 + changed[2][8:]
    changed[3] = changed[3][:-1]
    changed[4] = b""
    decided = prio.decide(CTX, changed, helper.verifiers)
    assert [message is None for message in decided] == [True] * 5 + [False] * 2
    assert decided[5:] == messages[5:]
    part = flip(leader.verifiers[5], prio.verifier_size - 1)
    (other,) = prio.decide(CTX, [part], helper.verifiers[5:6])
    assert other is not None
    assert other != messages[5]
    assert prio.finish(helper, [*messages[:5], other, None]).refused == (
        *[None] * 5, Refusal.JOINT_RANDOM, Refusal.NOT_DECIDED)  # fmt: skip
    assert prio.finish(helper, [*messages[:6], b""]).refused[6] is Refusal.JOINT_RANDOM


def test_a_verifier_element_has_one_encoding() -> None:
    """The first element of both sums to 0, so 0 in each is as good, and p in place of 0 is refused."""
    prio, source = vdaf(), random.Random(11)
    leader, helper, messages = begin(prio, *inputs([report(prio, [1] * 5, source)]))
    zero = [begun.verifiers[0][8:] for begun in (leader, helper)]
    assert prio.decide(CTX, [bytes(8) + zero[0]], [bytes(8) + zero[1]]) == messages
    assert prio.decide(CTX, [P64.to_bytes(8, "little") + zero[0]], [bytes(8) + zero[1]]) == (None,)
    assert prio.decide(CTX, [bytes(8) + zero[0]], [P64.to_bytes(8, "little") + zero[1]]) == (None,)


class Unchecked(SumVec):
    """Encodes what it is given: a device that lies."""

    def encode(self, measurement: object) -> Array:
        return self.field.array(measurement)


def test_a_vector_that_is_not_valid_is_refused_and_a_broken_decision_lets_it_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prio, source = vdaf(Unchecked(FIELD64, 5, 5, 4)), random.Random(5)
    forged = [[0] * 15 for _ in range(4)]
    forged[1][0], forged[2][14], forged[3][7] = 2, P64 - 1, 96
    leader, helper, messages = begin(prio, *inputs([report(prio, vector, source) for vector in forged]))
    assert [message is not None for message in messages] == [True, False, False, False]
    monkeypatch.setattr(module, "decide", lambda _, verifier: np.ones(len(verifier), dtype=bool))
    messages = prio.decide(CTX, leader.verifiers, helper.verifiers)
    assert prio.finish(leader, messages).accepted.all()


def test_linear_checks_refuse_what_bits_alone_do_not() -> None:
    """A control: the same vectors are valid for SumVec, which has the bits and no linear check."""
    cases: list[tuple[Circuit, list[int]]] = [
        (Histogram(FIELD64, 6, 4), [0] * 6),
        (Histogram(FIELD64, 6, 4), [1, 1, 0, 0, 0, 0]),
        (MultihotCountVec(FIELD64, 4, 2, 3), [1, 1, 1, 0, 1, 1]),
        (L1BoundSum(FIELD64, 3, 6, 4), [1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]),
    ]
    for circuit, vector in cases:
        assert not holds(circuit, vector)
        assert holds(SumVec(FIELD64, len(vector), 1, 4), vector)


def holds(circuit: Circuit, vector: list[int], seed: int = 6) -> bool:
    """One proof of one vector, shared in two, with a new `seed` for all randomness."""
    field, source, size = circuit.field, random.Random(seed), sizes(circuit)

    def uniform(count: int) -> Array:
        return field.array([[[source.randrange(field.modulus) for _ in range(count)]]])

    joint = uniform(circuit.joint_length)
    inputs_ = field.array([vector])
    proof, share = prove(circuit, inputs_, uniform(size.prove_random), joint), uniform(len(vector))[:, 0]
    mask, random_ = uniform(size.proof), uniform(size.query_random)
    one, _ = query(circuit, field.subtract(inputs_, share), field.subtract(proof, mask), random_, joint, 2)
    two, _ = query(circuit, share, mask, random_, joint, 2)
    return bool(decide(circuit, field.add(one, two))[0])


class TwoGadgets(Circuit):
    """x^2 - 4 = 0 by one gadget, x y = z by the other; two checks."""

    def __init__(self) -> None:
        self.field, self.gadgets, self.calls = FIELD64, (Quadratic(-4, 0, 1), Products(1)), (1, 1)
        self.length, self.output_length, self.joint_length, self.checks = 3, 3, 0, 2

    def encode(self, measurement: object) -> Array:
        return self.field.array(measurement)

    def truncate(self, inputs: Array) -> Array:
        return inputs

    def wires(self, inputs: Array, joint: Array, one: Array) -> tuple[Array, ...]:
        shape = (len(inputs), joint.shape[1], 1)
        return (
            np.broadcast_to(inputs[:, None, None, :1], (*shape, 1)),
            np.broadcast_to(inputs[:, None, None, :2], (*shape, 2)),
        )

    def outputs(self, inputs: Array, joint: Array, one: Array, results: tuple[Array, ...]) -> Array:
        square, product = results
        rest = self.field.subtract(product, inputs[:, None, 2:])
        return np.concatenate((square, rest), axis=-1)


def test_a_circuit_of_two_gadgets_and_no_joint_randomness() -> None:
    for vector, valid in (
        ([2, 5, 10], True),
        ([P64 - 2, 3, P64 - 6], True),
        ([2, 5, 11], False),
        ([3, 5, 15], False),
    ):
        assert holds(TwoGadgets(), vector) == valid, vector
    prio, source = Prio3(TwoGadgets(), 1, HmacAes(), 1), random.Random(7)
    assert (prio.public_size, prio.helper_size, prio.message_size) == (0, 32, 0)
    leader, helper, messages = begin(
        prio, *inputs([report(prio, vector, source) for vector in ([2, 5, 10], [2, 5, 11])])
    )
    assert messages == (b"", None)
    totals = [prio.finish(begun, messages).total for begun in (leader, helper)]
    assert prio.unshard(totals).tolist() == [2, 5, 10]


def test_a_share_is_not_sent_for_a_point_of_interpolation() -> None:
    circuit = SumVec(FIELD64, 5, 5, 4)
    size, joint = sizes(circuit), FIELD64.zeros((3, 1, circuit.joint_length))
    points = FIELD64.array([FIELD64.root(8), 1, FIELD64.root(16)]).reshape(3, 1, 1)
    _, usable = query(circuit, FIELD64.zeros((3, 15)), FIELD64.zeros((3, 1, size.proof)), points, joint, 2)
    assert usable.tolist() == [False, False, True]


def test_a_point_of_interpolation_costs_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    prio, source = vdaf(), random.Random(8)
    leader, helper = inputs([report(prio, [1] * 5, source) for _ in range(2)])
    real = module.query

    def second_refused(*arguments: object) -> tuple[Array, Array]:
        verifier, usable = real(*arguments)  # type: ignore[arg-type]
        usable[1] = False
        return verifier, usable

    monkeypatch.setattr(module, "query", lambda *a, verifiers: second_refused(*a, verifiers))
    first, second, messages = begin(prio, leader, helper)
    assert first.refused == second.refused == (None, Refusal.TEST_POINT)
    assert first.verifiers[1] == b""
    assert [message is None for message in messages] == [False, True]


def test_one_share_alone_says_nothing_of_the_vector() -> None:
    """With the same randomness, the helper's bytes are the same for every measurement."""
    prio, nonce = vdaf(), bytes(16)
    randomness = random.Random(9).randbytes(prio.random_size)
    first, second = (prio.shard(CTX, measurement, nonce, randomness) for measurement in ([0] * 5, [5] * 5))
    assert first.helper == second.helper
    assert first.leader != second.leader
    # Uniform: the mean of all leaders' elements, over p, is within 6 standard deviations of 1/2.
    source = random.Random(10)
    leaders = [report(prio, [0] * 5, source)[1].leader for _ in range(60)]
    shares = (
        np.concatenate([np.frombuffer(leader[:120], dtype="<u8") for leader in leaders]).astype(float) / P64
    )
    assert abs(shares.mean() - 0.5) < 6 / np.sqrt(12 * shares.size)  # false alarm below 1e-8


def test_an_empty_batch_is_an_empty_sum() -> None:
    prio = vdaf()
    begun = prio.begin(0, KEY, CTX, [])
    finished = prio.finish(begun, [])
    assert (begun.verifiers, finished.accepted.size, finished.total.tolist()) == ((), 0, [0] * 5)
    assert prio.decide(CTX, [], []) == ()


def test_wrong_arguments_of_the_caller_are_errors() -> None:
    prio = vdaf()
    with pytest.raises(ValueError, match="a nonce has 16 bytes"):
        prio.shard(CTX, [0] * 5, bytes(15), bytes(prio.random_size))
    with pytest.raises(ValueError, match="the randomness 128"):
        prio.shard(CTX, [0] * 5, bytes(16), bytes(64))
    with pytest.raises(ValueError, match="verification key has 32 bytes, not 31"):
        prio.begin(0, KEY[1:], CTX, [])
    for measurement in ([6, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0] * 4):
        with pytest.raises(ValueError, match="measurement"):
            prio.shard(CTX, measurement, bytes(16), bytes(prio.random_size))
    with pytest.raises(ValueError, match="at least 1"):
        SumVec(FIELD64, 3, 0, 4)
    with pytest.raises(ValueError, match="at least one element"):
        Histogram(FIELD64, 3, 0)
