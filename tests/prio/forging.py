"""Elements of a device that lies, and the circuit with one kind of constraint left out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from fa_core.arrays import Int64Array
from fa_core.constraints import Constraints, Forms, Split, System
from fa_core.plan import Plan
from fa_core.prio.mapping import collected
from tests.prio import reference

KINDS = ("bit", "range", "product", "absent", "one group", "chosen")
"""A bit is 0 or 1; a form is a number up to its bound; a product is one; a device that is absent from a group
has no size there; at most one group of facts is chosen; one is chosen where the device is present alone."""


@dataclass(eq=False)
class Named(Constraints):
    """Constraints that remember of which kind each gate is."""

    kinds: list[str] = field(default_factory=list)
    _within: list[str] = field(default_factory=list)

    @contextmanager
    def _as(self, kind: str) -> Iterator[None]:
        self._within.append(kind)
        yield
        self._within.pop()

    def present(self, source: Forms) -> Forms:
        with self._as("bit"):
            return super().present(source)

    def number(self, source: Forms, most: int) -> Forms:
        with self._as("bit"):
            return super().number(source, most)

    def product(self, left: Forms, right: Forms) -> Forms:
        with self._as("product"):
            return super().product(left, right)

    def require_range(self, forms: Forms, most: int) -> None:
        with self._as("range"):
            super().require_range(forms, most)

    def require_zero(self, forms: Forms) -> None:
        with self._as(self._within[-1] if self._within else "chosen"):
            super().require_zero(forms)

    def require(self, left: Forms, right: Forms, product: Forms) -> None:
        kind = self._within[-1] if self._within else "one group" if left is right else "absent"
        super().require(left, right, product)
        self.kinds += [kind] * np.broadcast(left.constant, right.constant, product.constant).size


def named_system(plan: Plan) -> tuple[System, Int64Array]:
    """The system of a plan, and the place in `KINDS` of each of its gates."""
    constraints = Named()
    system = collected(plan, constraints).system
    return system, np.array([KINDS.index(kind) for kind in constraints.kinds])


def without(system: System, kinds: Int64Array, kind: str) -> System:
    return replace(system, gates=system.gates[kinds != KINDS.index(kind)])


Change = Callable[[Int64Array], Int64Array]


def forged(
    system: System, inputs: Int64Array, *, bits: bool = True, changed: Mapping[int, Change] | None = None
) -> Int64Array:
    """The elements of a device that makes whatever it can of inputs that nobody may have, int64 (L,).

    Args:
        inputs: int64 (I,).
        bits: whether a number beyond its bits has the nearest that they can say; else the first of them has
            all of it.
        changed: what to do to the elements of a step of this place, before the next ones are made.
    """
    numbers = np.concatenate((np.zeros(system.length, np.int64), inputs[::-1]))[None]
    for place, step in enumerate(system.steps):
        if isinstance(step, Split):
            made = _split(step, step.source.values(numbers).ravel(), bits=bits)
        else:
            made = step.elements(numbers).ravel()
        if changed and place in changed:
            made = changed[place](made)
        numbers[0, step.start : step.start + len(made)] = made
    return numbers[0, : system.length]


def _split(step: Split, source: Int64Array, *, bits: bool) -> Int64Array:
    if not bits:
        made = np.zeros((len(source), len(step.weights)), np.int64)
        made[:, 0] = source
        return made.ravel()
    said = [reference.bits(int(value), sum(step.weights)) for value in source.clip(0, sum(step.weights))]
    return np.array(said, np.int64).ravel()
