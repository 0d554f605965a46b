"""The rho of a plan: worked out once, when its file is checked, then carried by the plan and verified by all.

Under zCDP a plan states (epsilon, delta), and what it is charged is a rho. Two programs that work rho out
with floats do not agree to the last bit, and the vector, the noise and the charge all follow from it. So the
canonical plan holds `rho`, and with it the `alpha` at which anybody can verify, in exact rationals, that it
implies what the plan states (`fa_core.privacy.zcdp`).
"""

from fractions import Fraction

from fa_core.errors import BadInput
from fa_core.metrics import exact_text
from fa_core.plan.located import Finding
from fa_core.plan.schema import Privacy
from fa_core.privacy.accounting import rho_for
from fa_core.privacy.zcdp import conversion, implies


class UnsupportedRho(BadInput):
    """A plan carries a rho that is not shown to imply its epsilon and delta."""


def with_rho(privacy: Privacy) -> Privacy | None:
    """Return the section with `rho` and `alpha`: as they stand, or else worked out.

    Unchanged where accounting is pure. None where no rho is large enough to use.
    """
    if privacy.accounting == "pure" or privacy.rho is not None:
        return privacy
    found = conversion(privacy.epsilon, privacy.delta)
    return (
        None if found is None else privacy.model_copy(update=dict(zip(("rho", "alpha"), found, strict=True)))
    )


def unsupported(privacy: Privacy) -> Finding | None:
    """Return what is wrong with the rho that a plan carries, None where it implies epsilon and delta.

    A zCDP plan of before it was carried has neither `rho` nor `alpha`, and so has a pure one.
    """
    rho, alpha = privacy.rho, privacy.alpha
    if rho is None and alpha is None:
        return None
    right = "leave `rho` and `alpha` out: they follow from epsilon and delta"
    at = ("privacy", "alpha" if rho is None else "rho")
    if privacy.accounting == "pure":
        return Finding(
            at, "a plan with pure accounting is charged epsilon and has no rho", right, at_key=True
        )
    if rho is None or alpha is None:
        return Finding(at, "one of `rho` and `alpha` is missing", right, at_key=True)
    if not implies(rho, alpha, privacy.epsilon, privacy.delta):
        stated = f"epsilon {exact_text(privacy.epsilon)} and delta {exact_text(privacy.delta)}"
        return Finding(at, f"this rho is not shown by `alpha` to imply {stated}", right)
    return None


def rho_of(privacy: Privacy) -> Fraction:
    """Return what one release costs each device under zCDP: the rho that the plan carries.

    One of before it was carried costs what the rule of then says (`accounting.rho_for`), which is 0 where
    epsilon is too small. Raises UnsupportedRho where rho is not shown to imply epsilon and delta.
    """
    found = unsupported(privacy)
    if found is not None:
        raise UnsupportedRho(f"privacy.rho: {found.found}; {found.right}")
    return rho_for(privacy.epsilon, privacy.delta) if privacy.rho is None else privacy.rho
