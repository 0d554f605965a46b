"""The validity circuit of a plan: one report proves that every block of the vector keeps its bound.

The circuit is a list of gates over the wires of `fa_core.constraints.System`: the wires are the shared
elements and forms of them, and gate (a, b, c) requires wire a times wire b to be wire c. All gates are
checked at once, weighed by joint randomness. Gates stand in calls of `chunk`; gate j of call k has the
weight u_k·v^(j+1), and the circuit's one output is Σ weight·(a·b − c). docs/two-aggregators.md has the
soundness argument.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.constraints import Forms, System
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.prio.field import FIELD64, Array
from fa_core.prio.flp import Circuit, Products, interleave, wire_length
from fa_core.prio.mapping import Tallies, inputs_of, shared
from fa_core.prio.prio3 import Prio3
from fa_core.prio.xof import HmacAes

ALGORITHM: Final = 0xFFFF1801
"""Of the range for private use (draft-irtf-cfrg-vdaf, table of algorithm identifiers)."""

PROOFS: Final = 3
"""Independent proofs of each report: Field64 is too small for one."""

LARGEST_FORM: Final = 2**31
"""Bound on |constant| + Σ|coefficient| of a form in a gate."""

LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)


class Blocks(Circuit):
    """The circuit of a system. A measurement is its elements, and all of them are summed."""

    def __init__(self, system: System) -> None:
        forms = system.forms
        weight = np.bincount(forms.row, np.abs(forms.coefficient).astype(np.float64), forms.size)
        if (weight + np.abs(forms.constant)).max() >= LARGEST_FORM:
            raise ValueError(f"a form's coefficients add up to {LARGEST_FORM} or more")
        self.field, self.system = FIELD64, system
        self.length = self.output_length = system.length
        self.chunk = chunk_of(len(system.gates))
        calls = -(-len(system.gates) // self.chunk)
        self.gadgets, self.calls = (Products(self.chunk),), (calls,)
        self.joint_length, self.checks = calls + 1, 1
        # Wire `length` is the first form, the constant 0: it fills the last call up.
        gates = np.full((calls * self.chunk, 3), system.length, np.int64)
        gates[: len(system.gates)] = system.gates
        self._gates = gates

    def encode(self, measurement: NDArray[np.int64]) -> Array:
        elements = np.asarray(measurement, np.int64)
        if elements.shape != (self.length,):
            raise ValueError(f"a measurement has {self.length} elements")
        return self.field.array(elements)

    def truncate(self, inputs: Array) -> Array:
        return inputs

    def wires(self, inputs: Array, joint: Array, one: Array) -> tuple[Array, ...]:
        left, right, _ = self._operands(inputs, one)
        weights = self.field.multiply(joint[..., :-1, None], self._powers(joint)[..., None, :])
        return (interleave(self.field.multiply(weights, left), right),)

    def combined_wires(
        self, inputs: Array, joint: Array, one: Array, weights: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        field = self.field
        left, right, _ = self._operands(inputs, one)
        of_calls = field.multiply(weights[0], joint[..., :-1])
        weighted = field.multiply(field.matmul(of_calls, left[:, 0]), self._powers(joint))
        return (interleave(weighted, field.matmul(weights[0], right[:, 0])),)

    def outputs(self, inputs: Array, joint: Array, one: Array, results: tuple[Array, ...]) -> Array:
        field = self.field
        _, _, product = self._operands(inputs, one)
        due = field.dot(field.matmul(joint[..., :-1], product[:, 0]), self._powers(joint))
        return field.subtract(field.sum(results[0], axis=-1), due)[..., None]

    def _powers(self, joint: Array) -> Array:
        """(n, proofs, chunk): v, v², …"""
        return self.field.powers(joint[..., -1], self.chunk)

    def _operands(self, inputs: Array, one: Array) -> tuple[Array, Array, Array]:
        """The wires a, b and c of every gate, each (n, 1, calls, chunk)."""
        wires = np.concatenate((inputs, forms_mod_p(self.system.forms, inputs, one)), axis=1)
        shape = len(inputs), 1, self.calls[0], self.chunk
        left, right, product = (wires[:, self._gates[:, place]].reshape(shape) for place in range(3))
        return left, right, product


def chunk_of(gates: int) -> int:
    """Return how many gates a call has: as many as make the proof shortest, over numbers of calls that fill
    the points of a polynomial, and of those the most calls."""
    lengths: dict[int, int] = {}
    for points in (2**power for power in range(1, max(2, gates.bit_length() + 1))):
        chunk = -(-gates // (points - 1))
        calls = -(-gates // chunk)
        lengths[chunk] = 2 * chunk + 2 * wire_length(calls)
    return min(lengths, key=lambda chunk: (lengths[chunk], chunk))


def forms_mod_p(forms: Forms, elements: Array, one: Array) -> Array:
    """Return what forms come to mod p, uint64 (n, size), for elements uint64 (n, columns) in [0, p).

    `one` is what stands for 1. Halves of elements times coefficients, and their sums, fit 63 bits where
    Σ|coefficient| of each form is below `LARGEST_FORM`.
    """
    field = FIELD64
    result = field.multiply(field.array(forms.constant.ravel()), one)
    result = np.repeat(np.asarray(result)[None], len(elements), axis=0)
    filled = np.flatnonzero(np.diff(forms.starts))
    if len(filled):
        taken, starts = elements[:, forms.column], forms.starts[filled]
        high, low = (
            field.array(np.add.reduceat(half.view(np.int64) * forms.coefficient, starts, axis=1))
            for half in (taken >> HALF, taken & LOW)
        )
        sums = field.add(field.multiply(high, field.scalar(1 << 32)), low)
        result[:, filled] = field.add(result[:, filled], sums)
    return result


def circuit(plan: Plan) -> Blocks:
    """Return the validity circuit of a plan: the same for everybody who has the plan.

    Raises BadInput for a plan that two aggregators do not sum: of training, or of before `counters`.
    """
    return _circuit(shared(plan).system)


@lru_cache(maxsize=16)
def _circuit(system: System) -> Blocks:
    return Blocks(system)


def prio(plan: Plan) -> Prio3:
    """Return the proof system that the reports of a plan are in. Raises as `circuit`."""
    return Prio3(circuit(plan), ALGORITHM, HmacAes(), PROOFS)


def encode(plan: Plan, tallies: Tallies) -> NDArray[np.int64]:
    """Return what devices share, int64 (devices, elements), from what `clients.evaluate.device_tallies`
    counts.

    Raises ValueError where a tally is not what the plan lets a device count.
    """
    return shared(plan).system.solved(inputs_of(plan, tallies))


def nothing(plan: Plan) -> NDArray[np.int64]:
    """Return what a device shares that adds nothing, int64 (elements,)."""
    system = shared(plan).system
    return np.asarray(system.solved(np.zeros((1, system.width), np.int64))[0])


def spread(plan: Plan, total: Array) -> NDArray[np.uint64]:
    """Return an aggregator's share of the plan's vector, uint64 (layout length,), mod p.

    Args:
        total: uint64 (elements,), its share of the sum of what devices shared.
    """
    outputs = shared(plan).system.outputs
    if outputs.size != compile_plan(plan).length:
        raise ValueError("the vector read from the elements is not the layout's")
    # In whole numbers of any length, as it is done once a collection: coefficients of joint counters may be
    # large, and each times an element leaves 64 bits.
    terms = total[outputs.column].astype(object) * outputs.coefficient.astype(object)
    sums = np.zeros(outputs.size, object)
    np.add.at(sums, outputs.row, terms)
    return np.asarray(FIELD64.array(sums), np.uint64)
