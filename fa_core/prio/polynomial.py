"""Polynomials by their values at roots of unity, many at once: the last axis runs over the points.

A polynomial of degree below n is given by its values at the powers 0 to n - 1 of the principal n-th root of
unity. Source: draft-irtf-cfrg-vdaf, section 6.1.3 (the Lagrange basis).
"""

import numpy as np

from fa_core.prio.field import Array, Field


def next_power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def evaluations(field: Field, coefficients: Array) -> Array:
    """(..., n) coefficients, constant first, to the values at the n-th roots of unity; n a power of two."""
    n = coefficients.shape[-1]
    if n == 1:
        return coefficients
    halves = evaluations(field, np.stack((coefficients[..., ::2], coefficients[..., 1::2])))
    even, odd = halves[0], field.multiply(halves[1], field.root_powers(n)[: n // 2])
    return np.concatenate((field.add(even, odd), field.subtract(even, odd)), axis=-1)


def interpolate(field: Field, values: Array) -> Array:
    """(..., n) values at the n-th roots of unity to coefficients: the inverse of `evaluations`."""
    n = values.shape[-1]
    backwards = evaluations(field, values)[..., -np.arange(n) % n]
    return field.multiply(backwards, field.scalar(field.inverse(n)))


def between(field: Field, values: Array) -> Array:
    """(..., n): the values at the odd powers of the principal 2n-th root, from those at its even powers."""
    n = values.shape[-1]
    return evaluations(field, field.multiply(interpolate(field, values), field.root_powers(2 * n)[:n]))


def lagrange(field: Field, t: Array, n: int) -> Array:
    """(..., n): what each value at an n-th root of unity weighs in the polynomial's value at `t`.

    The weight of the root x is (1/n) sum over l < n of (t/x)^l, which is a product of 1 + (t/x)^(n/2),
    1 + (t/x)^(n/4), ..., 1 + t/x. No division, so every t is allowed.
    """
    squares = [t]
    while 1 << len(squares) < n:
        squares.append(field.multiply(squares[-1], squares[-1]))
    weights = field.add(field.zeros((*t.shape, 1)), field.scalar(field.inverse(n)))
    one, width = field.scalar(1), 1
    for power in reversed(squares[: n.bit_length() - 1]):
        # The weights so far depend on the root's index modulo `width` only, the next factor modulo twice
        # that.
        half = field.multiply(power[..., None], _inverse_powers(field, 2 * width)[:width])
        weights = np.concatenate(
            (
                field.multiply(weights, field.add(half, one)),
                field.multiply(weights, field.subtract(one, half)),
            ),
            axis=-1,
        )
        width *= 2
    return weights


def _inverse_powers(field: Field, n: int) -> Array:
    """(n,): the powers 0 to n - 1 of the inverse of the principal n-th root of unity."""
    return field.root_powers(n)[-np.arange(n) % n]


def lagrange_of_low_degree(field: Field, t: Array, n: int) -> tuple[Array, Array]:
    """(..., n/2) and (..., n - 1): the weights of n/2 and of n - 1 values, both at `t`.

    The first as `lagrange` for the n/2-th roots. The second for a polynomial of degree at most n - 2, given
    at all n-th roots but the last: its top coefficient is 0, so the value that is not given is -1/x times the
    sum of x_i times the value at x_i, x the last root.
    """
    half, full = lagrange(field, t, n // 2), lagrange(field, t, n)
    roots = field.root_powers(n)
    ratio = field.multiply(roots[:-1], roots[1])  # x_i / x_(n-1), as x_(n-1) is the inverse of x_1
    given = field.subtract(full[..., :-1], field.multiply(full[..., -1:], ratio))
    return half, given
