"""A rollout's groups after a look: how much more the candidate is missed, its sequential interval, both margins."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import AXIS_HEIGHT, Figure, LayerBuilder, beside, reasons
from dashboard.style.theme import Palette

ROW = 34
POINTS = 100.0


def rollout(
    groups: Sequence[Mapping[str, Any]],
    palette: Palette,
    *,
    rollback_above: float,
    ship_below: float,
    simulated: bool,
) -> Figure:
    """Return one row a group, as a decision's `gate` has them, in percentage points.

    The thin line is the interval that holds at all looks together. The thick one lies between the two
    estimates, with and without the moments that only the candidate heard.
    """
    builder = LayerBuilder()
    rows = [_row(each, palette, rollback_above) for each in groups]
    shown = [row for row in rows if row["low"] is not None]
    margins = [
        {"at": POINTS * ship_below, "words": "expand below"},
        {"at": POINTS * rollback_above, "words": "roll back above"},
    ]
    ends = [row[name] for row in shown for name in ("low", "high", "first", "second")]
    ends += [0.0, *(each["at"] for each in margins)]
    scale = alt.Scale(domain=[min(ends), max(ends)], nice=True)
    y = alt.Y(
        "group:N",
        sort=[row["group"] for row in rows],
        title=None,
        axis=alt.Axis(grid=False, labelColor=palette.ink, labelLimit=150),
    )
    x = alt.X("low:Q", title="missed more than the baseline, in points", scale=scale)
    color = alt.Color("color:N", scale=None, legend=None)
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    base = builder.chart(shown)
    rule = builder.chart(margins)
    layers: list[alt.Chart] = [
        *builder.watermark(palette, simulated, False),
        builder.chart([{"zero": 0.0}])
        .mark_rule(color=palette.ink, strokeWidth=1.2)
        .encode(x=alt.X("zero:Q", scale=scale)),
        rule.mark_rule(strokeDash=[5, 4], color=palette.muted).encode(x=alt.X("at:Q", scale=scale)),
        *(
            builder.chart([margin]).mark_text(
                align="center", dy=dy, fontSize=12, color=palette.muted, baseline="bottom"
            ).encode(x=alt.X("at:Q", scale=scale), y=alt.value(0), text="words:N")
            for margin, dy in zip(margins, (-3, -18), strict=True)
        ),
        base.mark_rule(strokeWidth=1).encode(y=y, x=x, x2="high:Q", color=color, tooltip=tips),
        base.mark_rule(strokeWidth=5, strokeCap="round").encode(
            y=y, x=alt.X("first:Q", scale=scale), x2="second:Q", color=color, tooltip=tips,
            description="text:N",
        ),
        reasons(builder.chart([row for row in rows if row["low"] is None])).mark_text(
            align="left", dx=4, fontStyle="italic", fontSize=13, color=palette.muted
        ).encode(y=y, x=alt.value(0), text="seen:N", tooltip=tips),
        beside(base, "state", palette).encode(y=y),
    ]  # fmt: skip
    return builder.figure(layers, ROW * max(len(rows), 1) + AXIS_HEIGHT)


_TIPS = (("group", "group"), ("text", "estimate"), ("state", "state"), ("reason", "why"))


def _row(group: Mapping[str, Any], palette: Palette, rollback_above: float) -> dict[str, Any]:
    def points(name: str) -> float | None:
        return None if group.get(name) is None else POINTS * float(group[name])

    low, high = points("interval_low"), points("interval_high")
    over = group.get("interval_low") is not None and float(group["interval_low"]) >= rollback_above
    known = low is not None and high is not None
    state = "roll back" if over else "below its margin" if group.get("shipped") else "not enough evidence"
    return {
        "group": str(group.get("group", "")),
        "low": low if known else None,
        "high": high,
        "first": points("estimate_low"),
        "second": points("estimate_high"),
        "color": palette.alert if over else palette.accent if group.get("shipped") else palette.muted,
        "state": state,
        "text": "" if not known else f"{points('estimate_low'):.2f} to {points('estimate_high'):.2f}",
        "reason": str(group.get("reason", "")),
    }
