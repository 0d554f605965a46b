"""From noisy sums to numbers with intervals, verdicts and comparisons."""

from fa_core.estimate.judge import gap, judge
from fa_core.estimate.read import LEVEL, estimate

__all__ = ["LEVEL", "estimate", "gap", "judge"]
