"""The circuits of the draft: its test vectors check the proof system that our own circuit uses as well.

SumVec, Histogram and MultihotCountVec are of draft-irtf-cfrg-vdaf, section 7.4; L1BoundSum is of
draft-ietf-ppm-l1-bound-sum. Each checks that its elements are 0 or 1 in calls of `chunk` elements, element j
of call k with the weight r_k^(j+1), r_k joint randomness, and then what is linear in them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fa_core.prio.field import Array, Field
from fa_core.prio.flp import Circuit, Products, interleave

Measurement = Sequence[int] | NDArray[np.int64]


class BitCircuit(Circuit):
    """All elements of the vector are 0 or 1. Subclasses add linear checks, encoding and what is summed."""

    def __init__(self, field: Field, length: int, chunk: int, output_length: int, checks: int) -> None:
        if length < 1 or chunk < 1:
            raise ValueError(
                f"a circuit has at least one element and one in a call, not {length} and {chunk}"
            )
        calls = -(-length // chunk)
        self.field, self.length, self.chunk = field, length, chunk
        self.gadgets, self.calls = (Products(chunk),), (calls,)
        self.output_length, self.joint_length, self.checks = output_length, calls, checks

    def wires(self, inputs: Array, joint: Array, one: Array) -> tuple[Array, ...]:
        bits = self._by_call(inputs)
        weighted = self.field.multiply(self.field.powers(joint, self.chunk), bits)
        return (interleave(weighted, self.field.subtract(bits, one)),)

    def combined_wires(
        self, inputs: Array, joint: Array, one: Array, weights: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        field, bits = self.field, self._by_call(inputs)
        powers = field.powers(joint, self.chunk)
        weighted = field.multiply(field.multiply(powers, weights[0][..., None]), bits)
        ones = field.multiply(field.sum(weights[0], axis=-1), one)
        unweighted = field.matmul(weights[0], bits[:, 0])
        return (interleave(field.sum(weighted, axis=-2), field.subtract(unweighted, ones[..., None])),)

    def outputs(self, inputs: Array, joint: Array, one: Array, results: tuple[Array, ...]) -> Array:
        ranges = self.field.sum(results[0], axis=-1)
        linear = self.linear_checks(inputs, one)
        proofs = joint.shape[1]
        return np.concatenate(
            (ranges[..., None], np.broadcast_to(linear[:, None], (len(linear), proofs, linear.shape[-1]))),
            axis=-1,
        )

    def linear_checks(self, inputs: Array, one: Array) -> Array:
        """(n, checks - 1): affine functions that are 0 for a valid vector."""
        return self.field.zeros((inputs.shape[0], 0))

    def _by_call(self, inputs: Array) -> Array:
        """(n, 1, calls, chunk), filled up with zeros."""
        n, (calls,) = inputs.shape[0], self.calls
        filled = self.field.zeros((n, calls * self.chunk))
        filled[:, : self.length] = inputs
        return filled.reshape(n, 1, calls, self.chunk)


class SumVec(BitCircuit):
    """`count` integers, each in [0, largest]. A measurement is the integers."""

    def __init__(self, field: Field, count: int, largest: int, chunk: int) -> None:
        self.weights = bit_weights(largest)
        self.largest = largest
        super().__init__(field, count * len(self.weights), chunk, output_length=count, checks=1)

    def encode(self, measurement: Measurement) -> Array:
        values = _integers(measurement, self.output_length, self.largest)
        return self.field.array(np.concatenate([to_bits(value, self.largest) for value in values]))

    def truncate(self, inputs: Array) -> Array:
        return from_bits(self.field, inputs, self.weights)


class Histogram(BitCircuit):
    """`count` buckets of which one is 1. A measurement is a sequence of one integer, that bucket's index."""

    def __init__(self, field: Field, count: int, chunk: int) -> None:
        super().__init__(field, count, chunk, output_length=count, checks=2)

    def encode(self, measurement: Measurement) -> Array:
        (bucket,) = _integers(measurement, 1, self.length - 1)
        return self.field.array(np.eye(self.length, dtype=np.int64)[bucket])

    def truncate(self, inputs: Array) -> Array:
        return inputs

    def linear_checks(self, inputs: Array, one: Array) -> Array:
        return self.field.subtract(self.field.sum(inputs, axis=-1), one)[:, None]


