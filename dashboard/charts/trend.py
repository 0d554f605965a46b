"""A metric over releases: one group in colour with its intervals, the others in grey."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure

HEIGHT = 340


def trend(
    rows: Sequence[Mapping[str, Any]],
    of: Measure,
    palette: Palette,
    *,
    chosen: str,
    limit: float | None,
    simulated: bool,
    synthetic: bool,
) -> Figure:
    """Return the chart of a metric over time.

    Args:
        rows: `group`, `at` (ISO time of the window's end), `estimate`, `low`, `high`, `text`, `release`; numbers in
            the metric's unit, None where not shown.
    """
    builder = LayerBuilder()
    scaled = [_scaled(row, of) for row in rows]
    mine = [row for row in scaled if row["group"] == chosen and row["estimate"] is not None]
    others = [row for row in scaled if row["group"] != chosen and row["estimate"] is not None]
    x = alt.X("at:T", title="end of the window", axis=alt.Axis(grid=False, tickCount=6, format="%-d %b", labelAngle=0),
              scale=alt.Scale(type="utc", padding=14))  # fmt: skip
    y = alt.Y("estimate:Q", title=of.axis, scale=alt.Scale(zero=not of.signed, nice=True),
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=6))  # fmt: skip
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    own = builder.chart(mine)
    layers: list[alt.Chart] = [*builder.watermark(palette, simulated, synthetic)]
    if limit is not None:
        layers.append(
            builder.chart([{"limit": limit * of.factor}]).mark_rule(
                color=palette.alert, strokeDash=[6, 4], strokeWidth=1.6
            ).encode(y="limit:Q")
        )  # fmt: skip
    layers += [
        builder.chart(others).mark_line(color=palette.muted, strokeWidth=1.2, opacity=0.45).encode(
            x=x, y=y, detail="group:N"
        ),
        builder.chart(others).mark_point(filled=True, color=palette.muted, size=22, opacity=0.55).encode(
            x=x, y=y, tooltip=tips
        ),
        builder.chart(others).mark_rule(color=palette.muted, strokeWidth=1, opacity=0.22, aria=False).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q"
        ),
        own.mark_area(color=palette.accent, opacity=0.15, aria=False).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        own.mark_rule(color=palette.accent, strokeWidth=2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", tooltip=tips),
        own.mark_line(color=palette.accent, strokeWidth=2.4).encode(x=x, y=y),
        own.mark_point(filled=True, color=palette.accent, size=75, opacity=1).encode(x=x, y=y, tooltip=tips),
    ]  # fmt: skip
    return builder.figure(layers, HEIGHT)


_TIPS = (("group", "group"), ("window", "window"), ("text", "estimate"), ("release", "release"))


def _scaled(row: Mapping[str, Any], of: Measure) -> dict[str, Any]:
    numbers = {
        name: None if row[name] is None else row[name] * of.factor for name in ("estimate", "low", "high")
    }
    return {**row, **numbers}
