"""What a ledger's cost comes to as (epsilon, delta), in two views beside the exact one.

The ledger enforces zCDP in exact rationals, and `accounting.epsilon_for` says what that implies. Beside it
stand a tighter figure, which takes the discrete Gaussian for the continuous one, and an outer ceiling, which
knows nothing but what each release claimed. Both are shown; neither is ever enforced.

The two libraries take a second or more to import, so each is loaded when it is asked for.
"""

import math
from collections.abc import Iterable
from fractions import Fraction


def gaussian_approximation(rho: Fraction, delta: Fraction) -> float:
    """Return the epsilon of Gaussian noise that costs rho, by its privacy loss distribution (dp-accounting).

    Many Gaussian blocks are as private together as one with sensitivity 1 and variance 1/(2 rho) (Dong, Roth
    and Su 2022, corollary 3.3). The noise that is really added is discrete, so this is an approximation.
    Raises ValueError unless rho > 0 and 0 < delta < 1.
    """
    if rho <= 0 or not 0 < delta < 1:
        raise ValueError("expected rho above 0 and delta between 0 and 1")
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(1 / math.sqrt(2 * rho)))
    return float(accountant.get_epsilon(float(delta)))


def ceiling(claims: Iterable[tuple[Fraction, Fraction]]) -> tuple[float, float]:
    """Return the (epsilon, delta) that releases with these claims compose to, by basic composition
    (diffprivlib's BudgetAccountant without slack)."""
    from diffprivlib.accountant import BudgetAccountant

    accountant = BudgetAccountant()
    for epsilon, delta in claims:
        accountant.spend(float(epsilon), float(delta))
    total = accountant.total()
    return float(total[0]), float(total[1])
