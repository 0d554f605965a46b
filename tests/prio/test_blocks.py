"""The circuit of a plan: honest devices pass it, it is that of a plain reference, and every kind of
constraint in it refuses a lie that nothing else would."""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from math import log2
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clients.evaluate import Cohort, device_tallies, device_vectors, seeded_randomness
from fa_core.arrays import Int64Array
from fa_core.constraints import Constraints, Present, Product
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan, load
from fa_core.prio.blocks import ALGORITHM, PROOFS, Blocks, chunk_of, circuit, encode, nothing, prio, spread
from fa_core.prio.field import FIELD64, Array
from fa_core.prio.flp import Circuit, wire_length
from fa_core.prio.mapping import Tallies, inputs_of, shared
from fa_core.prio.prio3 import Input, Prio3
from fa_core.prio.xof import HmacAes
from tests.metrics.samples import SAMPLES, TODAY, UNTIL, before, cohort, plan_of, plan_with
from tests.prio.forging import KINDS, Change, forged, named_system, without
from tests.prio.gates import gates_of, value
from tests.prio.reference import P64, Reference
from tests.prio.test_prio3 import CTX, KEY, begin, inputs, report

FOLDER = Path(__file__).parents[2] / "eval_plans"
TRAINING = ("hear-every-accent", "moment-norms")
PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in TRAINING)


NAMES = {"wake_word": ("okay_nabu",) * 3, "model_version": ("micro-1", "embed-1", "personal")}


def named(fleet: Cohort) -> Cohort:
    """The hostile fleet with the labels that the shipped plans ask for, and a fact more."""
    tables = {}
    for source, table in fleet.tables.items():
        for column in set(NAMES) & set(table.column_names):
            other = dict(zip("abc", NAMES[column], strict=True))
            labels = [other.get(label) for label in table[column].to_pylist()]
            kind = table.schema.field(column).type
            table = table.set_column(
                table.column_names.index(column), column, pa.array(labels, pa.string()).cast(kind)
            )
        tables[source] = table
    classes = np.arange(len(fleet)) % 4 - 1, ("phone", "speaker", "watch")
    return Cohort(fleet.ids, {**fleet.facts, "device_class": classes}, tables, fleet.offsets)


def agree(plan: Plan, fleet: Cohort) -> None:
    """What devices share satisfies every gate, and comes to the vectors that four stages would send."""
    draws = seeded_randomness(3)
    elements = encode(plan, device_tallies(plan, fleet, UNTIL, draws))
    vectors = device_vectors(plan, compile_plan(plan), fleet, UNTIL, draws)
    np.testing.assert_array_equal(shared(plan).system.outputs.values(elements), vectors)
    assert vectors.any()
    gates = gates_of(circuit(plan).system)
    for row in [*elements[:3].tolist(), nothing(plan).tolist()]:
        assert not gates.violated(row)


@pytest.mark.parametrize("counters", ["joint", "blocks"])
@pytest.mark.parametrize("kind", SAMPLES)
def test_the_elements_of_every_kind_come_to_its_vector(kind: str, counters: str) -> None:
    agree(plan_of(kind, counters=counters), cohort(5, 8, 100))


@pytest.mark.parametrize("name", PLANS)
def test_the_elements_of_every_shipped_plan_come_to_its_vector(name: str) -> None:
    agree(load(FOLDER / f"{name}.yaml", today=TODAY, fleet=2_000), named(cohort(5, 8, 100)))


EVENTS = 3
FACTS, MODELS, BOTH, HOURS, BINS = "facts", "models", "both", "hours", "bins"


def one_set(kind: str, grouping: Sequence[str], event: str) -> Plan:
    body = {**SAMPLES[kind].body, "group_by": [list(grouping)]}
    return plan_with({"metric": body}, "wake_events", event, max_events=EVENTS)


SMALL = {
    FACTS: one_set("rate", ["accent"], "model"),
    MODELS: one_set("rate", ["model"], "model"),
    BOTH: one_set("rate", ["accent", "model"], "model"),
    HOURS: one_set("rate_per_hour", ["hour"], "hour"),
    BINS: one_set("histogram", [], "model"),
}
"""Plans of one set: of three accents, of two models, of both, of the five hours of an event, of a table."""

NAMED = {name: named_system(plan) for name, plan in SMALL.items()}


