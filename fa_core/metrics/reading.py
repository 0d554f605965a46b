"""From bounds and points to numbers that may be shown: units, suppression and its reasons."""

from collections.abc import Sequence

from fa_core.arrays import np
from fa_core.metrics.kind import BoolArray, FloatArray, Numbers, Reading

Refusal = tuple[BoolArray, str]
"""Which numbers pass, and what to say of those that do not."""

Pair = tuple[FloatArray, FloatArray]


def shown_devices(devices: FloatArray, sd: float, min_cohort: int, of: str = "events") -> Refusal:
    """Return the suppression rule: the noisy count of devices with something to count, `of`, must reach the
    minimum cohort."""
    return devices >= min_cohort, f"fewer than {min_cohort} devices with {of} (noisy count, ± {sd:.0f})"


def anything(devices: FloatArray, sd: float, reading: Reading, of: str) -> Refusal:
    """Return the rule that says of everyone together that there was nothing to divide by: enough devices were
    counted, and their number with any `of` cannot be distinguished from none."""
    none = (devices < reading.min_cohort) & (devices <= 2.0 * sd)
    alone = len(devices) == 1 and reading.counted >= reading.min_cohort
    return ~(none & alone), (f"no {of} to divide by: of {reading.counted:,} devices counted, none had any")


def assemble(
    *,
    point: FloatArray,
    bounds: Pair,
    simultaneous: Pair,
    noise: Pair,
    denominator: FloatArray,
    noise_sd: FloatArray,
    display: tuple[float, float, float, float],
    refusals: Sequence[Refusal],
) -> Numbers:
    """Return the numbers in the units a person reads, suppressed where any rule says so.

    Args:
        point, bounds, simultaneous, noise: in the kind's own units, all of one shape.
        display: (offset, factor, low, high): shown = offset + factor·p, clipped to [low, high]; an
            interval that lies wholly outside it is suppressed. The noise's is kept inside the interval.
        refusals: rules in order; the first that fails gives the reason. They broadcast.
    """
    offset, factor, least, most = display

    def show(values: FloatArray) -> FloatArray:
        return offset + factor * values

    low, high = show(bounds[0]), show(bounds[1])
    with np.errstate(invalid="ignore"):
        inside = (high >= least) & (low <= most)
    rules = [*refusals, (inside, "the interval lies outside the possible range; the noise is too large")]
    reason = np.full(point.shape, "", dtype=object)
    for passes, text in rules:
        fails = ~np.broadcast_to(passes, point.shape) & (reason == "")
        reason[fails] = text
    suppressed = reason != ""

    def hide(values: FloatArray) -> FloatArray:
        return np.where(suppressed, np.nan, values)

    def clip(values: FloatArray) -> FloatArray:
        return hide(np.clip(show(values), least, most))

    return Numbers(
        estimate=clip(point),
        low=clip(bounds[0]),
        high=clip(bounds[1]),
        simultaneous_low=clip(simultaneous[0]),
        simultaneous_high=clip(simultaneous[1]),
        noise_low=clip(np.maximum(noise[0], bounds[0])),
        noise_high=clip(np.minimum(noise[1], bounds[1])),
        denominator=hide(denominator),
        noise_sd=hide(abs(factor) * noise_sd),
        suppressed=suppressed,
        reason=reason,
    )
