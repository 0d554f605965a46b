"""From a plan to its layout, its cost and a device's share of the noise. From docs/device-protocol.md."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil, floor, isqrt, log2, prod, sqrt
from secrets import randbelow
from typing import Any

from wire import Refused, number, parsed, sha

KINDS = {
    "rate", "rate_per_hour", "ratio", "mean", "paired_difference", "count", "histogram", "confusion", "det",
    "one_shot_means", "norm_histogram",
}  # fmt: skip
DOMAINS = {
    "outcome": ["true_accept", "false_reject", "false_accept", "true_reject"],
    "label_source": ["retry", "cancel", "silence", "follow_up", "explicit", "near_miss"],
    "confirmation": ["not_asked", "confirmed", "denied", "unanswered"],
}

Plan = dict[str, Any]


def plan_of(data: bytes) -> Plan:
    """Return a canonical plan that this device understands. Raises Refused."""
    try:
        if len(data) > 1_000_000:
            raise ValueError("too long")
        plan = parsed(data)
        if plan["apiVersion"] != "fa/v1" or plan["kind"] not in ("EvalPlan", "TrainPlan"):
            raise ValueError("another language")
        if any(metric["kind"] not in KINDS for metric in plan["metrics"].values()):
            raise ValueError("another kind")
        privacy = plan["privacy"]
        if privacy["accounting"] == "zcdp" and ("rho" not in privacy or privacy.get("counters") is None):
            raise ValueError("a plan of before")
        held = supported(privacy)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("MALFORMED") from None
    if not held:
        raise Refused("COST")
    return plan  # type: ignore[no-any-return]


# rho from epsilon and delta


def twice_artanh(top: int, bottom: int, up: bool) -> int:
    def divide(value: int, by: int) -> int:
        return -(-value // by) if up else value // by

    one = 1 << 128
    w = divide(top * one, bottom)
    s = divide(w * w, one)
    total = 0
    for i in range(42):
        total += divide(w, 2 * i + 1)
        w = divide(w * s, one)
    return 2 * (total + w) if up else 2 * total


def ln(x: Fraction, up: bool) -> Fraction:
    k = 0
    while x >= 2 ** (k + 1):
        k += 1
    y = x / 2**k
    p, q = y.numerator, y.denominator
    return Fraction(k * twice_artanh(1, 3, up) + twice_artanh(p - q, p + q, up), 1 << 128)


def implied(rho: Fraction, alpha: Fraction, epsilon: Fraction, delta: Fraction) -> bool:
    numbers = (rho, alpha, epsilon, delta)
    if any(max(abs(x.numerator), x.denominator).bit_length() > 256 for x in numbers):
        return False
    if not (rho > 0 and alpha > 1 and epsilon > 0 and 0 < delta < 1):
        return False
    a = alpha - 1
    return rho <= (epsilon + ln(alpha / a, False) + (ln(alpha, False) - ln(1 / delta, True)) / a) / alpha


def supported(privacy: Plan) -> bool:
    if privacy["accounting"] == "pure":
        return "rho" not in privacy and "alpha" not in privacy
    rho, alpha, epsilon, delta = (number(privacy[key]) for key in ("rho", "alpha", "epsilon", "delta"))
    return implied(rho, alpha, epsilon, delta)


def total_cost(plan: Plan) -> Fraction:
    privacy = plan["privacy"]
    return number(privacy["rho"] if privacy["accounting"] == "zcdp" else privacy["epsilon"])


def own_cost(plan: Plan) -> Fraction:
    """What a contribution costs by the device's own records, in rho."""
    cost = total_cost(plan)
    return cost if plan["privacy"]["accounting"] == "zcdp" else cost * cost / 2


# Joint counters