@dataclass(frozen=True)
class Lie:
    """What a device makes elements of.

    Attributes:
        kind: the kind of constraint that alone refuses it.
        counted: the tallies by group. bits: as `forged` has it.
        step, change: what is done to the elements of the step of that place among those of its type.
    """

    kind: str
    plan: str
    counted: Mapping[str, Sequence[int]]
    bits: bool = True
    step: tuple[type[Present | Product], int] | None = None
    change: Change = lambda elements: elements + 1

    def elements(self) -> Int64Array:
        plan, (system, _) = SMALL[self.plan], NAMED[self.plan]
        (each,) = shared(plan).sets
        table = {name: (each.shape.cells, *shape[1:]) for name, shape in system.inputs}
        tallies = {
            name: np.reshape(self.counted.get(name, np.zeros(table[name], np.int64)), (1, *table[name]))
            for name in each.inputs
        }
        inputs = inputs_of(plan, {(each.metric, each.grouping): tallies})[0]
        changed = {}
        if self.step is not None:
            kind, place = self.step
            places = [at for at, step in enumerate(system.steps) if isinstance(step, kind)]
            changed[places[place]] = self.change
        return forged(system, inputs, bits=self.bits, changed=changed)


def none(elements: Int64Array) -> Int64Array:
    return elements * 0


def first(elements: Int64Array) -> Int64Array:
    return np.asarray(np.arange(len(elements)) == 0, np.int64)


LIES = {
    "96 times the bound": Lie("bit", FACTS, {"n": [96 * EVENTS, 0, 0], "r": [96 * EVENTS, 0, 0]}, bits=False),
    "less than nothing": Lie("bit", MODELS, {"n": [2, 0], "r": [-50, 0]}, bits=False),
    "more misses than events": Lie("range", FACTS, {"n": [0, 1, 0], "r": [0, 2, 0]}),
    "more events than may count": Lie("range", MODELS, {"n": [EVENTS, 1], "r": [0, 0]}),
    "more minutes than hours": Lie("range", HOURS, {"n": [60, 0, 0, 0, 0]}),
    "more wakes than hours": Lie(
        "range", HOURS, {"n": [60] + [0] * 4, "r": [3] + [0] * 4, "units": [1] + [0] * 4}
    ),
    "more hours than may count": Lie("range", HOURS, {"units": [5, 1, 0, 0, 0]}),
    "a table of more events": Lie("range", BINS, {"x": [1] * 16}),
    "another square": Lie("product", FACTS, {"n": [2, 0, 0], "r": [1, 0, 0]}, step=(Product, 0)),
    "a number in another group": Lie("product", FACTS, {"n": [2, 0, 0], "r": [1, 0, 0]}, step=(Product, -1)),
    "another product of a row": Lie("product", BINS, {"x": [1] + [0] * 15}, step=(Product, 0)),
    "events of nobody": Lie("absent", MODELS, {"n": [2, 0], "r": [1, 0]}, step=(Present, 0), change=none),
    "two accents": Lie("one group", BOTH, {"n": [1, 0, 1, 0, 0, 0], "r": [0] * 6}),
    "two accents of one": Lie("chosen", FACTS, {"n": [1, 1, 0], "r": [1, 1, 0]}),
    "an accent without events": Lie("chosen", FACTS, {}, step=(Present, 1), change=first),
}


def outcomes(circuit: Blocks, measurements: Sequence[Int64Array], source: random.Random) -> list[bool]:
    """Which reports of these elements are accepted."""
    prio = Prio3(circuit, ALGORITHM, HmacAes(), PROOFS)
    leader, helper, messages = begin(prio, *inputs([report(prio, each, source) for each in measurements]))
    finished = [prio.finish(begun, messages) for begun in (leader, helper)]
    assert (finished[0].accepted == finished[1].accepted).all()
    return [bool(each) for each in finished[0].accepted]


def test_the_lies_are_of_every_kind() -> None:
    assert {lie.kind for lie in LIES.values()} == set(KINDS)
    for name, plan in SMALL.items():
        assert (NAMED[name][0].gates == circuit(plan).system.gates).all()


@pytest.mark.parametrize("name", LIES)
def test_one_kind_of_constraint_alone_refuses_each_lie(name: str) -> None:
    lie = LIES[name]
    system, kinds = NAMED[lie.plan]
    elements = lie.elements()
    violated = gates_of(system).violated(elements.tolist())
    assert {KINDS[kind] for kind in kinds[violated]} == {lie.kind}
    source, honest = random.Random(6), nothing(SMALL[lie.plan])
    assert outcomes(circuit(SMALL[lie.plan]), [elements, honest], source) == [False, True]
    broken = Blocks(without(system, kinds, lie.kind))
    assert outcomes(broken, [elements, honest], source) == [True, True], "the broken control refuses it too"


@pytest.mark.parametrize("plan", SMALL)
def test_without_one_kind_of_constraint_every_lie_of_another_is_refused(plan: str) -> None:
    system, kinds = NAMED[plan]
    lies = [lie for lie in LIES.values() if lie.plan == plan]
    for kind in KINDS:
        gates = gates_of(without(system, kinds, kind))
        for lie in lies:
            assert bool(gates.violated(lie.elements().tolist())) == (lie.kind != kind)


