"""What an author leaves out, written out: a plan's canonical form says everything that devices rely on.

Only a plan that is read from YAML is completed. One that comes in canonical bytes says already what it says,
and what it lacks it lacks on purpose: plans of before are counted, charged and read as they were.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Final

from fa_core.metrics import exact_text
from fa_core.plan.groupings import grouping_text
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show, suggestion
from fa_core.plan.schema import Privacy, Share
from fa_core.plan.sections import Parts

COARSER: Final = Fraction(1, 5)
"""Share of a metric's budget for each grouping that a finer one contains, while half is left for the rest."""

KAPPA: Final = Fraction(1, 4)
"""The kappa of two aggregators where a plan names none: intervals are 1.118 times those of the helper's noise
alone, and the helper, which knows its own noise, faces four times the rho."""

Groupings = Mapping[str, tuple[tuple[str, ...], ...]]
"""The groupings of each metric by name, in the order of the vector."""


def complete(parts: Parts) -> None:
    """Write out how counts are sent, how the budget is shared and how noise is, in the parts of a plan.

    Shares of a plan with something wrong are left as they are written, for `checks` to say what.
    """
    privacy: Privacy | None = parts.fields.get("privacy")
    if privacy is None:
        return
    counters = privacy.counters or ("joint" if privacy.accounting == "zcdp" else "blocks")
    shares = privacy.shares
    if not parts.findings and not any(wrong_shares(shares or (), parts)):
        shares = _divided(shares or (), default_shares(reported(parts)))
    kappa = KAPPA if privacy.sum == "two_aggregators" and privacy.kappa is None else privacy.kappa
    update = {"counters": counters, "shares": shares, "kappa": kappa}
    parts.fields["privacy"] = privacy.model_copy(update=update)


def reported(parts: Parts) -> Groupings:
    """Return what every sound metric reports."""
    return {name: parts.metrics[name].group_by or ((),) for name in sorted(parts.metrics)}


def wrong_shares(shares: tuple[Share, ...], parts: Parts) -> Iterator[Finding]:
    """Yield what is wrong with shares, some of which may be left out."""
    at: Loc = ("privacy", "shares")
    known = {(name, frozenset(g)) for name, groupings in reported(parts).items() for g in groupings}
    seen = set()
    for index, share in enumerate(shares):
        groupings = [grouping_text(g) for g in reported(parts).get(share.metric, ())]
        if share.metric not in parts.metric_locs:
            found, names = f"no metric is named {show(share.metric)}", sorted(parts.metric_locs)
            yield Finding((*at, index, "metric"), found, suggestion(share.metric, names))
        elif groupings and share.key not in known:
            found = f"{show(share.metric)} does not report {grouping_text(share.by)}"
            yield Finding((*at, index, "by"), found, f"share among {', '.join(groupings)}")
        elif share.key in seen:
            yield Finding((*at, index), "this grouping has a share already", "keep one of them")
        seen.add(share.key)
    if len(parts.metrics) < len(parts.metric_locs) or not known >= seen:
        return
    total, missing = sum((share.share for share in shares), Fraction(0)), len(known - seen)
    if missing and total >= 1:
        found = f"the shares add up to {exact_text(total)}, and leave nothing for {missing} other groupings"
        yield Finding(at, found, "make them less than 1 together, or name every grouping")
    elif not missing and total != 1:
        found = f"the shares add up to {exact_text(total)}"
        yield Finding(at, found, "make them 1 together, or leave one out: it gets the rest")


def default_shares(reported: Groupings) -> tuple[Share, ...]:
    """Return the shares that a plan has where its author names none.

    A metric has as large a part as it reports groupings. Of that each coarser grouping gets a fifth (half
    among them all, if they are more), since the sum over a finer one measures it too; the groupings that no
    other contains divide the rest.
    """
    count = sum(map(len, reported.values()))
    found = []
    for name, groupings in reported.items():
        part = Fraction(len(groupings), count)
        coarser = {g for g in groupings if _is_coarser(g, groupings)}
        each = min(COARSER, Fraction(1, 2 * max(len(coarser), 1)))
        finest = (1 - each * len(coarser)) / (len(groupings) - len(coarser))
        found += [
            Share(metric=name, by=g, share=part * (each if g in coarser else finest)) for g in groupings
        ]
    return tuple(found)


def _is_coarser(grouping: tuple[str, ...], groupings: Iterable[tuple[str, ...]]) -> bool:
    return any(set(grouping) < set(other) for other in groupings)


def _divided(named: Iterable[Share], default: tuple[Share, ...]) -> tuple[Share, ...]:
    """Return every share in the order of the vector: those named, and the rest divided as by default."""
    written = {share.key: share for share in named}
    left = 1 - sum((share.share for share in written.values()), Fraction(0))
    others = sum((share.share for share in default if share.key not in written), Fraction(0))
    found = [
        share.model_copy(update={"share": written[share.key].share})
        if share.key in written
        else share.model_copy(update={"share": left * share.share / others})
        for share in default
    ]
    return tuple(found)
