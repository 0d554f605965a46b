"""The plain device of the tests with one fault at a time in what it does of two aggregators and of rollouts."""

from collections.abc import Callable
from typing import Any

from fa_core.conformance.uploads import PART
from tests.conformance.broken import Fault, Modules

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
    device.__init__ = lambda self, ask: right(self, {**ask, "min_kappa": "0"})


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
        "it leaves out the range of a sum",
        _leaves_out_a_range,
        PART,
        frozenset({"the report has the size that follows from the plan"}),
    ),
    Fault(
        "its ranges are of other numbers",
        _proves_nothing_of_a_range,
        PART,
        frozenset({"the proof holds for leader and helper", "the sum is what was counted"}),
    ),
    Fault(
        "it counts itself twice",
        _counts_twice,
        PART,
        frozenset({"the proof holds for leader and helper", "the sum is what was counted"}),
    ),
    Fault(
        "it weighs gates otherwise",
        _factored_otherwise,
        PART,
        frozenset({
            "the proof holds for leader and helper", "without rows: the proof holds for leader and helper",
        }),
    ),
    Fault(
        "it reports anew when it is asked again",
        _reports_anew,
        PART,
        frozenset({
            "the same invitation again", "the same task under a newer checkpoint",
            "a second task for the release", "the same window in another release",
            "the same task after all of these",
        }),
    ),
    Fault("its randomness is that of before", _draws_the_same, PART, frozenset({"another report draws anew"})),
    Fault(
        "it reports under any kappa", _any_kappa, PART,
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
        "its withdrawal is not signed", _keeps_its_report, PART,
        frozenset({"the withdrawal is that of the report"}),
    ),
    Fault(
        "it reports to a second task", _forgets_the_task, PART,
        frozenset({
            "a second task for the release", "a second task with another sealing key",
            "the same window in another release",
        }),
    ),
    Fault(
        "it seals for another use", _seals_for_anybody, PART,
        frozenset({"the helper opens its box", "the sum is what was counted"}),
    ),
    Fault(
        "it signs what the helper cannot check", _signs_the_share, PART,
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
