"""Who was counted, beside who could have been: from noisy device counters and public shares, pure.

The counters are those of the release, so this costs nothing more. What they are held against is public: the
share of registered or invited devices with each fact, from a registry or a survey, never from devices.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod, sqrt

from fa_core.errors import BadInput
from fa_core.estimate.read import LEVEL
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.plan import Plan, from_canonical
from fa_core.plan.schema import OTHER
from fa_core.values import Block, FloatArray, Release

Shares = Mapping[str, Mapping[str, float]]
"""Public share of devices by segment and label."""

ROUNDING = 1e-6
"""How far public shares may add up past 1."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The devices of one label among those that had something to count.

    Attributes:
        devices, devices_sd: noisy number, and the privacy noise on it.
        share, low, high: of all labels of the segment; the intervals hold at `LEVEL` for all labels together
            and cover privacy noise and the chance of who took part. None where noise hides the total.
        reference: public share of the label, None without a registry.
        under: whether the label is significantly rarer among the counted than in the registry.
    """

    segment: str
    label: str
    devices: float
    devices_sd: float
    share: float | None
    low: float | None
    high: float | None
    reference: float | None
    under: bool

    @property
    def sentence(self) -> str:
        """What a person is warned of; "" where there is nothing to warn of."""
        if not self.under or self.share is None or self.reference is None:
            return ""
        return (
            f"{self.segment} {self.label} is under-represented: about {self.share:.1%} of the devices "
            f"counted (at most {self.high:.1%}), {self.reference:.1%} of those registered"
        )


def coverage(release: Release, registry: Shares | None = None) -> tuple[Counted, ...]:
    """Return who was counted, for each segment of device facts, label by label.

    Args:
        registry: public shares. `other` gets the rest where every other label has a share; a label without
            one is held against nothing.

    Raises:
        BadInput: where the registry names a segment or a label that the release does not have.
    """
    plan = from_canonical(release.plan)
    found = {name: best for name in plan.segments if (best := _marginal(plan, release, name)) is not None}
    references = {
        name: _reference(name, shares, plan.segments[name].labels)
        for name, shares in (registry or {}).items()
        if _known(name, found, plan)
    }
    cells = sum(len(values) for values, _ in found.values())
    z = normal_quantile(simultaneous_level(LEVEL, cells))
    return tuple(
        counted
        for name, (values, variance) in found.items()
        for counted in _segment(name, plan.segments[name].labels, values, variance, references.get(name), z)
    )


def read_registry(data: bytes, name: str) -> Shares:
    """Return the public shares in a JSON object {segment: {label: share}} or a CSV of segment,label,share.

    Raises BadInput, naming the file, for anything else.
    """
    try:
        shares = _from_json(data) if data.lstrip()[:1] == b"{" else _from_csv(data)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, csv.Error):
        raise BadInput(
            f'{name} is no registry: give JSON like {{"accent": {{"en-US": 0.6}}}}, or CSV with the columns '
            "segment,label,share"
        ) from None
    for segment, labels in shares.items():
        if any(not 0 <= share <= 1 for share in labels.values()) or sum(labels.values()) > 1 + ROUNDING:
            raise BadInput(f"{name}: the shares of {segment} must each be 0 to 1, and at most 1 together")
    return shares


def _from_json(data: bytes) -> Shares:
    return {
        segment: {str(label): float(share) for label, share in labels.items()}
        for segment, labels in json.loads(data).items()
    }


def _from_csv(data: bytes) -> Shares:
    shares: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO(data.decode())):
        shares.setdefault(row["segment"], {})[row["label"]] = float(row["share"])
    if not shares:
        raise ValueError("no row")
    return shares


def _known(name: str, found: Mapping[str, object], plan: Plan) -> bool:
    if name not in found:
        facts = ", ".join(found) or "no device fact"
        raise BadInput(
            f"the registry names {name}; release of {plan.metadata.name} counts devices by {facts}"
        )
    return True


def _reference(segment: str, shares: Mapping[str, float], labels: tuple[str, ...]) -> dict[str, float]:
    strange = sorted(set(shares) - set(labels))
    if strange:
        raise BadInput(
            f"the registry names {segment} {', '.join(strange)}, which the plan counts as {OTHER}; "
            f"give the share of {OTHER} instead"
        )
    named = set(labels) - {OTHER}
    # Where a label is left out, what remains is not the share of `other` alone.
    rest = {OTHER: max(0.0, 1.0 - sum(shares.values()))} if named <= set(shares) else {}
    return rest | dict(shares)


def _marginal(plan: Plan, release: Release, segment: str) -> tuple[FloatArray, float] | None:
    """Return the noisy devices of each label, and the variance of each, from the least noisy counter."""
    marginals = [
        found
        for block, scale, variance in zip(
            release.layout.blocks, release.scales, release.noise_variance, strict=True
        )
        if (found := _summed(plan, block, segment, release.sums[block.slice] / scale, float(variance)))
    ]
    return min(marginals, key=lambda found: found[1], default=None)


def _summed(
    plan: Plan, block: Block, segment: str, values: FloatArray, variance: float
) -> tuple[FloatArray, float] | None:
    """Return a counter summed over every segment but one; None where a device may be counted twice."""
    if block.part != "devices" or segment not in block.grouping:
        return None
    if any(plan.segments[name].level != "device" for name in block.grouping):
        return None
    sizes = [len(plan.segments[name].labels) for name in block.grouping]
    axis = block.grouping.index(segment)
    others = tuple(place for place in range(len(sizes)) if place != axis)
    return values.reshape(sizes).sum(axis=others), variance * prod(sizes) / sizes[axis]


def _segment(
    name: str,
    labels: tuple[str, ...],
    values: FloatArray,
    variance: float,
    reference: Mapping[str, float] | None,
    z: float,
) -> Iterator[Counted]:
    total = float(values.sum())
    visible = total > z * sqrt(len(values) * variance)

    def sd(share: float) -> float:
        """Of a label's count minus its share of all: privacy noise, and the chance of who took part."""
        private = variance * ((1 - share) ** 2 + (len(values) - 1) * share**2)
        return sqrt(private + max(total, 0.0) * share * (1 - share))

    for label, value in zip(labels, values.tolist(), strict=True):
        share = min(max(value / total, 0.0), 1.0) if visible else None
        near = None if share is None else z * sd(share) / total
        expected = None if reference is None else reference.get(label)
        yield Counted(
            segment=name,
            label=label,
            devices=value,
            devices_sd=sqrt(variance),
            share=share,
            low=None if share is None or near is None else max(0.0, share - near),
            high=None if share is None or near is None else min(1.0, share + near),
            reference=expected,
            under=visible and expected is not None and value - expected * total < -z * sd(expected),
        )
