"""From noisy sums to numbers with intervals, verdicts and comparisons."""

from fa_core.estimate.judge import gap, judge
from fa_core.estimate.read import LEVEL, estimands, estimate

__all__ = ["LEVEL", "estimands", "estimate", "gap", "judge"]
