"""The plain device of the tests with one fault at a time, and the rows that must then fail.

The foreign device's modules are loaded anew for each fault, in this process, and one function is replaced.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent / "foreign"
NAMES = ("wire", "plan", "counting", "party", "circuit", "proof", "report", "rollout", "device")
Modules = dict[str, Any]


@contextmanager
def foreign() -> Iterator[Modules]:
    """Load the foreign device's modules, and leave no trace of their short names."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(FOLDER))
    try:
        modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in NAMES}
        yield modules
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)
            if (found := before[name]) is not None:
                sys.modules[name] = found


class Inside:
    """A foreign device in this process, as `fa_core.conformance.adapter.Device`."""

    def __init__(self, modules: Modules) -> None:
        self._adapter = modules["device"].Adapter()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._adapter.handle(question)
        return answer


@dataclass(frozen=True)
class Fault:
    """One mistake: what it does to the modules, where it must be seen, and the rows that must fail there."""

    name: str
    make: Callable[[Modules], None]
    part: str
    rows: frozenset[str]


def _believes(what: bytes) -> Callable[[Modules], None]:
    """Have the party believe every signature on messages that begin with a label."""

    def make(modules: Modules) -> None:
        party = modules["party"]
        right = party.verifies
        party.verifies = lambda key, signature, message: (
            message.startswith(party.label(what.decode())) or right(key, signature, message)
        )

    return make


def _answers_again(modules: Modules) -> None:
    party = modules["party"].Party
    right = party.answer

    def answer(self: Any, stage: str, request: bytes) -> bytes:
        if stage in self.answered:
            return self.answered[stage][1]  # type: ignore[no-any-return]
        return right(self, stage, request)  # type: ignore[no-any-return]

    party.answer = answer


def _never_complains(modules: Modules) -> None:
    party = modules["party"].Party
    party._opened = lambda self, record, box: bytes(72)


def _opens_everything(modules: Modules) -> None:
    right = modules["party"].verifies
    modules["party"].verifies = lambda key, signature, message: (
        message.startswith(modules["party"].label("dealt")) or right(key, signature, message)
    )


def _survivors_are_enough(modules: Modules) -> None:
    party = modules["party"]
    right = party.parameters

    def parameters(n: int, f: Any, gamma: Any) -> Any:
        found = right(n, f, gamma)
        return found and (*found[:2], 0)

    party.parameters = parameters


def _missing_is_another(modules: Modules) -> None:
    counting = modules["counting"]
    right = counting.holds

    def holds(value: Any, condition: Any) -> bool:
        only_not = condition["any_of"] is None and condition["not_any_of"] is not None
        return right(value, condition) or (value is None and only_not)

    counting.holds = holds


def _lower_bin(modules: Modules) -> None:
    from bisect import bisect_left

    modules["counting"].bisect_right = bisect_left


def _floor_of_gamma(modules: Modules) -> None:
    from math import floor

    plan = modules["plan"]
    right, calls = plan.ceil, []

    def ceil(value: Any) -> int:
        calls.append(value)
        return floor(value) if len(calls) == 2 else right(value)  # the second of h

    plan.ceil = ceil
    shares_of = modules["device"].shares_of

    def counted(*rest: Any) -> Any:
        calls.clear()
        return shares_of(*rest)

    modules["device"].shares_of = counted


def _no_noise(modules: Modules) -> None:
    modules["plan"].gaussian = lambda variance: 0


def _a_fifth_of_the_noise(modules: Modules) -> None:
    right = modules["plan"].gaussian
    modules["plan"].gaussian = lambda variance: right(variance / 25)  # at half, one device in five would pass


def _charge_of_anything(modules: Modules) -> None:
    modules["device"].covers = lambda charge, read: None


def _settles_early(modules: Modules) -> None:
    right = modules["device"].budget

    def budget(ask: Any) -> Any:
        return right(ask) | {"settled": right(ask | {"first": ask["first"] - ask["age"]})["settled"]}

    budget.__name__ = "budget"
    modules["device"].budget = budget


def _little_lengths(modules: Modules) -> None:
    class Struct:
        pack = staticmethod(lambda form, value: value.to_bytes(4, "little"))

    modules["device"].struct = Struct


def _joins_again(modules: Modules) -> None:
    device = modules["device"].Device
    right = device._invited

    def invited(self: Any, request: bytes) -> bytes:
        self.answered.clear()
        return right(self, request)  # type: ignore[no-any-return]

    device._invited = invited


def _another_order(modules: Modules) -> None:
    right = modules["plan"].labels_of
    for name in ("plan", "counting"):
        modules[name].labels_of = lambda segment: ["other", *right(segment)[:-1]]
    label_index = modules["counting"].label_index
    modules["counting"].label_index = lambda *rest: (label_index(*rest) + 1) % len(right(rest[0]))


FAULTS = [
    Fault(
        "it believes every roster",
        _believes(b"roster"),
        "refusals",
        frozenset({"shares: a roster that the witness did not sign"}),
    ),
    Fault(
        "it believes every list of survivors",
        _believes(b"survivors"),
        "refusals",
        frozenset({
            "unmask: survivors that the witness did not sign", "unmask: signed over other dealers",
        }),
    ),
    Fault(
        "it answers a changed request as the first",
        _answers_again,
        "refusals",
        frozenset(
            f"{stage}: a changed request after it"
            for stage in ("join", "shares", "confirm", "masked", "unmask")
        ),
    ),
    Fault(
        "it needs no number of survivors",
        _survivors_are_enough,
        "refusals",
        frozenset({"confirm: too few dealt", "unmask: too few survivors"}),
    ),
    Fault(
        "it never complains",
        _never_complains,
        "a complaint",
        frozenset({"confirm: a box that does not open"}),
    ),
    Fault(
        "it opens a secret to what nobody signed",
        _opens_everything,
        "refusals",
        frozenset({"dispute: what the accused did not sign"}),
    ),
    Fault(
        "a missing value meets `not`",
        _missing_is_another,
        "counts",
        frozenset({"a missing value meets no condition"}),
    ),
    Fault("a value at an edge is in the lower bin", _lower_bin, "counts", frozenset({"values at the edges of bins"})),
    Fault("groups in another order", _another_order, "counts", frozenset({"rate, joint", "count, joint"})),
    Fault("h is of the floor of gamma n", _floor_of_gamma, "noise", frozenset({"rate, joint, 6 devices"})),
    Fault("it adds no noise", _no_noise, "a whole round", frozenset({"the sum: its noise"})),
    Fault("it adds a fifth of the noise", _a_fifth_of_the_noise, "a whole round", frozenset({"the sum: its noise"})),
    Fault(
        "it takes part for any price",
        _charge_of_anything,
        "invitations",
        frozenset({
            "a charge for less than the plan costs", "a charge for another epsilon",
            "a charge of another plan family",
        }),
    ),
    Fault("it settles a day early", _settles_early, "budgets", frozenset({"a store that settles"})),
    Fault("lengths are little-endian", _little_lengths, "gateway", frozenset({"ask for a request"})),
    Fault(
        "it joins again after its vector has left",
        _joins_again,
        "a whole round",
        frozenset({
            "afterwards: the next attempt at the release", "afterwards: the same window in another release",
            "afterwards: the same window in a newer revision",
        }),
    ),
]  # fmt: skip
