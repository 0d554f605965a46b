"""rho in exact rationals: against 60 digits, at its very border, and against a reader that rounds inward."""

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_core.privacy import zcdp
from fa_core.privacy.accounting import epsilon_for, rho_for
from fa_core.privacy.zcdp import SIZE, conversion, implies, largest_rho, log
from tests.privacy import make_rho_vectors

quick = settings(max_examples=60, deadline=None, derandomize=True)
epsilons = st.fractions(Fraction(1, 10**6), 100, max_denominator=10**6)
deltas = st.fractions(Fraction(1, 10**18), Fraction(1, 2), max_denominator=10**18).filter(lambda d: d > 0)
alphas = (
    st.fractions(Fraction(1, 10**6), 10**6, max_denominator=10**6)
    .map(lambda a: 1 + a)
    .filter(lambda a: a > 1)
)
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(make_rho_vectors.FILE.read_text())


def real(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator


def delta_of(rho: mpmath.mpf, alpha: mpmath.mpf, epsilon: Fraction) -> mpmath.mpf:
    """Canonne, Kamath & Steinke's Corollary 13 at one alpha, as it is printed."""
    exponent = (alpha - 1) * (alpha * rho - real(epsilon))
    return mpmath.exp(exponent) / (alpha - 1) * (1 - 1 / alpha) ** alpha


def border(alpha: mpmath.mpf, epsilon: Fraction, delta: Fraction) -> mpmath.mpf:
    """The rho at which that formula gives delta: its logarithm is linear in rho."""
    rest = mpmath.log(real(delta)) + mpmath.log(alpha - 1) - alpha * mpmath.log(1 - 1 / alpha)
    return (real(epsilon) + rest / (alpha - 1)) / alpha


def best(epsilon: Fraction, delta: Fraction) -> mpmath.mpf:
    """The largest border over all alpha: by a coarse look everywhere, and a fine one round the best."""

    def at(order: mpmath.mpf) -> mpmath.mpf:
        return border(1 + mpmath.exp(order), epsilon, delta)

    middle = max((mpmath.mpf(step) / 2 for step in range(-27, 56)), key=at)
    low, high = middle - mpmath.mpf(1) / 2, middle + mpmath.mpf(1) / 2
    for _ in range(50):
        third = (high - low) / 3
        low, high = (low + third, high) if at(low + third) < at(high - third) else (low, high - third)
    return at((low + high) / 2)


def rational(value: mpmath.mpf) -> Fraction:
    """A number to 40 digits after the point, short enough for `implies`."""
    return Fraction(int(mpmath.floor(value * mpmath.mpf(10) ** 40)), 10**40)


# The logarithm


def enclosure(x: Fraction) -> None:
    with mpmath.workdps(80):
        down, up, true = real(log(x, up=False)), real(log(x, up=True)), mpmath.log(real(x))
        assert down <= true <= up
        assert up - down < mpmath.mpf(2) ** -110


@quick
@given(x=st.fractions(1, 10**70) | st.fractions(0, 1, max_denominator=10**70).map(lambda part: 1 + part))
def test_a_logarithm_lies_between_its_two_ends(x: Fraction) -> None:
    enclosure(x)


@pytest.mark.parametrize(
    "x",
    [
        Fraction(1),
        Fraction(2),
        Fraction(2**128 - 1, 2**127),
        1 + Fraction(1, 2**SIZE),
        Fraction(2**SIZE),
        Fraction(2**SIZE - 1, 3),
    ],
)
def test_a_logarithm_at_its_edges(x: Fraction) -> None:
    enclosure(x)


@pytest.mark.parametrize("turn", [lambda up: not up, lambda up: True, lambda up: False])
def test_a_logarithm_rounded_the_wrong_way_is_caught(
    monkeypatch: pytest.MonkeyPatch, turn: Callable[[bool], bool]
) -> None:
    sound = zcdp._twice_artanh
    monkeypatch.setattr(zcdp, "_twice_artanh", lambda top, bottom, *, up: sound(top, bottom, up=turn(up)))
    with pytest.raises(AssertionError):
        enclosure(Fraction(3, 2))


def test_a_series_without_its_rest_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short series is still sound, since a bound on its rest is added where that rounds up."""
    monkeypatch.setattr(zcdp, "TERMS", 6)
    with mpmath.workdps(80):
        assert (
            real(log(Fraction(3, 2), up=False))
            < mpmath.log(mpmath.mpf(3) / 2)
            < real(log(Fraction(3, 2), up=True))
        )
    sound = zcdp._twice_artanh
    monkeypatch.setattr(zcdp, "_twice_artanh", lambda top, bottom, *, up: sound(top, bottom, up=False))
    with mpmath.workdps(80):
        assert real(log(Fraction(3, 2), up=True)) < mpmath.log(mpmath.mpf(3) / 2)


# The verdict


@quick
@given(alpha=alphas, epsilon=epsilons, delta=deltas)
def test_the_verdict_is_right_on_both_sides_of_the_border(
    alpha: Fraction, epsilon: Fraction, delta: Fraction
) -> None:
    """To 30 digits: what is above is refused; what is below is taken, and keeps its delta as printed."""
    with mpmath.workdps(60):
        edge = border(real(alpha), epsilon, delta)
        nudge = mpmath.mpf(10) ** -30 * (1 + 1 / real(alpha - 1))
        below, above = rational(edge - nudge), rational(edge + nudge)
        assert not implies(above, alpha, epsilon, delta)
        assert implies(below, alpha, epsilon, delta) == (below > 0)
        if below > 0:
            assert delta_of(real(below), real(alpha), epsilon) <= real(delta)


Reader = Callable[[Fraction, Fraction, Fraction], Fraction]


def overstated(reader: Reader) -> list[tuple[Fraction, Fraction]]:
    """The published (epsilon, delta) for which a reader finds a larger rho than 60 digits do."""
    found = []
    for each in VECTORS["conversions"]:
        alpha, epsilon, delta = (Fraction(each[name]) for name in ("alpha", "epsilon", "delta"))
        with mpmath.workdps(60):
            if real(reader(alpha, epsilon, delta)) > border(real(alpha), epsilon, delta):
                found.append((epsilon, delta))
    return found


def test_rounding_inward_is_caught_and_rounding_outward_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 128 bits as at 24, where every verdict near the border hangs on the direction."""
    assert not overstated(largest_rho)
    sound = log
    for bits in (128, 24):
        zcdp._log_of_two.cache_clear()
        monkeypatch.setattr(zcdp, "BITS", bits)
        monkeypatch.setattr(zcdp, "log", sound)
        assert not overstated(largest_rho)
        monkeypatch.setattr(zcdp, "log", lambda x, *, up: sound(x, up=not up))
        assert len(overstated(largest_rho)) > 50
    zcdp._log_of_two.cache_clear()


@pytest.mark.parametrize(
    "numbers",
    [
        {"rho": Fraction(0)},
        {"rho": Fraction(-1)},
        {"alpha": Fraction(1)},
        {"alpha": Fraction(-30)},
        {"epsilon": Fraction(0)},
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"delta": Fraction(-1, 10**8)},
        {"rho": Fraction(1, 2**SIZE)},
        {"rho": Fraction(2**SIZE)},
        {"alpha": 1 + Fraction(1, 10**4000)},
        {"alpha": Fraction(10**4000)},
        {"epsilon": Fraction(10**4000)},
        {"delta": Fraction(1, 10**4000)},
    ],
    ids=str,
)
def test_numbers_out_of_range_imply_nothing(numbers: dict[str, Fraction]) -> None:
    good = {
        "rho": Fraction("0.0172"),
        "alpha": Fraction("30.5"),
        "epsilon": Fraction(1),
        "delta": Fraction(1, 10**8),
    }
    assert implies(**good)
    assert not implies(**(good | numbers))


