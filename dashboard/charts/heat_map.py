"""The heat map of a two-way grouping: colour is the estimate alone, cells with wide intervals are hatched."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder, when_wide
from dashboard.data.numbers import group_text
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure, half_width
from fa_core.values import Estimate

ROW = 54
STRIPES = 9
"""Slanting lines over a hatched cell."""

WIDE = "wider than half the difference between the highest and the lowest estimate"
"""The intervals of hatched cells."""


def heat_map(
    results: Sequence[Estimate], of: Measure, palette: Palette, *, simulated: bool, synthetic: bool
) -> Figure:
    """Return the heat map of a metric broken down by two segments, in the order of the plan."""
    shown = [result.estimate for result in results if result.estimate is not None]
    reach = (max(shown) - min(shown)) if shown else 0.0
    builder = LayerBuilder()
    rows = [_cell(result, of, reach) for result in results]
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
    light_on = f"datum.estimate > {middle}"
    ink = alt.condition(light_on, alt.value("#ffffff" if dark else palette.paper), alt.value(palette.ink))
    layers = [
        known.mark_rect(stroke=palette.paper, strokeWidth=3, cornerRadius=7).encode(
            x=x, y=y, tooltip=tips, color=alt.Color("estimate:Q", scale=scale, legend=None), description="text:N",
        ),
        *_hatching(builder.chart([row for row in rows if row["uncertain"]]), x, y, ink),
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


def _hatching(cells: alt.Chart, x: alt.X, y: alt.Y, ink: Any) -> list[alt.Chart]:
    """Return the layers that draw slanting lines over some cells: Vega-Lite has no patterns to fill with."""
    lines = cells.mark_rule(strokeWidth=1, opacity=0.3, aria=False, tooltip=None)
    found = []
    for stripe in range(STRIPES):
        start = (stripe + 0.15) / STRIPES
        across = x.copy()
        across.bandPosition = start
        down = y.copy()
        down.bandPosition = 0.96
        found.append(
            lines.encode(
                x=across, x2=alt.X2("column", bandPosition=start + 0.7 / STRIPES),
                y=down, y2=alt.Y2("row", bandPosition=0.04), color=ink,
            )
        )  # fmt: skip
    return found


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