def test_every_byte_is_that_of_the_plain_reference() -> None:
    """Honest and lying, over the gates one by one."""
    plan, source = SMALL[FACTS], random.Random(7)
    ours = prio(plan)
    gates = gates_of(NAMED[FACTS][0], circuit(plan).chunk)
    plain = Reference(gates, ALGORITHM, HmacAes(), PROOFS)
    honest = Lie("", FACTS, {"n": [0, 3, 0], "r": [0, 2, 0]}).elements()
    for elements, valid in ((honest, True), (LIES["more misses than events"].elements(), False)):
        nonce, randomness = source.randbytes(16), source.randbytes(ours.random_size)
        shares = ours.shard(CTX, elements, nonce, randomness)
        public, (leader, helper) = plain.shard(CTX, elements.tolist(), nonce, randomness)
        assert (shares.public, shares.leader, shares.helper) == (public, leader, helper)
        begun = [
            ours.begin(0, KEY, CTX, [Input(nonce, public, leader)]),
            ours.begin(1, KEY, CTX, [Input(nonce, public, helper)]),
        ]
        verifiers = [
            plain.begin(role, KEY, CTX, nonce, public, share)[0]
            for role, share in enumerate((leader, helper))
        ]
        assert [each.verifiers[0] for each in begun] == verifiers
        (message,) = ours.decide(CTX, begun[0].verifiers, begun[1].verifiers)
        assert message == plain.decide(CTX, verifiers)
        assert (message is not None) == valid


@pytest.mark.parametrize("name", SMALL)
def test_the_output_is_the_weighed_sum_of_what_gates_are_off(name: str) -> None:
    """For arbitrary elements mod p; and the wires that verification combines are those of the proof."""
    blocks, source = circuit(SMALL[name]), random.Random(8)
    plain = gates_of(blocks.system, blocks.chunk)

    def uniform(*shape: int) -> Array:
        count = int(np.prod(shape))
        return FIELD64.array([source.randrange(P64) for _ in range(count)]).reshape(shape)

    elements, joint, weights = (
        uniform(2, blocks.length),
        uniform(2, 3, blocks.joint_length),
        uniform(2, 3, blocks.calls[0]),
    )
    one = FIELD64.scalar(1)
    (wires,) = blocks.wires(elements, joint, one)
    results = blocks.gadgets[0].evaluate(FIELD64, wires)
    outputs = blocks.outputs(elements, joint, one, (results,))
    for row, each in zip(outputs.tolist(), elements.tolist(), strict=True):
        for (found,), randomness in zip(row, joint[elements.tolist().index(each)].tolist(), strict=True):
            off = [value(a, each) * value(b, each) - value(c, each) for a, b, c in plain.gates]
            weighed = [plain.weight(randomness, place) * amount for place, amount in enumerate(off)]
            assert found == sum(weighed) % P64
    (combined,) = blocks.combined_wires(elements, joint, one, (weights,))
    (general,) = Circuit.combined_wires(blocks, elements, joint, one, (weights,))
    np.testing.assert_array_equal(combined, general)


def test_a_collection_of_sixty_devices_of_which_one_lies() -> None:
    """The vector of the release is the sum of the honest devices' own vectors; the liar is refused."""
    plan = load(FOLDER / "wake-word-weekly.yaml", today=TODAY, fleet=2_000)
    layout, fleet, draws = compile_plan(plan), named(cohort(5, 59, 40)), seeded_randomness(3)
    honest = encode(plan, device_tallies(plan, fleet, UNTIL, draws))
    vectors = device_vectors(plan, layout, fleet, UNTIL, draws)
    lie = np.zeros(circuit(plan).system.width, np.int64)
    lie[:3] = 96 * plan.privacy.max_events, 96 * plan.privacy.max_events, 1
    liar = forged(circuit(plan).system, lie, bits=False)
    added = circuit(plan).system.outputs.values(liar[None])[0]
    assert np.abs(added).max() > 96 * max(block.linf for block in layout.blocks)
    measurements = [*honest[:30], liar, *honest[30:]]
    ours, source = prio(plan), random.Random(9)
    reports = [report(ours, each, source) for each in measurements]
    totals = [np.zeros(ours.length, np.uint64)] * 2
    refused = []
    for at in range(0, len(reports), 32):
        leader, helper, messages = begin(ours, *inputs(reports[at : at + 32]))
        finished = [ours.finish(begun, messages) for begun in (leader, helper)]
        totals = [FIELD64.add(total, side.total) for total, side in zip(totals, finished, strict=True)]
        refused += [at + place for place in np.flatnonzero(~finished[0].accepted)]
    assert refused == [30]
    released = ours.unshard([spread(plan, total) for total in totals])
    np.testing.assert_array_equal(released, vectors.sum(axis=0))
    assert np.count_nonzero(vectors.any(axis=1)) >= 30