@quick
@given(numbers=st.tuples(*[st.fractions(-(2**SIZE), 2**SIZE, max_denominator=2**SIZE)] * 4))
def test_any_numbers_get_a_verdict(numbers: tuple[Fraction, Fraction, Fraction, Fraction]) -> None:
    assert implies(*numbers) in (True, False)


# The rho that a plan gets


@quick
@given(epsilon=epsilons, delta=deltas)
def test_a_conversion_is_never_above_the_best_and_hardly_below(epsilon: Fraction, delta: Fraction) -> None:
    found = conversion(epsilon, delta)
    if found is None:
        assert rho_for(epsilon, delta) < Fraction(2, 10**18)
        return
    rho, alpha = found
    assert implies(rho, alpha, epsilon, delta)
    with mpmath.workdps(40):
        most = best(epsilon, delta)
        assert most * (1 - mpmath.mpf(10) ** -10) < real(rho) <= most


@quick
@given(epsilon=epsilons, delta=deltas)
def test_the_rule_of_before_is_never_above_it(epsilon: Fraction, delta: Fraction) -> None:
    """So a plan of before, too, is charged a rho that some alpha shows to imply what it states."""
    found = conversion(epsilon, delta)
    assert rho_for(epsilon, delta) <= (found[0] if found else Fraction(1, 10**18))


@pytest.mark.parametrize("vector", VECTORS["conversions"], ids=lambda v: f"{v['epsilon']}, {v['delta']}")
def test_one_grid_step_more_is_refused(vector: dict[str, str]) -> None:
    rho, alpha, epsilon, delta = (Fraction(vector[name]) for name in ("rho", "alpha", "epsilon", "delta"))
    places = len(vector["rho"].partition(".")[2])
    digits = len(vector["rho"].replace(".", "").lstrip("0"))
    step = Fraction(1, 10 ** (places + 12 - digits))
    assert implies(rho, alpha, epsilon, delta)
    assert not implies(rho + step, alpha, epsilon, delta)
    assert step <= rho / 10**11


def test_the_other_conversion_agrees() -> None:
    """`epsilon_for` finds, for the rho that a plan gets, the epsilon that the plan states."""
    for vector in VECTORS["conversions"]:
        epsilon = float(vector["epsilon"])
        assert epsilon_for(Fraction(vector["rho"]), Fraction(vector["delta"])) == pytest.approx(
            epsilon, rel=2e-6
        )


