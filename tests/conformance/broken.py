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


# Two aggregators


def _leaves_out_a_range(modules: Modules) -> None:
    modules["circuit"].Circuit.at_most = lambda self, most, forms: None


def _proves_nothing_of_a_range(modules: Modules) -> None:
    """All gates stand, and the numbers of one range are wrong."""
    circuit = modules["circuit"].Circuit
    right = circuit.range

    def range_(self: Any, forms: Any, most: int) -> None:
        start = len(self.elements)
        right(self, forms, most)
        if len(self.elements) > start:
            self.elements[-1] ^= 1

    circuit.range = range_


def _counts_twice(modules: Modules) -> None:
    """More than a device may add, with a proof of numbers that are no bits."""
    circuit = modules["circuit"].Circuit
    right = circuit.presence

    def presence(self: Any, values: list[int]) -> Any:
        found = right(self, values)
        for form in found:
            self.elements[next(iter(form))] *= 2
        return found

    circuit.presence = presence


def _factored_otherwise(modules: Modules) -> None:
    """Weighs gate j of call k by u^(j + 1), as the draft's own circuits do."""
    proof = modules["proof"]
    right = proof.proved

    def proved(circuit: Any, blinds: Any, joint: Any) -> Any:
        class Powers(int):
            def __pow__(self, exponent: int, modulus: Any = None) -> int:
                return int(1 if modulus is None else pow(int(self), exponent - 1, modulus))

        return right(circuit, blinds, [*joint[:-1], Powers(joint[-1])])

    proof.proved = proved


def _reports_anew(modules: Modules) -> None:
    device = modules["device"].Device
    right = device._report

    def report(self: Any, request: bytes) -> bytes:
        self.reports.clear()
        self.answered.clear()
        return right(self, request)  # type: ignore[no-any-return]

    device._report = report


def _draws_the_same(modules: Modules) -> None:
    modules["report"].token_bytes = bytes


def _any_kappa(modules: Modules) -> None:
    device = modules["device"].Device
    right = device.__init__
    device.__init__ = lambda self, ask: right(self, {**ask, "least_kappa": "0"})


def _any_helper(modules: Modules) -> None:
    report = modules["report"]
    right = report._offered

    def offered(asked: Any, found: Any, pins: Any, population: bytes, now: int) -> Any:
        import json

        named = json.loads(json.loads(json.loads(asked.request)["signed"])["task"])["helper"]
        return right(asked, found, {**pins, "helper": named}, population, now)

    report._offered = offered


def _at_any_time(modules: Modules) -> None:
    report = modules["report"]
    right = report._offered

    def offered(asked: Any, found: Any, pins: Any, population: bytes, now: int) -> Any:
        import json

        task = json.loads(json.loads(json.loads(asked.request)["signed"])["task"])
        return right(asked, found, pins, population, task["opens"])

    report._offered = offered


def _unbound(modules: Modules) -> None:
    modules["report"].bound = lambda task, signature, witness: True


def _either_sum_at_join(modules: Modules) -> None:
    modules["device"].two_aggregators = lambda read: False


def _keeps_its_report(modules: Modules) -> None:
    modules["device"].withdrawal_of = lambda task, number, identity, certificate: bytes(240)


def _forgets_the_task(modules: Modules) -> None:
    device = modules["device"].Device
    device._window = lambda self, asked, read: ("", 0, 0)


def _seals_for_anybody(modules: Modules) -> None:
    report = modules["report"]
    right = report.clabel
    report.clabel = lambda use: right("share" if use == "helper share" else use)


def _signs_the_share(modules: Modules) -> None:
    """The leader's share itself is signed, not its hash: the helper could check nothing."""
    report = modules["report"]
    report.body_hash = lambda number, device, public, box, leader: report.sha(
        report.clabel("report body") + number + device + public + box + leader
    )


# Rollouts


def _believes_every_grant(modules: Modules) -> None:
    rollout = modules["rollout"]
    right = rollout.verifies
    rollout.verifies = lambda key, signature, message: (
        message.startswith(b"unheard-rollout-stage-") or right(key, signature, message)
    )