class MultihotCountVec(BitCircuit):
    """`count` elements, 0 or 1, of which at most `most` are 1. A measurement is the elements."""

    def __init__(self, field: Field, count: int, most: int, chunk: int) -> None:
        self.weights = bit_weights(most)
        self.most, self.count = most, count
        super().__init__(field, count + len(self.weights), chunk, output_length=count, checks=2)

    def encode(self, measurement: Measurement) -> Array:
        values = _integers(measurement, self.count, 1)
        return self.field.array(np.concatenate([values, to_bits(sum(values), self.most)]))

    def truncate(self, inputs: Array) -> Array:
        return inputs[:, : self.count]

    def linear_checks(self, inputs: Array, one: Array) -> Array:
        field = self.field
        ones = field.sum(inputs[:, : self.count], axis=-1)[:, None]
        return field.subtract(ones, from_bits(field, inputs[:, self.count :], self.weights))


class L1BoundSum(BitCircuit):
    """`count` integers of at least 0 and of a sum of at most `largest`. A measurement is the integers."""

    def __init__(self, field: Field, count: int, largest: int, chunk: int) -> None:
        self.weights = bit_weights(largest)
        self.largest = largest
        super().__init__(field, (count + 1) * len(self.weights), chunk, output_length=count, checks=2)

    def encode(self, measurement: Measurement) -> Array:
        values = _integers(measurement, self.output_length, self.largest)
        return self.field.array(
            np.concatenate([to_bits(value, self.largest) for value in (*values, sum(values))])
        )

    def truncate(self, inputs: Array) -> Array:
        return from_bits(self.field, inputs, self.weights)[:, :-1]

    def linear_checks(self, inputs: Array, one: Array) -> Array:
        values = from_bits(self.field, inputs, self.weights)
        return self.field.subtract(self.field.sum(values[:, :-1], axis=-1), values[:, -1])[:, None]


def bit_weights(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ..., and a last one that makes their sum `largest`: so weighted, bits reach [0, largest]."""
    if largest < 1:
        raise ValueError(f"the largest value is at least 1, not {largest}")
    bits = largest.bit_length()
    return (*(1 << bit for bit in range(bits - 1)), largest - (1 << (bits - 1)) + 1)


def to_bits(value: int, largest: int) -> NDArray[np.int64]:
    """The bits of `value` for `bit_weights(largest)`; of two ways to write it, the one whose last bit is 0.

    ValueError, without the value, if it is not in [0, largest].
    """
    if not 0 <= value <= largest:
        raise ValueError(f"a value is not in [0, {largest}]")
    weights = bit_weights(largest)
    last = value >= 1 << (len(weights) - 1)
    rest = value - weights[-1] * last
    return np.array([*(rest >> bit & 1 for bit in range(len(weights) - 1)), int(last)], dtype=np.int64)


def from_bits(field: Field, inputs: Array, weights: Sequence[int]) -> Array:
    """(n, count * bits) to (n, count)."""
    return field.dot(inputs.reshape(inputs.shape[0], -1, len(weights)), field.array(weights))


def _integers(measurement: Measurement, count: int, largest: int) -> list[int]:
    values = [int(value) for value in measurement]
    if len(values) != count:
        raise ValueError(f"a measurement has {count} integers, and this one has {len(values)}")
    if not all(0 <= value <= largest for value in values):
        raise ValueError(f"an integer of the measurement is not in [0, {largest}]")
    return values
