"""The three views of what a ledger cost agree in their order: tight, then zCDP, then the outer ceiling."""

from fractions import Fraction

import pytest

from fa_core.privacy.accounting import epsilon_for, rho_for
from fa_core.privacy.conversions import ceiling, gaussian_approximation

DELTA = Fraction(1, 10**8)


@pytest.mark.parametrize(
    "claims", [[1], [4], [Fraction(1, 2)] * 12, [1, 2, Fraction(1, 4), 3], [Fraction(1, 10)] * 40]
)
def test_tight_then_exact_then_ceiling(claims: list[Fraction]) -> None:
    rho = sum((rho_for(Fraction(epsilon), DELTA) for epsilon in claims), Fraction(0))
    epsilon, delta = ceiling([(Fraction(epsilon), DELTA) for epsilon in claims])
    exact = epsilon_for(rho, Fraction(delta))
    assert 0 < gaussian_approximation(rho, Fraction(delta)) < exact <= epsilon * (1 + 1e-6)
    assert delta <= len(claims) * float(DELTA) * (1 + 1e-9)


def test_the_ceiling_of_pure_releases_is_their_sum() -> None:
    assert ceiling([(Fraction(1, 4), Fraction(0))] * 6) == (1.5, 0.0)


def test_the_order_breaks_where_a_cost_is_understated() -> None:
    """The broken control: half the rho that was spent falls below the tight figure of all of it."""
    rho = rho_for(Fraction(1), DELTA)
    assert epsilon_for(rho / 2, DELTA) < gaussian_approximation(rho, DELTA)


def test_nothing_spent_has_no_epsilon() -> None:
    with pytest.raises(ValueError, match="above 0"):
        gaussian_approximation(Fraction(0), DELTA)