def test_what_cannot_be_summed_is_refused() -> None:
    with pytest.raises(BadInput, match="two aggregators"):
        circuit(before(plan_of("rate")))
    tallies: Tallies = {("metric", ("accent",)): {"n": np.array([[4, 0, 0]]), "r": np.array([[0, 0, 0]])}}
    with pytest.raises(ValueError, match="outside its range, 0 to 2"):
        encode(SMALL[FACTS], tallies)
    with pytest.raises(ValueError, match="elements"):
        circuit(SMALL[FACTS]).encode(np.zeros(3, np.int64))
    wide = Constraints()
    number = wide.number(wide.input("n", (1,)), 2**31)
    wide.require_zero(number)
    with pytest.raises(ValueError, match="add up"):
        Blocks(wide.system(number))


@pytest.mark.parametrize("gates", [1, 2, 3, 4, 137, 1379])
def test_no_other_number_of_gates_in_a_call_makes_a_shorter_proof(gates: int) -> None:
    def size(chunk: int) -> int:
        return 2 * chunk + 2 * wire_length(-(-gates // chunk)) - 1

    assert size(chunk_of(gates)) == min(size(chunk) for chunk in range(1, gates + 1))


def row_of(name: str) -> str:
    """A plan's row of the table in docs/two-aggregators.md."""
    plan = load(FOLDER / f"{name}.yaml", today=TODAY, fleet=2_000)
    blocks, ours = circuit(plan), prio(plan)
    calls, upload = blocks.calls[0], ours.public_size + ours.leader_size + ours.helper_size
    degree = 2 * (wire_length(calls) - 1)
    bound = 3 * log2(Fraction(blocks.chunk + 1, P64) + Fraction(degree, P64 - wire_length(calls)))
    numbers = compile_plan(plan).length, blocks.length, len(blocks.system.gates), calls, blocks.chunk, upload
    return f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + f" | −{-bound:.1f} |"


def test_the_page_has_the_numbers_of_every_shipped_plan() -> None:
    page = (FOLDER.parent / "docs" / "two-aggregators.md").read_text(encoding="utf-8")
    assert [line for line in page.split("\n") if line[2:].split(" ")[0] in PLANS] == [
        row_of(n) for n in PLANS
    ]
    largest = 0
    for name in PLANS:
        system = circuit(load(FOLDER / f"{name}.yaml", today=TODAY, fleet=2_000)).system
        forms, made = system.forms, [step.start for step in system.steps if isinstance(step, Product)]
        starts = np.array([step.start for step in system.steps])
        source = starts[np.searchsorted(starts, forms.column, side="right") - 1]
        assert not np.isin(source, made).any(), "a form of elements that are not bits"
        weight = np.bincount(forms.row, np.abs(forms.coefficient), forms.size) + np.abs(forms.constant)
        largest = max(largest, int(weight.max()))
    assert f"among the shipped plans is {largest:,}." in page


CIRCUITS = Path(__file__).parent / "circuits.json"


def hash_of(plan: Plan) -> str:
    """Hash all that decides which reports of a plan hold, and what they add to its vector."""
    found = circuit(plan)
    forms, outputs = found.system.forms, found.system.outputs
    arrays = [found.system.gates]
    for each in (forms, outputs):
        arrays += [each.constant, each.row, each.column, each.coefficient]
    numbers = [found.length, found.chunk, *found.calls, found.joint_length, PROOFS, ALGORITHM]
    digest = sha256(repr((numbers, [array.shape for array in arrays])).encode())
    for array in arrays:
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


def test_the_circuit_of_every_shipped_plan_is_what_it_was() -> None:
    """A task names the plan, and not the circuit: two versions of this code that make different circuits of
    one plan need different numbers. Where a plan changed, or `ALGORITHM` did, write the file anew; where
    neither did, give `ALGORITHM` a new number first."""
    found = {name: hash_of(load(FOLDER / f"{name}.yaml", today=TODAY, fleet=2_000)) for name in PLANS}
    assert found == json.loads(CIRCUITS.read_text("ascii")), json.dumps(found, indent=2)


def test_a_gate_more_or_less_is_another_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("rate")
    before, own = hash_of(plan), circuit(plan)
    system = replace(own.system, gates=own.system.gates[:-1])
    monkeypatch.setattr(sys.modules[__name__], "circuit", lambda plan: Blocks(system))
    assert hash_of(plan) != before
