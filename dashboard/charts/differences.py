"""Differences between two models or releases: one row a group, with its intervals and verdict, and the margin."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import AXIS_HEIGHT, Figure, LayerBuilder, beside
from dashboard.data.numbers import group_text
from dashboard.style.theme import Palette
from fa_core.estimate.compare import Difference
from fa_core.estimate.measure import Measure

ROW = 34


def differences(
    found: Sequence[Difference],
    of: Measure,
    palette: Palette,
    *,
    margin: float,
    simulated: bool,
    synthetic: bool,
) -> Figure:
    """Return differences with 0 in the middle and ±margin shaded; significantly worse groups are in the alert colour."""
    builder = LayerBuilder()
    rows = [_row(each, of, palette) for each in found]
    shown = [row for row in rows if row["difference"] is not None]
    order = [row["group"] for row in rows]
    reach = max(
        [abs(row[name]) for row in shown for name in ("alllow", "allhigh")] + [margin * of.factor, 1e-6]
    )
    y = alt.Y(
        "group:N", sort=order, title=None, axis=alt.Axis(grid=False, labelColor=palette.ink, labelLimit=150)
    )
    scale = alt.Scale(domain=[-reach, reach], nice=True)
    x = alt.X("low:Q", title=of.axis, scale=scale, axis=alt.Axis(tickCount=6))
    color = alt.Color("color:N", scale=None, legend=None)
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    base = builder.chart(shown)
    layers: list[alt.Chart] = []
    if margin:
        band = {"from": -margin * of.factor, "to": margin * of.factor}
        layers.append(
            builder.chart([band])
            .mark_rect(color=palette.muted, opacity=0.12)
            .encode(x=alt.X("from:Q"), x2="to:Q")
        )
    layers += [
        *builder.watermark(palette, simulated, synthetic),
        builder.chart([{"zero": 0}]).mark_rule(color=palette.ink, strokeWidth=1.2).encode(x="zero:Q"),
        base.mark_rule(strokeWidth=1).encode(y=y, x=alt.X("alllow:Q"), x2="allhigh:Q", color=color, tooltip=tips),
        base.mark_rule(strokeWidth=3.2, strokeCap="round").encode(y=y, x=x, x2="high:Q", color=color, tooltip=tips),
        base.mark_point(size=95, filled=True, opacity=1).encode(
            y=y, x="difference:Q", color=color, tooltip=tips, description="text:N"
        ),
        builder.chart([row for row in rows if row["difference"] is None]).mark_text(
            align="left", dx=4, fontStyle="italic", fontSize=13, color=palette.muted, limit=alt.ExprRef("width - 8"),
        ).encode(y=y, x=alt.value(0), text="reason:N", tooltip=tips),
        beside(base, "verdict", palette).encode(y=y),
    ]  # fmt: skip
    return builder.figure(layers, ROW * max(len(rows), 1) + AXIS_HEIGHT)


_TIPS = (("group", "group"), ("text", "difference"), ("corrected", "95%, corrected"),
         ("verdict", "verdict"), ("reason", "not shown"))  # fmt: skip


def _row(each: Difference, of: Measure, palette: Palette) -> dict[str, Any]:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * of.factor

    half = None if each.low is None or each.high is None else (each.high - each.low) / 2
    text = (
        ""
        if each.difference is None
        else f"{of.text(each.difference, half)} ({of.interval(each.low, each.high)})"
    )
    colors = {"worse": palette.alert, "better": palette.accent, "same within margin": palette.accent}
    return {
        "group": group_text(each.group),
        "difference": scaled(each.difference),
        "low": scaled(each.low),
        "high": scaled(each.high),
        "alllow": scaled(each.simultaneous_low),
        "allhigh": scaled(each.simultaneous_high),
        "color": colors.get(each.change, palette.muted),
        "text": text,
        "corrected": of.interval(each.simultaneous_low, each.simultaneous_high),
        "verdict": each.change,
        "reason": f"not shown: {each.reason}",
    }
