"""From rho to (epsilon, delta) in exact rationals, so that every party decides alike and no float is trusted.

A plan claims (epsilon, delta) and carries the rho that it is charged and one alpha > 1 that shows why:

    rho-zCDP implies (epsilon, delta)-DP for delta = exp((α−1)(αρ−ε)) / (α−1) · (1 − 1/α)^α

(Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential Privacy", Proposition 12 for a Rényi
divergence of αρ, which is Corollary 13 at one α). With a = α − 1 and after taking logarithms that is

    ρ ≤ (ε + ln(α/a) + (ln α − ln(1/δ)) / a) / α,

where every logarithm is of a rational number of at least 1. Each is rounded to a multiple of 2^-BITS, up or
down so that rho becomes smaller: a rho that `implies` accepts is never too large. docs/protocol.md describes
the same arithmetic for an implementation in another language.
"""

from fractions import Fraction
from functools import cache
from typing import Final

BITS: Final = 128
"""Logarithms are kept as whole multiples of 2^-BITS."""

TERMS: Final = 42
"""Terms of the series; what is left out is below 9^-42 < 2^-133."""

SIZE: Final = 256
"""Longest numerator and denominator that is looked at, in bits. Every decimal number of a plan has fewer."""

ALPHA_DIGITS: Final = 7
"""Significant digits of α − 1 in `conversion`."""

RHO_DIGITS: Final = 12
"""Significant digits of rho in `conversion`, so the last one is worth at most 1e-11 of it."""

LEAST_ORDER, MOST_ORDER = -6, 12
"""`conversion` looks for α − 1 from 10^LEAST_ORDER to 10^MOST_ORDER."""

LEAST_RHO: Final = Fraction(1, 10**18)
"""`conversion` finds no smaller rho: noise of a standard deviation above 10^8 leaves nothing to see."""


def implies(rho: Fraction, alpha: Fraction, epsilon: Fraction, delta: Fraction) -> bool:
    """Return whether rho-zCDP is shown at `alpha` to imply (epsilon, delta)-DP.

    Takes any rationals and never raises: False where a number is out of range (rho > 0, alpha > 1,
    epsilon > 0, 0 < delta < 1) or has a numerator or a denominator of more than `SIZE` bits. Takes below a
    millisecond.

    >>> implies(Fraction("0.0172053180393"), Fraction("30.52864"), Fraction(1), Fraction(1, 10**8))
    True
    >>> implies(Fraction("0.0172053180394"), Fraction("30.52864"), Fraction(1), Fraction(1, 10**8))
    False
    """
    numbers = (rho, alpha, epsilon, delta)
    if not all(map(_is_short, numbers)):
        return False
    if not (rho > 0 and alpha > 1 and epsilon > 0 and 0 < delta < 1):
        return False
    return rho <= largest_rho(alpha, epsilon, delta)


def largest_rho(alpha: Fraction, epsilon: Fraction, delta: Fraction) -> Fraction:
    """Return the largest rho that implies (epsilon, delta)-DP at `alpha`, rounded down by below 2^-100·α/a;
    0 or less where none does. Asks for alpha > 1, epsilon > 0 and 0 < delta < 1."""
    a = alpha - 1
    order_less_chance = log(alpha, up=False) - log(1 / delta, up=True)
    return (epsilon + log(alpha / a, up=False) + order_less_chance / a) / alpha


def conversion(epsilon: Fraction, delta: Fraction) -> tuple[Fraction, Fraction] | None:
    """Return (rho, alpha): nearly the best alpha, and the largest rho of `RHO_DIGITS` digits that it shows.

    Both are decimals, found by integer arithmetic alone and so the same everywhere. rho is never above what
    the best of all alphas gives, and below it by less than 1e-10 of it. None where that is below `LEAST_RHO`,
    where the best alpha is out of reach, or where epsilon or delta has more than `SIZE` bits. Takes a few
    milliseconds.

    Raises ValueError unless epsilon > 0 and 0 < delta < 1.

    >>> conversion(Fraction(1), Fraction(1, 10**8))
    (Fraction(172053180393, 10000000000000), Fraction(95402, 3125))
    """
    if epsilon <= 0 or not 0 < delta < 1:
        raise ValueError("expected epsilon above 0 and delta between 0 and 1")
    if not all(map(_is_short, (epsilon, delta))):
        return None
    chance = log(1 / delta, up=False)

    def rises(a: Fraction) -> bool:
        """Say whether rho still grows with alpha: its derivative is first above 0, then below."""
        left = (1 + 2 * a) * (chance - log(1 + a, up=False))
        return left > a * a * (epsilon + log(1 + 1 / a, up=False))

    orders = range(LEAST_ORDER, MOST_ORDER + 1)
    order = next((each for each in reversed(orders) if rises(Fraction(10) ** each)), None)
    if order is None or order == MOST_ORDER:
        return None
    unit = Fraction(10) ** (order + 1 - ALPHA_DIGITS)
    low, high = 10 ** (ALPHA_DIGITS - 1), 10**ALPHA_DIGITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rises(middle * unit) else (low, middle)
    alpha = 1 + low * unit
    rho = _cut(largest_rho(alpha, epsilon, delta))
    return (rho, alpha) if rho >= LEAST_RHO else None


def log(x: Fraction, *, up: bool) -> Fraction:
    """Return ln x for x ≥ 1 as a multiple of 2^-BITS, rounded up or down.

    By less than 2^-(BITS − 18) where numerator and denominator of x have at most 2·SIZE bits. x is 2^k·y with
    1 ≤ y < 2; ln x = k·ln 2 + ln y, ln y = 2·artanh((y − 1)/(y + 1)) and ln 2 = 2·artanh(1/3).
    """
    top, bottom = x.numerator, x.denominator
    k = top.bit_length() - bottom.bit_length()
    if top < bottom << k:
        k -= 1
    bottom <<= k
    rest = _twice_artanh(top - bottom, top + bottom, up=up)
    return Fraction(k * _log_of_two(up=up) + rest, 1 << BITS)


@cache
def _log_of_two(*, up: bool) -> int:
    return _twice_artanh(1, 3, up=up)


def _twice_artanh(top: int, bottom: int, *, up: bool) -> int:
    """Return 2·artanh(z)·2^BITS for z = top/bottom, 0 ≤ z ≤ 1/3, rounded up or down in every step.

    artanh z = Σ z^(2i+1)/(2i+1). All terms are positive, so leaving the rest out rounds down; the rest is at
    most z^(2·TERMS+1)·(9/8)/(2·TERMS+1), below the first power left out, which rounds up.
    """

    def divide(value: int, by: int) -> int:
        return -(-value // by) if up else value // by

    power = divide(top << BITS, bottom)
    square = divide(power * power, 1 << BITS)
    total = 0
    for i in range(TERMS):
        total += divide(power, 2 * i + 1)
        power = divide(power * square, 1 << BITS)
    return 2 * (total + power) if up else 2 * total


def _is_short(value: Fraction) -> bool:
    return max(abs(value.numerator), value.denominator).bit_length() <= SIZE


def _cut(value: Fraction) -> Fraction:
    """Return a number below 10^RHO_DIGITS rounded down to `RHO_DIGITS` significant decimal digits; 0 for less
    than `LEAST_RHO`."""
    if value < LEAST_RHO:
        return Fraction(0)
    scale = 1
    while value * scale < 10 ** (RHO_DIGITS - 1):
        scale *= 10
    return Fraction(value * scale // 1, scale)
