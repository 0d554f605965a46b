"""The circuit of a plan again, slow and plain: Python integers, one gate at a time.

It reads the gates of a `System` and imports nothing else of fa_core; `reference.Reference` proves and
verifies over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fa_core.constraints import System
from tests.prio.reference import P64

Form = tuple[int, tuple[tuple[int, int], ...]]
"""A constant, and (element, coefficient) of each element."""


def value(form: Form, elements: Sequence[int], one: int = 1) -> int:
    constant, terms = form
    return constant * one + sum(elements[element] * coefficient for element, coefficient in terms)


def forms_of(system: System) -> list[Form]:
    """The wires: the elements themselves, then the forms."""
    terms: list[list[tuple[int, int]]] = [[] for _ in range(system.forms.size)]
    forms = system.forms
    for row, column, coefficient in zip(forms.row, forms.column, forms.coefficient, strict=True):
        terms[row].append((int(column), int(coefficient)))
    elements: list[Form] = [(0, ((element, 1),)) for element in range(system.length)]
    return elements + [
        (int(constant), tuple(each)) for constant, each in zip(forms.constant, terms, strict=True)
    ]


@dataclass(frozen=True)
class Gates:
    """The gates a·b = c as a circuit of `Reference`: gate j of call k weighs u_k·v^(j+1)."""

    length: int
    chunk: int
    gates: tuple[tuple[Form, Form, Form], ...]
    p: int = P64

    @property
    def calls(self) -> int:
        return -(-len(self.gates) // self.chunk)

    @property
    def joint(self) -> int:
        return self.calls + 1

    def violated(self, elements: Sequence[int]) -> list[int]:
        """The places of the gates that do not hold mod p."""
        return [
            place
            for place, (a, b, c) in enumerate(self.gates)
            if (value(a, elements) * value(b, elements) - value(c, elements)) % self.p
        ]

    def weight(self, joint: Sequence[int], place: int) -> int:
        return joint[place // self.chunk] * pow(joint[-1], place % self.chunk + 1, self.p)

    def wires(self, vector: Sequence[int], joint: Sequence[int], one: int) -> list[list[int]]:
        """Of each call, 2 * chunk."""
        rows = [[0] * (2 * self.chunk) for _ in range(self.calls)]
        for place, (a, b, _) in enumerate(self.gates):
            call, at = divmod(place, self.chunk)
            rows[call][2 * at] = self.weight(joint, place) * value(a, vector, one) % self.p
            rows[call][2 * at + 1] = value(b, vector, one) % self.p
        return rows

    def outputs(
        self, vector: Sequence[int], joint: Sequence[int], one: int, results: Sequence[int]
    ) -> list[int]:
        due = sum(
            self.weight(joint, place) * value(c, vector, one) for place, (_, _, c) in enumerate(self.gates)
        )
        return [(sum(results) - due) % self.p]

    def truncate(self, vector: Sequence[int]) -> list[int]:
        return list(vector)


def gates_of(system: System, chunk: int = 1) -> Gates:
    wires = forms_of(system)
    return Gates(
        system.length, chunk, tuple((wires[a], wires[b], wires[c]) for a, b, c in system.gates.tolist())
    )
