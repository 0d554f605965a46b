"""The heat map of a two-way grouping: wide intervals are faded, suppressed cells are labelled."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder, when_wide
from dashboard.data.numbers import group_text
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure, half_width
from fa_core.values import Estimate

ROW = 54


def heat_map(
    results: Sequence[Estimate], of: Measure, palette: Palette, *, simulated: bool, synthetic: bool
) -> Figure:
    """Return the heat map of a metric broken down by two segments, in the order of the plan."""
    shown = [result.estimate for result in results if result.estimate is not None]
    reach = (max(shown) - min(shown)) if shown else 0.0
    builder = LayerBuilder()
    rows = [
        _cell(result, of, reach) for result in results
    ]  # faded: wider than half of the range of the estimates
    order = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ("row", "column")}
    x = alt.X(
        "column:N",
        sort=order["column"],
        title=None,
        axis=alt.Axis(orient="top", labelAngle=0, grid=False),
    )
    y = alt.Y(
        "row:N",
        sort=order["row"],
        title=None,
        axis=alt.Axis(grid=False),
    )
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    scale = alt.Scale(
        range=list(palette.ramp),
        domain=[min(shown, default=0) * of.factor, max(shown, default=1) * of.factor],
    )
    known = builder.chart([row for row in rows if row["estimate"] is not None])
    hidden = builder.chart([row for row in rows if row["estimate"] is None])
    middle = (min(shown, default=0.0) + 0.6 * reach) * of.factor
    dark = palette.paper == "#ffffff"
    light_on = f"datum.estimate > {middle} && !datum.uncertain"
    ink = alt.condition(light_on, alt.value("#ffffff" if dark else palette.paper), alt.value(palette.ink))
    layers = [
        known.mark_rect(stroke=palette.paper, strokeWidth=3, cornerRadius=7).encode(
            x=x, y=y, tooltip=tips, color=alt.Color("estimate:Q", scale=scale, legend=None),
            opacity=alt.condition("datum.uncertain", alt.value(0.35), alt.value(1.0)), description="text:N",
        ),
        hidden.mark_rect(
            fill=palette.sunken, stroke=palette.muted, strokeDash=[3, 4], strokeOpacity=0.6, cornerRadius=7, strokeWidth=1,
        ).encode(x=x, y=y, tooltip=tips, description="reason:N"),
        known.mark_text(fontSize=14, fontWeight=600, dy=when_wide("-8", "0")).encode(x=x, y=y, text="number:N", color=ink, tooltip=tips),
        known.mark_text(fontSize=12, dy=9).encode(
            x=x, y=y, text="interval:N", color=ink, tooltip=tips, opacity=alt.value(when_wide("0.9", "0"))
        ),
        hidden.mark_text(fontSize=12, fontStyle="italic", color=palette.muted).encode(
            x=x, y=y, text=alt.value("not shown"), tooltip=tips
        ),
        *builder.watermark(palette, simulated, synthetic),
    ]  # fmt: skip
    return builder.figure(layers, ROW * len(order["row"]))


_TIPS = (("group", "group"), ("text", "estimate"), ("corrected", "95%, corrected"),
         ("devices", "devices"), ("reason", "not shown"))  # fmt: skip


def _cell(result: Estimate, of: Measure, reach: float) -> dict[str, Any]:
    half = half_width(result)
    return {
        "row": result.group[0][1],
        "column": result.group[1][1],
        "group": group_text(result.group),
        "estimate": None if result.estimate is None else result.estimate * of.factor,
        "uncertain": half is not None and 4 * half > reach,
        "number": of.text(result.estimate, half),
        "interval": of.interval(result.low, result.high),
        "text": of.with_interval(result),
        "corrected": of.interval(result.simultaneous_low, result.simultaneous_high),
        "devices": "" if result.devices is None else f"about {max(0, round(result.devices)):,}",
        "reason": result.reason,
    }