TABLES = {
    "rate": (
        (66284, -78040, -29902, 12008, 25945, 3815),
        (0, 203621, -269730, -183270, 295569, -51615),
        (0, 0, 207274, 686, -91937, -97804),
        (0, 0, 0, 62261, -103237, 25471),
        (0, 0, 0, 0, 179881, -171525),
        (0, 0, 0, 0, 0, 60159),
    ),
    "rate_event": (
        (6716, -18292, -1678, 12856, -17753, 18831),
        (0, 139583, -139699, -109854, 181047, -78944),
        (0, 0, 147603, -7973, -10091, -101571),
        (0, 0, 0, 57808, -102463, 34145),
        (0, 0, 0, 0, 159617, -156667),
        (0, 0, 0, 0, 0, 57680),
    ),
    "paired_difference": (
        (66730, -63973, 0, 3403, 0, -5784),
        (0, 91873, 0, -45109, 0, -44455),
        (0, 0, 171820, 0, -150627, 0),
        (0, 0, 0, 45499, 0, -43149),
        (0, 0, 0, 0, 56529, 0),
        (0, 0, 0, 0, 0, 25202),
    ),
    "paired_difference_event": (
        (9704, -36670, 0, 24977, 0, 3978),
        (0, 123474, 0, -88933, 0, -32414),
        (0, 0, 83210, 0, -39466, 0),
        (0, 0, 0, 55659, 0, -53082),
        (0, 0, 0, 0, 41619, 0),
        (0, 0, 0, 0, 0, 25111),
    ),
    "rate_per_hour": (
        (65544, -41571, -102425, -7472, 48906, 36827),
        (0, 90610, -42899, -50715, -25728, 34679),
        (0, 0, 212662, -10961, 11631, -194751),
        (0, 0, 0, 48066, -35735, -2155),
        (0, 0, 0, 0, 31997, -17941),
        (0, 0, 0, 0, 0, 60077),
    ),
    "rate_per_hour_event": (
        (12994, -12064, -33420, 3350, 8215, 20937),
        (0, 89287, -45904, -60811, -13878, 34833),
        (0, 0, 148073, 424, -1651, -130773),
        (0, 0, 0, 58689, -50541, -1722),
        (0, 0, 0, 0, 40402, -21966),
        (0, 0, 0, 0, 0, 60347),
    ),
}
SHARES = ((147712, -41645, -78157), (0, 102927, -91774), (0, 0, 58201))

Matrix = tuple[tuple[int, ...], ...]


