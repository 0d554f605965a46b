"""The circuit of a plan with a device's own numbers in it. From docs/device-protocol.md, "The circuit".

A form is a dictionary: the number of an element, or ONE for the constant, to a whole coefficient.
"""

from itertools import product
from typing import Any

from plan import Plan, labels_of, rows_and_columns
from wire import Refused

Form = dict[int, int]
ONE = -1


def plus(*forms: Form) -> Form:
    total: Form = {}
    for form in forms:
        for element, coefficient in form.items():
            total[element] = total.get(element, 0) + coefficient
    return total


def times(factor: int, form: Form) -> Form:
    return {element: factor * coefficient for element, coefficient in form.items()}


def minus(left: Form, right: Form) -> Form:
    return plus(left, times(-1, right))


def constant(value: int) -> Form:
    return {ONE: value}


class Circuit:
    """Elements and gates, as the steps make them."""

    def __init__(self) -> None:
        self.elements: list[int] = []
        self.gates: list[tuple[Form, Form, Form]] = []

    def value(self, form: Form) -> int:
        return sum(c * (1 if e == ONE else self.elements[e]) for e, c in form.items())

    def new(self, value: int) -> Form:
        self.elements.append(value)
        return {len(self.elements) - 1: 1}

    def gate(self, a: Form, b: Form, c: Form) -> None:
        if max(sum(map(abs, form.values())) for form in (a, b, c)) >= 2**31:
            raise Refused("LIMITS")
        self.gates.append((a, b, c))

    def bits(self, values: list[int], most: int) -> list[Form]:
        if most == 0:
            return [{} for _ in values]
        d = most.bit_length() - 1
        weights = [1 << place for place in range(d)] + [most - (1 << d) + 1]
        numbers, made = [], []
        for value in values:
            assert 0 <= value <= most
            last = int(value >= 1 << d)
            rest = value - last * weights[-1]
            forms = [self.new(rest >> place & 1) for place in range(d)] + [self.new(last)]
            made += forms
            numbers.append(plus(*(times(w, form) for w, form in zip(weights, forms))))
        for form in made:
            self.gate(form, form, form)
        return numbers

    def range(self, forms: list[Form], most: int) -> None:
        numbers = self.bits([self.value(form) for form in forms], most)
        for form, found in zip(forms, numbers):
            self.gate(minus(form, found), constant(1), {})

    def presence(self, values: list[int]) -> list[Form]:
        made = [self.new(int(value > 0)) for value in values]
        for form in made:
            self.gate(form, form, form)
        return made

    def products(self, pairs: list[tuple[Form, Form]]) -> list[Form]:
        made = [self.new(self.value(f) * self.value(g)) for f, g in pairs]
        for (f, g), form in zip(pairs, made):
            self.gate(f, g, form)
        return made

    def sized(self, n: list[Form], b: list[Form], most: int) -> None:
        beyond = [minus(x, y) for x, y in zip(n, b)]
        self.range(beyond, most - 1)
        for x, y in zip(beyond, b):
            self.gate(x, y, x)

    def at_most(self, most: int, forms: list[Form]) -> None:
        """The range of `most` less the sum of the forms."""
        self.range([minus(constant(most), plus(*forms))], most)


Listed = list[tuple[str, list[list[Form]]]]
"""What a set lists: names, and of each group its forms."""


def pairs(circuit: Circuit, metric: Plan, plan: Plan, tallies: list[Any]) -> Listed:
    kind, most = metric["kind"], plan["privacy"]["max_events"]
    joint = plan["privacy"]["counters"] == "joint"
    units, size, count = {
        "rate": lambda: (most, 1, 1),
        "paired_difference": lambda: (most, 1, 1),
        "mean": lambda: (most, 1, 1000),
        "ratio": lambda: (most, metric["max_over"], metric["max_of"]),
        "rate_per_hour": lambda: (metric["max_hours"], 60, metric["max_per_hour"]),
    }[kind]()
    signed, apart = kind == "paired_difference", is_apart(metric, joint)
    ns, rs = [n for n, _, _ in tallies], [r for _, r, _ in tallies]
    b = circuit.presence(ns)
    x = circuit.bits([n - int(n > 0) for n in ns], size * units - 1)
    for f, g in zip(x, b):
        circuit.gate(f, g, f)
    n = [plus(f, g) for f, g in zip(x, b)]
    if signed:
        y = circuit.bits([r + k for r, k in zip(rs, ns)], 2 * size * units)
        r = [minus(f, g) for f, g in zip(y, n)]
        circuit.range([minus(f, g) for f, g in zip(n, r)], 2 * size * units)
    else:
        r = circuit.bits(rs, count * units)
        if not apart:
            circuit.range([minus(times(count, f), g) for f, g in zip(n, r)], count * size * units)
    if len(tallies) > 1:
        m = n
        if size != 1 or apart:
            m = circuit.bits([m for _, _, m in tallies], units)
            circuit.range([minus(times(size, f), g) for f, g in zip(m, n)], size * units)
            circuit.range([minus(times(count, f), g) for f, g in zip(m, r)], count * units)
        circuit.at_most(units, m)
    found = [b, n, r]
    for left, right in ((n, n), (n, r), (r, r)):
        found.append(circuit.products(list(zip(left, right))))
    names = ("b", "n", "r", "nn", "nr", "rr")
    return [(name, [[form] for form in forms]) for name, forms in zip(names, found)]


