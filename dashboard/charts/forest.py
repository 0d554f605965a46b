"""The forest plot: one row a group, its estimate, and three intervals in three line weights.

Thick and pale: the privacy noise alone. Medium: the 95% interval of this group. Thin: the simultaneous 95%
interval, corrected for all groups, by which groups are ranked and guardrails judged.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import AXIS_HEIGHT, Figure, LayerBuilder, beside
from dashboard.data.numbers import group_text
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure, half_width
from fa_core.values import Estimate

ROW = 34


def forest(
    results: Sequence[Estimate],
    of: Measure,
    palette: Palette,
    *,
    limit: float | None,
    everyone: Estimate | None,
    simulated: bool,
    synthetic: bool,
) -> Figure:
    """Return the forest plot of some groups, in the order given.

    Args:
        limit: of a guardrail, in the metric's unit; groups significantly above it are drawn in the alert colour.
        everyone: the estimate over all devices, drawn as a reference.
    """
    builder = LayerBuilder()
    rows = [_row(result, of, limit, palette) for result in results]
    order = [row["group"] for row in rows]
    y = alt.Y(
        "group:N", sort=order, title=None, axis=alt.Axis(grid=False, labelColor=palette.ink, labelLimit=150)
    )
    numbers = [row for row in rows if row["estimate"] is not None]
    ends = [row[name] for row in numbers for name in ("low", "high", "alllow", "allhigh")]
    ends += [value * of.factor for value in (limit,) if value is not None]
    domain = [min([*ends, 0.0]), max([*ends, 1e-9])]
    x = alt.X("low:Q", title=of.axis, scale=alt.Scale(domain=domain, nice=True), axis=alt.Axis(tickCount=6))
    color = alt.Color("color:N", scale=None, legend=None)
    shown = builder.chart(numbers)
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    layers: list[alt.Chart] = [
        *builder.watermark(palette, simulated, synthetic),
        *_references(builder, everyone, limit, of, palette),
        shown.mark_rule(strokeWidth=11, opacity=0.22).encode(
            y=y, x=alt.X("noiselow:Q"), x2="noisehigh:Q", color=color, tooltip=tips
        ),
        shown.mark_rule(strokeWidth=1).encode(y=y, x=alt.X("alllow:Q"), x2="allhigh:Q", color=color, tooltip=tips),
        shown.mark_rule(strokeWidth=3.2, strokeCap="round").encode(y=y, x=x, x2="high:Q", color=color, tooltip=tips),
        shown.mark_point(size=95, filled=True, opacity=1, strokeWidth=2.4).encode(
            y=y, x="estimate:Q", tooltip=tips, description="text:N",
            fill=alt.Fill("fill:N", scale=None, legend=None), stroke=alt.Stroke("color:N", scale=None, legend=None),
        ),
        builder.chart([row for row in rows if row["estimate"] is None]).mark_text(
            align="left", dx=4, fontStyle="italic", fontSize=13, color=palette.muted,
            limit=alt.ExprRef("width - 8"),
        ).encode(y=y, x=alt.value(0), text="reason:N", tooltip=tips),
    ]  # fmt: skip
    layers.append(beside(shown, "text", palette).encode(y=y))
    return builder.figure(layers, ROW * max(len(rows), 1) + AXIS_HEIGHT)


_TIPS = (("group", "group"), ("text", "estimate"), ("corrected", "95%, corrected"),
         ("noise", "privacy noise alone"), ("devices", "devices"), ("reason", "not shown"))  # fmt: skip


def _row(result: Estimate, of: Measure, limit: float | None, palette: Palette) -> dict[str, Any]:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * of.factor

    bound = result.simultaneous_low
    shown = result.estimate is not None
    color = palette.alert if limit is not None and bound is not None and bound > limit else palette.accent
    return {
        "group": group_text(result.group),
        "estimate": scaled(result.estimate),
        "low": scaled(result.low),
        "high": scaled(result.high),
        "alllow": scaled(result.simultaneous_low),
        "allhigh": scaled(result.simultaneous_high),
        "noiselow": scaled(result.noise_low),
        "noisehigh": scaled(result.noise_high),
        "color": color,
        "fill": palette.paper if result.variance_source == "pooled" else color,
        "text": of.with_interval(result),
        "corrected": of.interval(result.simultaneous_low, result.simultaneous_high),
        "noise": of.interval(result.noise_low, result.noise_high),
        "devices": "" if result.devices is None else f"about {max(0, round(result.devices)):,}",
        "reason": "" if shown else f"not shown: {result.reason}",
    }


def _references(
    builder: LayerBuilder, everyone: Estimate | None, limit: float | None, of: Measure, palette: Palette
) -> list[alt.Chart]:
    found = []
    if everyone is not None and everyone.estimate is not None:
        found.append(_rule(builder, everyone.estimate * of.factor, f"everyone {of.text(everyone.estimate, half_width(everyone))}",
                           palette.muted, [2, 3], -6))  # fmt: skip
    if limit is not None:
        found.append(_rule(builder, limit * of.factor, f"limit {of.text(limit)}", palette.alert, [6, 4], -20))
    return [layer for pair in found for layer in pair]


def _rule(
    builder: LayerBuilder, value: float, words: str, color: str, dash: list[int], dy: int
) -> tuple[alt.Chart, alt.Chart]:
    base = builder.chart([{"value": value, "words": words}])
    rule = base.mark_rule(color=color, strokeDash=dash, strokeWidth=1.6).encode(x="value:Q")
    text = base.mark_text(align="center", baseline="bottom", color=color, fontSize=12.5, dy=dy).encode(
        x="value:Q", y=alt.value(0), text="words:N"
    )
    return rule, text