@pytest.mark.parametrize("delta", ["1e-18", "1e-8", "0.4"])
@pytest.mark.parametrize("epsilon", ["1e-18", "1e-12"])
def test_too_little_is_no_rho(epsilon: str, delta: str) -> None:
    found = conversion(Fraction(epsilon), Fraction(delta))
    assert found is None or found[0] >= Fraction(1, 10**18)


def test_numbers_too_long_to_look_at_have_no_rho() -> None:
    assert conversion(1 + Fraction(1, 2**SIZE), Fraction(1, 10**8)) is None
    assert conversion(Fraction(1), Fraction(1, 2**SIZE)) is None


@pytest.mark.parametrize(("epsilon", "delta"), [(0, "1e-8"), (-1, "1e-8"), (1, "0"), (1, "1")])
def test_nonsense_is_refused(epsilon: int, delta: str) -> None:
    with pytest.raises(ValueError, match="epsilon above 0"):
        conversion(Fraction(epsilon), Fraction(delta))


# The published vectors


def test_the_package_makes_the_published_file() -> None:
    assert make_rho_vectors.FILE.read_text() == make_rho_vectors.text()


def test_the_published_numbers_are_those_of_sixty_digits() -> None:
    with mpmath.workdps(60):
        for each in VECTORS["logarithms"]:
            true = mpmath.log(real(Fraction(each["x"]))) * mpmath.mpf(2) ** 128
            assert int(each["down"]) <= true <= int(each["up"])
        for each in VECTORS["conversions"]:
            rho, alpha, epsilon, delta = (
                Fraction(each[name]) for name in ("rho", "alpha", "epsilon", "delta")
            )
            assert delta_of(real(rho), real(alpha), epsilon) <= real(delta)


def page_log(x: Fraction, up: bool) -> int:
    """LN of docs/protocol.md, as the page says it."""

    def divide(value: int, by: int) -> int:
        return -((-value) // by) if up else value // by

    def a(u: int, v: int) -> int:
        w = divide(u * 2**128, v)
        s = divide(w * w, 2**128)
        t = 0
        for i in range(42):
            t, w = t + divide(w, 2 * i + 1), divide(w * s, 2**128)
        return 2 * (t + w) if up else 2 * t

    k = 0
    while 2 ** (k + 1) <= x:
        k += 1
    p, q = (x / 2**k).as_integer_ratio()
    return k * a(1, 3) + a(p - q, p + q)


def page_bound(alpha: Fraction, epsilon: Fraction, delta: Fraction) -> Fraction:
    a = alpha - 1
    near, order = (Fraction(page_log(x, False), 2**128) for x in (alpha / a, alpha))
    chance = Fraction(page_log(1 / delta, True), 2**128)
    return (epsilon + near + (order - chance) / a) / alpha


def page_plan(epsilon: Fraction, delta: Fraction) -> tuple[Fraction, Fraction]:
    """alpha and rho as docs/protocol.md has whoever makes a plan find them."""
    chance = Fraction(page_log(1 / delta, False), 2**128)

    def rises(a: Fraction) -> bool:
        order, near = (Fraction(page_log(x, False), 2**128) for x in (1 + a, 1 + 1 / a))
        return (1 + 2 * a) * (chance - order) > a**2 * (epsilon + near)

    e = max(e for e in range(-6, 12) if rises(Fraction(10) ** e))
    low, high = 10**6, 10**7
    while high - low > 1:
        m = (low + high) // 2
        low, high = (m, high) if rises(m * Fraction(10) ** (e - 6)) else (low, m)
    alpha = 1 + low * Fraction(10) ** (e - 6)
    bound = page_bound(alpha, epsilon, delta)
    places = next(n for n in range(40) if bound * 10**n >= 10**11)
    return alpha, Fraction(int(bound * 10**places), 10**places)


def test_the_page_alone_gives_the_published_numbers_to_the_last_bit() -> None:
    """A second implementation, from docs/protocol.md."""
    for each in VECTORS["logarithms"]:
        assert [page_log(Fraction(each["x"]), up) for up in (False, True)] == [
            int(each["down"]),
            int(each["up"]),
        ]
    for each in VECTORS["conversions"][::7]:
        rho, alpha, epsilon, delta = (Fraction(each[name]) for name in ("rho", "alpha", "epsilon", "delta"))
        assert page_plan(epsilon, delta) == (alpha, rho)
    for each in VECTORS["verdicts"]:
        rho, alpha, epsilon, delta = (Fraction(each[name]) for name in ("rho", "alpha", "epsilon", "delta"))
        short = all(max(abs(n.numerator), n.denominator) < 2**256 for n in (rho, alpha, epsilon, delta))
        in_range = short and rho > 0 and alpha > 1 and epsilon > 0 and 0 < delta < 1
        assert each["implies"] == (in_range and rho <= page_bound(alpha, epsilon, delta))
