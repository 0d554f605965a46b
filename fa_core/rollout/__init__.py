"""Rollouts: the document, the sequential gate, and the states from the test set to the whole fleet."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fa_core.trust.grants import Evidence, Term


def recompute_gate(evidence: "Evidence") -> "Term":
    """Compute a gate again, for a witness, and return how long its grants may last. Raises Refused where the
    stage does not follow from it."""
    # Imported here: a witness grants few stages, and should not wait for the estimators to sign a roster.
    from fa_core.rollout.evidence import recompute
    from fa_core.rollout.judging import Gate

    return recompute(evidence, Gate())


def recompute_simulated_gate(evidence: "Evidence") -> "Term":
    """As `recompute_gate`, but simulated releases count, and those without a roster: of engine `tables`."""
    from fa_core.rollout.evidence import recompute
    from fa_core.rollout.judging import Gate

    return recompute(evidence, Gate(), allow_simulated=True)
