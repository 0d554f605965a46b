"""The fully linear proof that a secret-shared vector satisfies a circuit, for many vectors at once.

The prover knows the vector. For each gadget it blinds and interpolates the input wires of all calls, and
sends shares of the polynomial that the gadget makes of them. A verifier has a share of vector and proof, and
computes a share of the circuit's output and of the polynomials at a random point; the sum of both verifiers'
shares decides. Source: Boneh, Boyle, Corrigan-Gibbs, Gilboa and Ishai (2019), as draft-irtf-cfrg-vdaf,
section 7.3, has it.

Shapes: n vectors, and `proofs` independent proofs of each along the second axis, so that a vector is read
once for all of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fa_core.prio.field import Array, Field
from fa_core.prio.polynomial import between, lagrange_of_low_degree, next_power_of_two


class Gadget(ABC):
    """A quadratic function of `arity` wires: what a circuit needs beyond affine functions."""

    arity: int

    @abstractmethod
    def evaluate(self, field: Field, wires: Array) -> Array:
        """(..., arity) to (...)."""


@dataclass(frozen=True)
class Products(Gadget):
    """The sum of `count` products, wire 0 times wire 1 and so on: ParallelSum of Mul; 1 is Mul itself."""

    count: int

    @property
    def arity(self) -> int:  # type: ignore[override]
        return 2 * self.count

    def evaluate(self, field: Field, wires: Array) -> Array:
        return field.dot(wires[..., ::2], wires[..., 1::2])


@dataclass(frozen=True)
class Quadratic(Gadget):
    """a + b x + c x^2 of one wire: PolyEval of the draft, of degree 2."""

    a: int
    b: int
    c: int
    arity = 1

    def evaluate(self, field: Field, wires: Array) -> Array:
        x = wires[..., 0]
        slope = field.add(field.multiply(x, field.scalar(self.c)), field.scalar(self.b))
        return field.add(field.multiply(x, slope), field.scalar(self.a))


class Circuit(ABC):
    """Which vectors are valid: those for which every output is 0.

    Outputs are affine in the vector and in the results of gadget calls; the wires of a call are affine in the
    vector alone. Either may depend on joint randomness, which the prover knows but cannot choose: it is a
    hash of the shares. Everything here is also computed on shares: a constant c then is c times `one`, the
    verifier's share of 1.

    inputs (n, length), joint (n, proofs, joint_length); weights and results (n, proofs, calls) for each
    gadget.
    """

    field: Field
    gadgets: tuple[Gadget, ...]
    calls: tuple[int, ...]
    """Of each gadget."""
    length: int
    """Elements of an encoded measurement."""
    output_length: int
    """Elements of what is summed."""
    joint_length: int
    """Elements of joint randomness for each proof; may be 0."""
    checks: int
    """Outputs, all of which are 0 for a valid vector. Several are combined with random weights."""

    @abstractmethod
    def encode(self, measurement: Any) -> Array:
        """(length,). ValueError, which names no value, for one that is not valid."""

    @abstractmethod
    def truncate(self, inputs: Array) -> Array:
        """(n, length) to (n, output_length), linear: what is summed."""

    @abstractmethod
    def wires(self, inputs: Array, joint: Array, one: Array) -> tuple[Array, ...]:
        """For each gadget (n, proofs, calls, arity)."""

    @abstractmethod
    def outputs(self, inputs: Array, joint: Array, one: Array, results: tuple[Array, ...]) -> Array:
        """(n, proofs, checks)."""

    def combined_wires(
        self, inputs: Array, joint: Array, one: Array, weights: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """For each gadget (n, proofs, arity): the sum over calls of weight times wires.

        This is what verification spends its time on. A circuit may compute it without `wires`.
        """
        return tuple(
            self.field.matmul(weight[..., None, :], wires)[..., 0, :]
            for weight, wires in zip(weights, self.wires(inputs, joint, one), strict=True)
        )


@dataclass(frozen=True)
class Sizes:
    """Elements of each thing, for one proof."""

    prove_random: int
    query_random: int
    proof: int
    verifier: int


def sizes(circuit: Circuit) -> Sizes:
    arities = [gadget.arity for gadget in circuit.gadgets]
    return Sizes(
        prove_random=sum(arities),
        query_random=len(arities) + (circuit.checks if circuit.checks > 1 else 0),
        proof=sum(
            arity + 2 * wire_length(calls) - 1 for arity, calls in zip(arities, circuit.calls, strict=True)
        ),
        verifier=1 + sum(arity + 1 for arity in arities),
    )


def wire_length(calls: int) -> int:
    """Values of a wire's polynomial: the blind, one for each call, and zeros up to a power of two."""
    return next_power_of_two(1 + calls)