def _without(name: str) -> Callable[[Modules], None]:
    """Have a check of rollouts pass whatever it is given."""

    def make(modules: Modules) -> None:
        setattr(modules["rollout"].Rollouts, name, lambda self, *rest: None)

    return make


def _forgets_floors(modules: Modules) -> None:
    rollouts = modules["rollout"].Rollouts
    right = rollouts._permitted

    def permitted(self: Any, manifest: Any, document: Any) -> None:
        self.floors.clear()
        right(self, manifest, document)

    rollouts._permitted = permitted


def _acts_after_the_lease(modules: Modules) -> None:
    rollouts = modules["rollout"].Rollouts
    right = rollouts.acts
    rollouts.acts = lambda self, now: right(
        self, min(now, (self.held or {"expires": now + 1})["expires"] - 1)
    )


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
    Fault(
        "it leaves out the range of a sum",
        _leaves_out_a_range,
        "a collection",
        frozenset({"the report has the size that follows from the plan"}),
    ),
    Fault(
        "its ranges are of other numbers",
        _proves_nothing_of_a_range,
        "a collection",
        frozenset({"the proof holds for leader and helper", "the sum is what was counted"}),
    ),
    Fault(
        "it counts itself twice",
        _counts_twice,
        "a collection",
        frozenset({"the proof holds for leader and helper", "the sum is what was counted"}),
    ),
    Fault(
        "it weighs gates otherwise",
        _factored_otherwise,
        "a collection",
        frozenset({
            "the proof holds for leader and helper", "without rows: the proof holds for leader and helper",
        }),
    ),
    Fault(
        "it reports anew when it is asked again",
        _reports_anew,
        "a collection",
        frozenset({
            "the same invitation again", "the same task under a newer checkpoint",
            "a second task for the release", "the same window in another release",
            "the same task after all of these",
        }),
    ),
    Fault("its randomness is that of before", _draws_the_same, "a collection", frozenset({"another report draws anew"})),
    Fault(
        "it reports under any kappa", _any_kappa, "a collection",
        frozenset({"a kappa below the device's least"}),
    ),
    Fault(
        "it reports to any helper", _any_helper, "tasks",
        frozenset({"another helper is pinned", "another helper than the pinned one"}),
    ),
    Fault(
        "it reports at any time", _at_any_time, "tasks",
        frozenset({"a collection that has not begun", "a collection that is over"}),
    ),
    Fault(
        "it needs no witness of the task", _unbound, "tasks",
        frozenset({"a task that the witness did not sign"}),
    ),
    Fault(
        "it joins with a plan that two aggregators sum", _either_sum_at_join, "invitations",
        frozenset({"a plan that two aggregators sum"}),
    ),
    Fault(
        "its withdrawal is not signed", _keeps_its_report, "a collection",
        frozenset({"the withdrawal is that of the report"}),
    ),
    Fault(
        "it reports to a second task", _forgets_the_task, "a collection",
        frozenset({
            "a second task for the release", "a second task with another sealing key",
            "the same window in another release",
        }),
    ),
    Fault(
        "it seals for another use", _seals_for_anybody, "a collection",
        frozenset({"the helper opens its box", "the sum is what was counted"}),
    ),
    Fault(
        "it signs what the helper cannot check", _signs_the_share, "a collection",
        frozenset({"a certified device of the population signed the report"}),
    ),
    Fault(
        "it believes every grant", _believes_every_grant, "rollouts",
        frozenset({"a grant of another signer"}),
    ),
    Fault(
        "it follows rollouts in any order", _without("_in_order"), "rollouts",
        frozenset({"a manifest of before"}),
    ),
    Fault(
        "it follows rollouts from any model", _without("_another"), "rollouts",
        frozenset({"a document that is over"}),
    ),
    Fault(
        "it believes files without the log", _without("_published"), "rollouts",
        frozenset({
            "another log", "an entry that is not in the log", "a log that does not extend the one seen",
            "a log that is not that of invitations",
        }),
    ),
    Fault(
        "it forgets the floors that it saw", _forgets_floors, "rollouts",
        frozenset({"a candidate under a floor that was seen"}),
    ),
    Fault(
        "it acts on a candidate after the lease", _acts_after_the_lease, "rollouts",
        frozenset({"the lease is over"}),
    ),
]  # fmt: skip