def is_apart(metric: Plan, joint: bool) -> bool:
    return metric["kind"] == "ratio" or (metric["kind"] == "rate_per_hour" and not joint)


def count(circuit: Circuit, metric: Plan, plan: Plan, tallies: list[Any]) -> Listed:
    most = plan["privacy"]["max_events"]
    n = circuit.bits(tallies, most)
    b = circuit.presence(tallies)
    circuit.sized(n, b, most)
    if len(tallies) > 1:
        circuit.at_most(most, n)
    square = circuit.products(list(zip(n, n)))
    return [(name, [[f] for f in forms]) for name, forms in (("b", b), ("n", n), ("nn", square))]


def grouped(forms: list[Form], width: int) -> list[list[Form]]:
    return [forms[at : at + width] for at in range(0, len(forms), width)]


def table(circuit: Circuit, metric: Plan, plan: Plan, tallies: list[Any]) -> Listed:
    most, columns = plan["privacy"]["max_events"], rows_and_columns(metric)[1]
    width = len(rows_and_columns(metric)[0]) * columns
    flat = [x for cells in tallies for x in cells]
    x = circuit.bits(flat, most)
    b = circuit.presence([sum(cells) for cells in tallies])
    circuit.sized([plus(*cells) for cells in grouped(x, width)], b, most)
    if len(tallies) > 1:
        circuit.at_most(most, x)
    rows = [plus(*row) for row in grouped(x, columns)]
    by_row = circuit.products([(form, rows[at // columns]) for at, form in enumerate(x)])
    squares = circuit.products([(form, form) for form in x])
    parts = (("x", x), ("xn", by_row), ("xx", squares))
    return [("b", [[f] for f in b]), *((name, grouped(forms, width)) for name, forms in parts)]


def curve(circuit: Circuit, metric: Plan, plan: Plan, tallies: list[Any]) -> Listed:
    most, bins, groups = plan["privacy"]["max_events"], metric["edges"]["bins"], len(tallies)
    hours, hourly = metric["max_hours"], metric["max_per_hour"]
    fires, longest = hours * hourly, 60 * hours
    p = grouped(circuit.bits([x for t in tallies for x in t[0]], most), bins)
    b = circuit.presence([sum(t[0]) for t in tallies])
    sizes = [plus(*group) for group in p]
    circuit.sized(sizes, b, most)
    q = grouped(circuit.bits([x for t in tallies for x in t[1]], fires), bins)
    minutes = circuit.bits([t[2] for t in tallies], longest)
    if groups == 1:
        circuit.at_most(fires, q[0])
    else:
        circuit.at_most(most, sizes)
        m = circuit.bits([max(-(-sum(t[1]) // hourly), -(-t[2] // 60)) for t in tallies], hours)
        circuit.range([minus(times(hourly, f), plus(*g)) for f, g in zip(m, q)], fires)
        circuit.range([minus(times(60, f), g) for f, g in zip(m, minutes)], longest)
        circuit.at_most(hours, m)
    missed = [plus(*group[:k]) for group in p for k in range(1, bins)]
    fired = [plus(*group[k:]) for group in q for k in range(1, bins)]
    lines = [
        grouped(circuit.products([(f, f) for f in missed]), bins - 1),
        grouped(circuit.products([(f, size) for group, size in zip(p, sizes) for f in group]), bins),
        grouped(circuit.products([(f, f) for f in fired]), bins - 1),
        grouped(circuit.products([(f, t) for group, t in zip(q, minutes) for f in group]), bins),
        [[f] for f in circuit.products(list(zip(minutes, minutes)))],
    ]
    return [("sized", [[f] for f in b]), ("p", p), ("q", q), ("t", [[f] for f in minutes])] + [
        (name, forms) for name, forms in zip(("PP", "pS", "QQ", "qt", "tt"), lines)
    ]


KINDS = {"count": count, "histogram": table, "confusion": table, "det": curve}


def sets_of(plan: Plan, metric: Plan) -> list[list[str]]:
    """The groupings of a metric that have a set, in its order."""
    groupings = metric["group_by"]

    def refines(fine: list[str], coarse: list[str]) -> bool:
        added = set(fine) - set(coarse)
        whole = set(coarse) < set(fine)
        return whole and all("device" in plan["segments"][name] for name in added)

    own = [each for each in groupings if not any(refines(other, each) for other in groupings)]
    read = [each if each in own else next(o for o in own if refines(o, each)) for each in groupings]
    return [each for place, each in enumerate(read) if each not in read[:place]]


def by_place(plan: Plan, grouping: list[str], values: list[Any]) -> list[list[Any]]:
    """What was counted by group, as H rows of G."""
    segments = [(name, len(labels_of(plan["segments"][name]))) for name in grouping]
    device = [name for name in grouping if "device" in plan["segments"][name]]
    place = {name: at for at, (name, _) in enumerate(segments)}
    order = [place[name] for name in device] + [place[n] for n in grouping if n not in device]
    rows: dict[tuple[int, ...], list[Any]] = {}
    found = {}
    for group, labels in enumerate(product(*(range(count) for _, count in segments))):
        found[tuple(labels[at] for at in order)] = values[group]
    for key in sorted(found):
        rows.setdefault(key[: len(device)], []).append(found[key])
    return [rows[key] for key in sorted(rows)]


def nothing_in(tally: Any) -> bool:
    return not any(map(any_of, tally)) if isinstance(tally, (list, tuple)) else not tally


def any_of(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)


def added(one: Any, other: Any) -> Any:
    if isinstance(one, (list, tuple)):
        return type(one)(added(a, b) for a, b in zip(one, other))
    return one + other


def add_set(circuit: Circuit, plan: Plan, metric: Plan, grouping: list[str], values: list[Any]) -> None:
    """`values`: the tallies by group, all the grouping's groups."""
    placed = by_place(plan, grouping, values)
    tallies = placed[0]
    for row in placed[1:]:
        tallies = [added(a, b) for a, b in zip(tallies, row)]
    listed = KINDS.get(metric["kind"], pairs)(circuit, metric, plan, tallies)
    if len(placed) == 1:
        return
    # The units m are a tally only where there are several groups and they are not n itself.
    joint = plan["privacy"]["counters"] == "joint"
    kept = [[seen(metric, joint, len(row), t) for t in row] for row in placed]
    c = circuit.presence([int(not all(map(nothing_in, row))) for row in kept])
    alone = len(tallies) == 1 and listed[0][0] == "b" and not is_apart(metric, joint)
    whole = plus(*c)
    if alone:
        circuit.gate(minus(whole, listed[0][1][0][0]), constant(1), {})
    else:
        circuit.gate(whole, whole, whole)
    for name, groups in listed:
        if not (alone and name == "b"):
            circuit.products([(one, form) for one in c for group in groups for form in group])


def seen(metric: Plan, joint: bool, groups: int, tally: Any) -> Any:
    """Of a group's tallies, those that decide where the device stands."""
    pair = isinstance(tally, tuple) and metric["kind"] != "det"
    units = groups > 1 and metric["kind"] in ("ratio", "rate_per_hour")
    return tally[:2] if pair and not units else tally


def circuit_of(plan: Plan, tallies: Any) -> Circuit:
    """`tallies(metric, grouping)` gives what was counted there by group: (n, r, m), n, a table, or (p, q, t)."""
    circuit = Circuit()
    for name in sorted(plan["metrics"]):
        metric = plan["metrics"][name]
        for grouping in sets_of(plan, metric):
            add_set(circuit, plan, metric, grouping, tallies(name, grouping))
    return circuit


def calls_of(gates: int) -> tuple[int, int, int]:
    """chunk, calls and P."""
    best = None
    points = 2
    while True:
        chunk = -(-gates // (points - 1))
        calls = -(-gates // chunk)
        length = 1 << calls.bit_length()
        found = (2 * chunk + 2 * length, chunk, calls, length)
        best = found if best is None or found[:2] < best[:2] else best
        if points > gates:
            return best[1:]
        points *= 2