def prove(circuit: Circuit, inputs: Array, random: Array, joint: Array) -> Array:
    """(n, proofs, proof): the proofs that `inputs` is valid.

    random: (n, proofs, prove_random), secret and uniform; joint: (n, proofs, joint_length). That the inputs
    are valid is not checked here.
    """
    field = circuit.field
    parts, at = [], 0
    for gadget, wires in zip(circuit.gadgets, circuit.wires(inputs, joint, field.scalar(1)), strict=True):
        n, proofs, calls, arity = wires.shape
        blinds = random[..., at : at + arity]
        at += arity
        values = field.zeros((n, proofs, arity, wire_length(calls)))
        values[..., 0] = blinds
        values[..., 1 : calls + 1] = np.swapaxes(wires, -1, -2)
        polynomial = field.zeros((n, proofs, 2 * values.shape[-1]))
        polynomial[..., ::2] = gadget.evaluate(field, np.swapaxes(values, -1, -2))
        polynomial[..., 1::2] = gadget.evaluate(field, np.swapaxes(between(field, values), -1, -2))
        # Of degree 2 (wire_length - 1): the last value follows from the others.
        parts += [blinds, polynomial[..., :-1]]
    return np.concatenate(parts, axis=-1)


def query(
    circuit: Circuit, inputs: Array, proof: Array, random: Array, joint: Array, verifiers: int
) -> tuple[Array, NDArray[np.bool_]]:
    """(n, proofs, verifier), one verifier's share, from its shares of `inputs` and `proof`; (n,), may it be
    sent?

    proof: (n, proofs, proof); random: (n, proofs, query_random), secret from the prover and the same for all
    `verifiers`; joint: (n, proofs, joint_length). A share may not be sent where the random point is one of
    those at which the polynomials were interpolated: it would show what a call computed.
    """
    field = circuit.field
    weights = random[..., : circuit.checks] if circuit.checks > 1 else None
    points = random[..., circuit.checks if circuit.checks > 1 else 0 :]
    one = field.scalar(field.inverse(verifiers))
    usable = np.ones(inputs.shape[0], dtype=np.bool_)
    blinds, call_weights, results, tests, at = [], [], [], [], 0
    for index, (gadget, calls) in enumerate(zip(circuit.gadgets, circuit.calls, strict=True)):
        length = wire_length(calls)
        point = points[..., index]
        usable &= (_power(field, point, length) != 1).all(axis=-1)
        half, full = lagrange_of_low_degree(field, point, 2 * length)
        polynomial = proof[..., at + gadget.arity : at + gadget.arity + 2 * length - 1]
        blinds.append(field.multiply(proof[..., at : at + gadget.arity], half[..., :1]))
        call_weights.append(half[..., 1 : calls + 1])
        results.append(polynomial[..., 2 : 2 * calls + 1 : 2])
        tests.append(field.dot(full, polynomial)[..., None])
        at += gadget.arity + polynomial.shape[-1]
    outputs = circuit.outputs(inputs, joint, one, tuple(results))
    parts = [field.dot(outputs, weights)[..., None] if weights is not None else outputs]
    combined = circuit.combined_wires(inputs, joint, one, tuple(call_weights))
    for blind, wires, test in zip(blinds, combined, tests, strict=True):
        parts += [field.add(wires, blind), test]
    return np.concatenate(parts, axis=-1), usable


def decide(circuit: Circuit, verifier: Array) -> NDArray[np.bool_]:
    """(n,): are the vectors valid? verifier: (n, proofs, verifier), the sum of all verifiers' shares."""
    field = circuit.field
    valid, at = verifier[..., 0] == 0, 1
    for gadget in circuit.gadgets:
        wires, test = verifier[..., at : at + gadget.arity], verifier[..., at + gadget.arity]
        valid &= gadget.evaluate(field, wires) == test
        at += gadget.arity + 1
    return np.asarray(valid.all(axis=-1), dtype=np.bool_)


def _power(field: Field, a: Array, exponent: int) -> Array:
    """a^exponent for a power of two."""
    while exponent > 1:
        a, exponent = field.multiply(a, a), exponent // 2
    return a


def interleave(left: Array, right: Array) -> Array:
    """(..., c) and (..., c) to (..., 2c): left, right, left, ..., as the wires of `Products` stand."""
    return np.stack(np.broadcast_arrays(left, right), axis=-1).reshape(
        *np.broadcast_shapes(left.shape, right.shape)[:-1], -1
    )
