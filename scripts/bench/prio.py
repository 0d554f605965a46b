"""CPU time of one report of Prio3 for device, leader and helper, on one core.

    python -m scripts.bench.prio [--numbers 80] [--reports 512] [--batch 256] [--json]

`wake-word-weekly` is the circuit of that plan, from what a device counted to its reports. The others are
numbers of 5 bits each: `r^j` weighs bit j of call k by a power of r_k, as the draft's SumVec; `u v^j` by
u_k v^(j+1), which makes of verification one matrix product a report. The peer is the plain reference of
tests/prio (Python integers), on one report. Three proofs over Field64; `helper` includes `decide`. Reports
are distinct.
"""

import argparse
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.plan import load
from fa_core.prio import blocks
from fa_core.prio.circuits import SumVec
from fa_core.prio.field import FIELD64, Array
from fa_core.prio.flp import interleave
from fa_core.prio.mapping import shared
from fa_core.prio.prio3 import Input, Prio3, Shares
from fa_core.prio.xof import HmacAes
from tests.prio import reference

LARGEST: Final = 31
PLAN: Final = "wake-word-weekly"
CTX: Final = bytes(32)
ALGORITHM: Final = 0xFFFF0000


class Factored(SumVec):
    """Bit j of call k weighs u_k v^(j+1): joint randomness is u_0, u_1, ..., and v."""

    def __init__(self, count: int, chunk: int) -> None:
        super().__init__(FIELD64, count, LARGEST, chunk)
        self.joint_length = self.calls[0] + 1

    def wires(self, inputs: Array, joint: Array, one: Array) -> tuple[Array, ...]:
        field, bits = self.field, self._by_call(inputs)
        powers = field.powers(joint[..., -1], self.chunk)[..., None, :]
        weighted = field.multiply(field.multiply(joint[..., :-1, None], powers), bits)
        return (interleave(weighted, field.subtract(bits, one)),)

    def combined_wires(
        self, inputs: Array, joint: Array, one: Array, weights: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        field, (weight,), proofs = self.field, weights, joint.shape[1]
        rows = np.concatenate((field.multiply(weight, joint[..., :-1]), weight), axis=1)
        sums = field.matmul(rows, self._by_call(inputs)[:, 0])
        left = field.multiply(sums[:, :proofs], field.powers(joint[..., -1], self.chunk))
        ones = field.multiply(field.sum(weight, axis=-1), one)
        return (interleave(left, field.subtract(sums[:, proofs:], ones[..., None])),)


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of CPU a report."""

    circuit: str
    upload: int
    device: float
    leader: float
    helper: float
    reports: int


def timed(work: Callable[[], object], reports: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000 / reports


def measure(
    name: str, prio: Prio3, elements: Callable[[], NDArray[np.int64]], reports: int, batch: int
) -> Row:
    """`elements` makes what one device shares; the time that it takes is the device's."""
    key = secrets.token_bytes(32)
    made: list[tuple[bytes, Shares]] = []
    shared_by: list[NDArray[np.int64]] = []

    def devices() -> None:
        for _ in range(reports):
            nonce, own = secrets.token_bytes(16), elements()
            shared_by.append(own)
            made.append((nonce, prio.shard(CTX, own, nonce, secrets.token_bytes(prio.random_size))))

    device = timed(devices, reports)
    encoded = np.stack([prio.circuit.encode(own) for own in shared_by])
    expected = prio.circuit.truncate(encoded).astype(np.int64).sum(axis=0)
    leader, helper, total = 0.0, 0.0, np.zeros(prio.length, dtype=np.int64)
    for at in range(0, reports, batch):
        part = made[at : at + batch]
        mine = [Input(nonce, shares.public, shares.leader) for nonce, shares in part]
        theirs = [Input(nonce, shares.public, shares.helper) for nonce, shares in part]
        start = time.process_time()
        first = prio.begin(0, key, CTX, mine)
        half = time.process_time()
        second = prio.begin(1, key, CTX, theirs)
        messages = prio.decide(CTX, first.verifiers, second.verifiers)
        other = prio.finish(second, messages)
        done = time.process_time()
        one = prio.finish(first, messages)
        leader += half - start + time.process_time() - done
        helper += done - half
        total += prio.unshard([one.total, other.total])
    if (total != expected).any():
        raise AssertionError("the sum of the reports is wrong")
    upload = prio.public_size + prio.leader_size + prio.helper_size
    return Row(name, upload, device, leader * 1000 / reports, helper * 1000 / reports, reports)


def measure_plan(reports: int, batch: int) -> Row:
    """Devices that each counted something in one group of every set."""
    plan = load(f"eval_plans/{PLAN}.yaml", policy=None)
    sets = shared(plan).sets

    def elements() -> NDArray[np.int64]:
        tallies: dict[tuple[str, tuple[str, ...]], dict[str, NDArray[np.int64]]] = {}
        for each in sets:
            n, r = np.zeros((1, each.shape.cells), np.int64), np.zeros((1, each.shape.cells), np.int64)
            group = secrets.randbelow(each.shape.cells)
            n[0, group] = 1 + secrets.randbelow(plan.privacy.max_events)
            r[0, group] = secrets.randbelow(int(n[0, group]) + 1)
            tallies[each.metric, each.grouping] = {"n": n, "r": r}
        return np.asarray(blocks.encode(plan, tallies)[0])

    return measure(PLAN, blocks.prio(plan), elements, reports, batch)


def measure_numbers(name: str, circuit: SumVec, reports: int, batch: int) -> Row:
    numbers = np.array([secrets.randbelow(LARGEST + 1) for _ in range(circuit.output_length)], np.int64)
    return measure(name, Prio3(circuit, ALGORITHM, HmacAes(), 3), lambda: numbers, reports, batch)


def measure_reference(count: int, chunk: int) -> Row:
    circuit = reference.sum_vec(reference.P64, count, LARGEST, chunk, factored=True)
    plain, key, nonce = reference.Reference(circuit, ALGORITHM, HmacAes(), 3), bytes(32), bytes(16)
    vector = [secrets.randbelow(2) for _ in range(circuit.length)]
    made: list[tuple[bytes, list[bytes]]] = []
    device = timed(lambda: made.append(plain.shard(CTX, vector, nonce, secrets.token_bytes(128))), 1)
    public, (mine, theirs) = made[0]
    verifiers: list[bytes] = []
    leader = timed(lambda: verifiers.append(plain.begin(0, key, CTX, nonce, public, mine)[0]), 1)
    helper = timed(lambda: verifiers.append(plain.begin(1, key, CTX, nonce, public, theirs)[0]), 1)
    if plain.decide(CTX, verifiers) is None:
        raise AssertionError("the reference refuses its own report")
    return Row("reference", len(public) + len(mine) + len(theirs), device, leader, helper, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--numbers", type=int, default=80, help="of 5 bits each")
    parser.add_argument("--reports", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    count, chunk = arguments.numbers, max(1, round((arguments.numbers * 5) ** 0.5))
    rows = [
        measure_plan(arguments.reports, arguments.batch),
        measure_numbers("r^j", SumVec(FIELD64, count, LARGEST, chunk), arguments.reports, arguments.batch),
        measure_numbers("u v^j", Factored(count, chunk), arguments.reports, arguments.batch),
        measure_reference(count, chunk),
    ]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{count} numbers of 5 bits, 3 proofs, batches of {arguments.batch}; ms of CPU a report")
    heads = ("upload B", "device", "leader", "helper")
    print(f"{'circuit':<18}" + "".join(f"{head:>10}" for head in heads) + f"{'reference / leader':>20}")
    for row in rows:
        times = f"{row.device:>10.3f}{row.leader:>10.3f}{row.helper:>10.3f}"
        print(f"{row.circuit:<18}{row.upload:>10,}{times}{rows[-1].leader / row.leader:>20,.0f}")


if __name__ == "__main__":
    main()
