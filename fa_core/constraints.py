"""Quadratic constraints over whole numbers, and the numbers of a device that satisfy them.

A metric kind says what a device may count by making elements and requiring gates of them (`Constraints`).
From that follow, once and for all, the constraints that a verifier checks and the steps in which a device
finds its own elements (`System`). An *element* is a number that is shared; a *form* is a whole-number
combination of elements plus a constant; a *gate* requires a·b = c of three forms. Nothing here knows a
field: a verifier checks the gates modulo its prime, where every element of an honest device is far below
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from fa_core.arrays import Int64Array, np


@dataclass(frozen=True, eq=False)
class Forms:
    """An array of forms: constant[i] + Σ coefficient·element over the entries with row i.

    Attributes:
        constant: int64, of the array's shape.
        row, column, coefficient: int64 (E,), ascending by (row, column), each pair once, no coefficient 0.
            `row` counts the forms in C order. A column −1 − i is input i of the device: it is known when its
            elements are made, and no gate may have it.
    """

    constant: Int64Array
    row: Int64Array
    column: Int64Array
    coefficient: Int64Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.constant.shape

    @property
    def size(self) -> int:
        return self.constant.size

    @cached_property
    def starts(self) -> Int64Array:
        """Where each form's entries start, int64 (size + 1,)."""
        return np.searchsorted(self.row, np.arange(self.size + 1)).astype(np.int64)

    def __add__(self, other: "Forms") -> "Forms":
        shape = np.broadcast_shapes(self.shape, other.shape)
        left, right = self.broadcast(shape), other.broadcast(shape)
        return merged(
            left.constant + right.constant,
            np.concatenate((left.row, right.row)),
            np.concatenate((left.column, right.column)),
            np.concatenate((left.coefficient, right.coefficient)),
        )

    def __sub__(self, other: "Forms") -> "Forms":
        return self + other * -1

    def __rsub__(self, other: int) -> "Forms":
        negative = self * -1
        return Forms(negative.constant + other, negative.row, negative.column, negative.coefficient)

    def __mul__(self, factor: int) -> "Forms":
        return merged(self.constant * factor, self.row, self.column, self.coefficient * factor)

    def index(self) -> Int64Array:
        """Return the number of each form, int64 of the array's shape: what `take` takes."""
        return np.arange(self.size).reshape(self.shape)

    def take(self, index: Int64Array) -> "Forms":
        """Return the forms of these numbers, of the shape of `index`."""
        rows = index.ravel()
        counts = np.diff(self.starts)[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        entry = np.arange(len(row)) + np.repeat(self.starts[rows] - (np.cumsum(counts) - counts), counts)
        constant = self.constant.ravel()[index]
        return Forms(constant, row, self.column[entry], self.coefficient[entry])

    def reshape(self, *shape: int) -> "Forms":
        return Forms(self.constant.reshape(shape), self.row, self.column, self.coefficient)

    def broadcast(self, shape: tuple[int, ...]) -> "Forms":
        return self if shape == self.shape else self.take(np.broadcast_to(self.index(), shape))

    def apply(self, matrix: Int64Array) -> "Forms":
        """Return matrix·forms along the last axis: shape (…, m) for int64 (m, n) and shape (…, n)."""
        m, n = matrix.shape
        lead, place = np.divmod(self.row, n)
        factors = matrix.T[place]
        entry, target = np.nonzero(factors)
        return merged(
            self.constant @ matrix.T,
            lead[entry] * m + target,
            self.column[entry],
            self.coefficient[entry] * factors[entry, target],
        )

    def sum(self) -> "Forms":
        """Return the sums along the last axis."""
        return self.apply(np.ones((1, self.shape[-1]), np.int64)).reshape(*self.shape[:-1])

    def values(self, numbers: Int64Array) -> Int64Array:
        """Return what the forms come to, int64 (devices, *shape), for int64 (devices, elements + inputs) with
        input i in column −1 − i."""
        result = np.repeat(self.constant.reshape(1, -1), len(numbers), axis=0)
        filled = np.flatnonzero(np.diff(self.starts))
        if len(filled):
            terms = numbers[:, self.column] * self.coefficient
            result[:, filled] += np.add.reduceat(terms, self.starts[filled], axis=1)
        return result.reshape(len(numbers), *self.shape)


def merged(constant: Int64Array, row: Int64Array, column: Int64Array, coefficient: Int64Array) -> Forms:
    """Return forms from entries in any order, those of one row and column added up."""
    order = np.lexsort((column, row))
    row, column, coefficient = row[order], column[order], coefficient[order]
    first = np.ones(len(row), np.bool_)
    first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    if len(row):
        coefficient = np.add.reduceat(coefficient, np.flatnonzero(first))
    kept = coefficient != 0
    return Forms(constant, row[first][kept], column[first][kept], coefficient[kept])


def constants(value: int, shape: tuple[int, ...] = ()) -> Forms:
    """Return forms that are one number."""
    empty = np.empty(0, np.int64)
    return Forms(np.full(shape, value, np.int64), empty, empty, empty)


def stacked(forms: Sequence[Forms]) -> Forms:
    """Return forms of one shape (…) side by side, shape (…, how many)."""
    return merged(
        np.stack([each.constant for each in forms], axis=-1),
        np.concatenate([each.row * len(forms) + place for place, each in enumerate(forms)]),
        np.concatenate([each.column for each in forms]),
        np.concatenate([each.coefficient for each in forms]),
    )


def joined(forms: Sequence[Forms]) -> Forms:
    """Return forms of any shapes one after the other, shape (sum of sizes,)."""
    before = np.cumsum([0, *(each.size for each in forms)])
    return Forms(
        np.concatenate([each.constant.ravel() for each in forms]),
        np.concatenate([each.row + start for each, start in zip(forms, before, strict=False)]),
        np.concatenate([each.column for each in forms]),
        np.concatenate([each.coefficient for each in forms]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """Elements from `start` on: 1 where the source is above 0, else 0."""

    start: int
    source: Forms

    def elements(self, numbers: Int64Array) -> Int64Array:
        """Return int64 (devices, elements made) from what stands in `numbers` before `start`."""
        return (self.source.values(numbers).reshape(len(numbers), -1) > 0).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Elements from `start` on: bits of each of the source's numbers, which is Σ weight·bit."""

    start: int
    source: Forms
    weights: tuple[int, ...]

    def elements(self, numbers: Int64Array) -> Int64Array:
        """Return as `Present` does. Raises ValueError where a number is not between 0 and Σ weights."""
        rest = self.source.values(numbers).reshape(len(numbers), -1)
        bits = np.zeros((*rest.shape, len(self.weights)), np.int64)
        if ((rest < 0) | (rest > sum(self.weights))).any():
            raise ValueError(f"a count is outside its range, 0 to {sum(self.weights)}")
        for place in reversed(range(len(self.weights))):
            bits[..., place] = rest > sum(self.weights[:place])
            rest = rest - bits[..., place] * self.weights[place]
        return bits.reshape(len(numbers), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Elements from `start` on: products of two arrays of forms, which broadcast."""

    start: int
    left: Forms
    right: Forms

    def elements(self, numbers: Int64Array) -> Int64Array:
        """Return as `Present` does."""
        shape = np.broadcast_shapes(self.left.shape, self.right.shape)
        aligned = [
            each.values(numbers).reshape(len(numbers), *(1,) * (len(shape) - len(each.shape)), *each.shape)
            for each in (self.left, self.right)
        ]
        return (aligned[0] * aligned[1]).reshape(len(numbers), -1)


Step = Present | Split | Product


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """Elements, forms and gates, and what is read from the elements.

    The *wires* are the elements, then the forms in order; a gate names three of them.

    Attributes:
        length: number L of elements.
        forms: (F,), over the elements alone. The first is the constant 0, the second the constant 1.
        gates: int64 (G, 3), wires (a, b, c) with a·b = c.
        outputs: (length of the vector,), without constants: the vector as combinations of the elements.
        inputs: name to shape of what a device counts, in the order of the columns of `solved`'s argument.
        steps: how a device makes its elements, in order.
    """

    length: int
    forms: Forms
    gates: Int64Array
    outputs: Forms
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    steps: tuple[Step, ...]

    @property
    def width(self) -> int:
        """How many numbers a device's inputs are."""
        return sum(prod(shape) for _, shape in self.inputs)

    def solved(self, inputs: Int64Array) -> Int64Array:
        """Return the elements of devices, int64 (devices, L), from their inputs, int64 (devices, I).

        Raises ValueError where an input is not what a device may count.
        """
        numbers = np.concatenate((np.zeros((len(inputs), self.length), np.int64), inputs[:, ::-1]), axis=1)
        for step in self.steps:
            made = step.elements(numbers)
            numbers[:, step.start : step.start + made.shape[1]] = made
        return numbers[:, : self.length]


@dataclass(eq=False)
class Constraints:
    """Collects elements and gates; `system` closes it.

    Attributes:
        length: number of elements so far.
    """

    length: int = 0
    inputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    _steps: list[Step] = field(default_factory=list)
    _forms: list[Forms] = field(default_factory=list)
    _gates: list[tuple[Int64Array, Int64Array, Int64Array]] = field(default_factory=list)
    _wires: dict[tuple[int, bytes, bytes], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wire(joined([constants(0), constants(1)]))

    def input(self, name: str, shape: tuple[int, ...]) -> Forms:
        """Return forms that stand for what a device counts: a source of elements, and never part of a
        gate."""
        before = sum(prod(each) for _, each in self.inputs)
        self.inputs.append((name, shape))
        return self._elements(-1 - np.arange(before, before + prod(shape)), shape)

    def present(self, source: Forms) -> Forms:
        """Make a bit for each of the source's numbers: 1 where it is above 0."""
        self._steps.append(Present(self.length, source))
        bits = self._new(source.shape)
        self.require(bits, bits, bits)
        return bits

    def number(self, source: Forms, most: int) -> Forms:
        """Make numbers from 0 to `most`, as the source has them. Nothing else binds them to it.

        Each is Σ weight·bit with weights 1, 2, 4, … and a last one that makes them add up to `most`
        exactly, so that no combination of bits exceeds it and none of 0 to `most` is missing.
        """
        if most == 0:
            return constants(0, source.shape)
        doublings = most.bit_length() - 1
        weights = (*(1 << place for place in range(doublings)), most - (1 << doublings) + 1)
        self._steps.append(Split(self.length, source, weights))
        bits = self._new((*source.shape, len(weights)))
        self.require(bits, bits, bits)
        return bits.apply(np.array([weights], np.int64)).reshape(*source.shape)

    def product(self, left: Forms, right: Forms) -> Forms:
        """Make the products of two arrays of forms, which broadcast."""
        self._steps.append(Product(self.length, left, right))
        made = self._new(np.broadcast_shapes(left.shape, right.shape))
        self.require(left, right, made)
        return made

    def require(self, left: Forms, right: Forms, product: Forms) -> None:
        """Require left·right = product, entry by entry; the arrays broadcast."""
        wires = np.broadcast_arrays(self._wire(left), self._wire(right), self._wire(product))
        self._gates.append((wires[0].ravel(), wires[1].ravel(), wires[2].ravel()))

    def require_zero(self, forms: Forms) -> None:
        """Require that each form is 0."""
        self.require(forms, constants(1), constants(0))

    def require_range(self, forms: Forms, most: int) -> None:
        """Require that each form is between 0 and `most`."""
        self.require_zero(forms - self.number(forms, most))

    def system(self, outputs: Forms) -> System:
        """Return what was collected, with the vector that is read from it, of shape (length of the
        vector,)."""
        forms = joined(self._forms)
        if (forms.column < 0).any() or (outputs.column < 0).any() or outputs.constant.any():
            raise ValueError("a gate or an output has an input of the device, or an output a constant")
        gates = np.stack([np.concatenate(each) for each in zip(*self._gates, strict=True)], axis=1)
        gates = np.where(gates < 0, self.length - 1 - gates, gates)
        return System(self.length, forms, gates, outputs, tuple(self.inputs), tuple(self._steps))

    def _new(self, shape: tuple[int, ...]) -> Forms:
        start = self.length
        self.length += prod(shape)
        return self._elements(np.arange(start, self.length), shape)

    def _elements(self, columns: Int64Array, shape: tuple[int, ...]) -> Forms:
        count = len(columns)
        return Forms(np.zeros(shape, np.int64), np.arange(count), columns, np.ones(count, np.int64))

    def _wire(self, forms: Forms) -> Int64Array:
        """Return the wire of each form, int64 of its shape: an element's own, or −1 − i for form i. Equal
        forms have one wire."""
        wires = np.empty(forms.size, np.int64)
        constant = forms.constant.ravel()
        for place in range(forms.size):
            entries = slice(int(forms.starts[place]), int(forms.starts[place + 1]))
            columns, coefficients = forms.column[entries], forms.coefficient[entries]
            if len(columns) == 1 and coefficients[0] == 1 and not constant[place]:
                wires[place] = columns[0]
                continue
            key = int(constant[place]), columns.tobytes(), coefficients.tobytes()
            if key not in self._wires:
                self._wires[key] = -1 - len(self._forms)
                self._forms.append(forms.take(np.array([place])))
            wires[place] = self._wires[key]
        return wires.reshape(forms.shape)