def scaled(table: Matrix, powers: list[tuple[int, int]], n_max: int, r_max: int) -> Matrix:
    s = min(30, max(10, 2 * (max(n_max, r_max) - 1).bit_length() + 4))
    q = [2**16 * n_max**a * r_max**b for a, b in powers]
    return tuple(tuple((2 * c * 2**s + q_j) // (2 * q_j) for c, q_j in zip(row, q)) for row in table)


@dataclass(frozen=True)
class Joint:
    """What one device can have in a group: M units, of at most `size` each, with `count` of r in each."""

    table: str
    units: int
    size: int
    count: int
    signed: bool

    def matrix(self) -> Matrix:
        powers = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
        return scaled(TABLES[self.table], powers, self.size * self.units, self.count * self.units)

    def y(self, n: int, r: int) -> list[int]:
        return self._times(self.matrix(), n, r)

    @staticmethod
    def _times(matrix: Matrix, n: int, r: int) -> list[int]:
        if n == 0:
            return [0] * 6
        u = (1, n, r, n * n, n * r, r * r)
        return [sum(a * b for a, b in zip(row, u)) for row in matrix]


def joint_of(metric: Plan, most_events: int, event: bool) -> Joint:
    kind = metric["kind"]
    table = kind + ("_event" if event else "")
    if kind == "rate_per_hour":
        return Joint(table, metric["max_hours"], 60, metric["max_per_hour"], False)
    return Joint(table, most_events, 1, 1, kind == "paired_difference")


@cache
def joint_bounds(joint: Joint, touch: int) -> tuple[int, int, int]:
    """L1, L2 squared and the largest cell, by trying every pair."""
    matrix, m_most = joint.matrix(), joint.units
    best = [[0, 0, 0] for _ in range(m_most + 1)]
    for n in range(1, joint.size * m_most + 1):
        for r in range(min(joint.count * m_most, joint.count * n) + 1):
            # The fewest units that can have this pair.
            least = max(-(-n // joint.size), -(-r // joint.count))
            for value in (r, -r) if joint.signed else (r,):
                y = Joint._times(matrix, n, value)
                found = (sum(map(abs, y)), sum(x * x for x in y), max(map(abs, y)))
                best[least] = [max(a, b) for a, b in zip(best[least], found)]
    for m in range(1, m_most + 1):
        best[m] = [max(a, b) for a, b in zip(best[m], best[m - 1])]
    groups = min(touch, m_most)
    l1, l2 = (most_together([row[i] for row in best], groups) for i in (0, 1))
    return l1, l2, best[-1][2]


def most_together(g: list[int], groups: int) -> int:
    """The largest sum of g(m_k) over so many groups whose m_k add up to at most len(g) - 1."""
    total = [0] * len(g)
    for _ in range(groups):
        total = [max(total[m - j] + g[j] for j in range(m + 1)) for m in range(len(g))]
    return total[-1]


def share_matrix(n: int) -> Matrix:
    return scaled(SHARES, [(1, 0), (2, 0), (2, 0)], n, 1)


@cache
def share_bounds(most: int) -> tuple[int, int, int]:
    matrix = share_matrix(most)
    l1 = l2 = largest = 0
    for n in range(1, most + 1):
        for x in range(1, n + 1):
            y = [sum(a * b for a, b in zip(row, (x, x * n, x * x))) for row in matrix]
            l1 = max(l1, -(-most * sum(map(abs, y)) // x))
            l2 = max(l2, -(-most * sum(v * v for v in y) // x))
            largest = max(largest, *map(abs, y))
    return l1, l2, largest


# Layout


@dataclass(frozen=True)
class Block:
    metric: str
    grouping: tuple[str, ...]
    part: str
    start: int
    cells: int
    l1: int
    l2_squared: int
    linf: int
    cost: Fraction

    def variance(self, accounting: str) -> float | Fraction:
        if accounting == "zcdp":
            return Fraction(self.l2_squared) / (2 * self.cost)
        from math import exp, expm1

        rate = float(self.cost) / self.l1
        return 2 * exp(-rate) / expm1(-rate) ** 2


@dataclass(frozen=True)
class Layout:
    blocks: tuple[Block, ...]
    bits: int

    @property
    def length(self) -> int:
        return sum(block.cells for block in self.blocks)


def labels_of(segment: Plan) -> list[str]:
    if segment.get("edges") is not None:
        return [*segment["labels"], "other"]
    return [text_of(value) for value in segment["values"]] + ["other"]


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def nearest(value: Fraction, most: int) -> tuple[int, int]:
    found = value.limit_denominator(most)
    return found.numerator, found.denominator


def centre(metric: Plan) -> tuple[int, int]:
    kind = metric["kind"]
    if kind == "paired_difference":
        return 0, 1
    if kind == "mean":
        low, high = number(metric["clip"]["from"]), number(metric["clip"]["to"])
        expect = (low + high) / 2 if metric["expect"] is None else number(metric["expect"])
        return round((expect - low) / (high - low) * 1000), 1
    if kind == "rate_per_hour":
        return nearest(number(metric["expect"]) / 60, 10_000)
    return nearest(number(metric["expect"]), 1000)


def excess_and_size(metric: Plan, n: int) -> tuple[int, int]:
    kind, (a, b) = metric["kind"], centre(metric)
    if kind == "rate":
        return n * max(a, b - a), n
    if kind == "paired_difference":
        return n, n
    if kind == "rate_per_hour":
        hours = metric["max_hours"]
        return hours * max(60 * a, b * metric["max_per_hour"]), 60 * hours
    if kind == "ratio":
        return n * max(b * metric["max_of"], a * metric["max_over"]), n * metric["max_over"]
    return n * max(a, 1000 - a), n


def rows_and_columns(metric: Plan) -> tuple[list[str], int]:
    if metric["kind"] == "confusion":
        return [*metric["labels"], "other"], len(metric["labels"]) + 1
    by = metric["by"]
    return ["all"] if by is None else DOMAINS[by], metric["edges"]["bins"]


def parts_of(plan: Plan, metric: Plan, grouping: list[str]) -> list[tuple[str, int, int, int, int, int]]:
    """(part, cells, L1, L2 squared, largest, weight), in order."""
    n, counters = plan["privacy"]["max_events"], plan["privacy"].get("counters")
    segments = [plan["segments"][name] for name in grouping]
    groups = prod(len(labels_of(s)) for s in segments)
    touch = prod(len(labels_of(s)) for s in segments if "event" in s)
    event = any("event" in s for s in segments)
    kind = metric["kind"]

    def one(part: str, cells: int, bound: int, weight: int) -> tuple[str, int, int, int, int, int]:
        return part, cells, bound, bound**2, bound, weight

    joint = counters == "joint"
    if kind in ("rate", "paired_difference", "rate_per_hour") and joint:
        return [("joint", 6 * groups, *joint_bounds(joint_of(metric, n, event), touch), 1)]
    units = metric["max_hours"] if kind == "rate_per_hour" else n
    m = min(touch, units)
    devices = ("devices", groups, m, m, m)
    if kind in ("rate", "paired_difference", "rate_per_hour", "ratio", "mean"):
        t, s = excess_and_size(metric, n)
        return [
            one("excess", groups, t, 24), one("size", groups, s, 5), (*devices, 2),
            one("excess_squared", groups, t**2, 4), one("excess_size", groups, t * s, 1),
            one("size_squared", groups, s**2, 1),
        ]  # fmt: skip
    if kind == "count":
        return [one("events", groups, n, 12), (*devices, 1), one("squares", groups, n**2, 2)]
    if kind in ("histogram", "confusion"):
        rows, columns = rows_and_columns(metric)
        cells = groups * len(rows) * columns
        if joint:
            return [("joint", 3 * cells, *share_bounds(n), 15), (*devices, 1)]
        by_row = groups * len(rows)
        return [
            one("cells", cells, n, 12), (*devices, 1), one("cell_squares", by_row, n**2, 2),
            one("row_squares", by_row, n**2, 1),
        ]  # fmt: skip
    if kind == "one_shot_means":
        return [("steps", 98 * groups, isqrt(97 * 4096**2) + 1024, 4096**2 + 1024**2, 4096, 1)]
    if kind == "norm_histogram":
        return [("bins", 28 * groups, 1, 1, 1, 1)]
    bins = metric["edges"]["bins"]
    fires, minutes, edges = metric["max_hours"] * metric["max_per_hour"], 60 * metric["max_hours"], bins - 1
    first = [
        one("positives", groups * bins, n, 6), one("negatives", groups * bins, fires, 6),
        one("minutes", groups, minutes, 2), (*devices[:2], min(touch, n), min(touch, n), min(touch, n), 1),
    ]  # fmt: skip
    last = [
        one("fire_minutes", groups * bins, fires * minutes, 1), one("minute_squares", groups, minutes**2, 1)
    ]  # fmt: skip
    if joint:
        return [
            *first,
            ("miss_squares", groups * edges, edges * n**2, edges * n**4, n**2, 1),
            one("miss_sizes", groups * bins, n**2, 1),
            ("fire_squares", groups * edges, edges * fires**2, edges * fires**4, fires**2, 1),
            *last,
        ]
    return [
        *first, one("miss_squares", groups, edges * n**2, 1), one("row_squares", groups, n**2, 1),
        one("fire_squares", groups, edges * fires**2, 1), *last,
    ]  # fmt: skip


def layout_of(plan: Plan) -> Layout:
    """Raises Refused where no ring holds the plan."""
    privacy = plan["privacy"]
    sets = [(name, tuple(g)) for name in sorted(plan["metrics"]) for g in plan["metrics"][name]["group_by"]]
    if privacy.get("shares") is None:
        shares = dict.fromkeys(sets, Fraction(1, len(sets)))
    else:
        named = {(s["metric"], frozenset(s["by"])): number(s["share"]) for s in privacy["shares"]}
        whole = sum(named[name, frozenset(g)] for name, g in sets)
        shares = {(name, g): named[name, frozenset(g)] / whole for name, g in sets}
    blocks: list[Block] = []
    for name, grouping in sets:
        parts = parts_of(plan, plan["metrics"][name], list(grouping))
        weights = sum(part[-1] for part in parts)
        for part, cells, l1, l2, linf, weight in parts:
            start = blocks[-1].start + blocks[-1].cells if blocks else 0
            cost = total_cost(plan) * shares[name, grouping] * weight / weights
            blocks.append(Block(name, grouping, part, start, cells, l1, l2, linf, cost))
    if any(2**62 <= b.l2_squared < b.l1**2 for b in blocks):
        raise Refused("LIMITS")
    if privacy.get("sum") == "two_aggregators":
        wider = 1 + sqrt(number(privacy["kappa"]))
        noise = [40 * (sqrt(b.variance("zcdp")) * wider + 2) for b in blocks]
        if max(100_000_000 * b.linf + tail for b, tail in zip(blocks, noise)) > 2**63 - 2**31:
            raise Refused("LIMITS")
        return Layout(tuple(blocks), 64)
    most = 0.0
    for b in blocks:
        v = b.variance(privacy["accounting"])
        s = max(0, ceil(log2(400_000 / v) / 2))
        most = max(most, (100_000 * b.linf + 40 * (sqrt(v) + 1)) * 2**s)
    if most >= 2**63:
        raise Refused("LIMITS")
    return Layout(tuple(blocks), 32 if most < 2**31 else 64)


# Noise


def shares_of(plan: Plan, layout: Layout, joined: int) -> tuple[int, list[tuple[int, Fraction]]]:
    """h, and for each block the factor and the variance of this device's share. Raises Refused."""
    f, gamma = number(plan["privacy"]["dropout"]), number(plan["privacy"]["corrupt"])
    h = ceil((1 - f) * joined) - ceil(gamma * joined)
    if h < 1:
        raise Refused("LIMITS")
    tau = 10 * (h - 1) * Fraction(71573, 10**22)  # e^(-4 pi^2), rounded up
    found = []
    for block in layout.blocks:
        left = 2 * block.cost - tau * block.cells / 2
        fitting = [] if left <= 0 else [2**e for e in range(21) if 4**e * block.l2_squared / (h * left) >= 4]
        if not fitting:
            raise Refused("LIMITS")
        factor = fitting[0]
        variance = Fraction(factor**2 * block.l2_squared) / (h * left)
        if joined * block.linf * factor + 40 * sqrt(joined * variance) >= 2 ** (layout.bits - 1):
            raise Refused("LIMITS")
        found.append((factor, variance))
    return h, found


def happens(gamma: Fraction) -> bool:
    """True with probability e^-gamma (Canonne, Kamath and Steinke 2020, algorithm 1)."""
    while gamma > 1:
        if not happens(Fraction(1)):
            return False
        gamma -= 1
    k = 1
    while randbelow(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def laplace(t: int) -> int:
    """Algorithm 2, of scale t."""
    while True:
        u = randbelow(t)
        if not happens(Fraction(u, t)):
            continue
        v = 0
        while happens(Fraction(1)):
            v += 1
        negative, size = randbelow(2), u + t * v
        if not (negative and size == 0):
            return -size if negative else size


def gaussian(variance: Fraction) -> int:
    """Algorithm 3."""
    variance = Fraction(ceil(variance * 2**40), 2**40)
    t = isqrt(floor(variance)) + 1
    while True:
        y = laplace(t)
        if happens((abs(y) - variance / t) ** 2 / (2 * variance)):
            return y


def sent(plan: Plan, layout: Layout, counts: list[int], joined: int) -> list[int]:
    """What a device adds to the sum, before it is masked."""
    if plan["privacy"]["noise"] == "central":
        for block in layout.blocks:
            spread = 40 * (sqrt(block.variance(plan["privacy"]["accounting"])) + 1)
            if joined * block.linf + spread >= 2 ** (layout.bits - 1):
                raise Refused("LIMITS")
        return counts
    _, shares = shares_of(plan, layout, joined)
    out = []
    for block, (factor, variance) in zip(layout.blocks, shares):
        cells = counts[block.start : block.start + block.cells]
        out += [factor * x + gaussian(variance) for x in cells]
    return out


def task_of(plan: Plan, layout: Layout, facts: tuple[bytes, int, int, bytes], proofs: list[bytes]) -> bytes:
    """The 141 bytes of a task. `facts`: release, attempt, until, population; `proofs`: note and charge."""
    from wire import canonical

    release, attempt, until, population = facts
    privacy = plan["privacy"]
    f, gamma = number(privacy["dropout"]), number(privacy["corrupt"])
    context = sha(until.to_bytes(8, "big") + b"".join(sha(each) for each in proofs))
    numbers = (f.numerator, f.denominator, gamma.numerator, gamma.denominator, privacy["min_cohort"])
    return (
        sha(canonical(plan)) + release + attempt.to_bytes(4, "little") + layout.length.to_bytes(4, "little")
        + bytes([layout.bits]) + b"".join(x.to_bytes(4, "little") for x in numbers) + context + population
    )  # fmt: skip
