"""DET curves: false reject rate against false accepts per hour, one curve a group, each with its band."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure
from fa_core.estimate.thresholds import Point

REJECTS = Measure(100, "%", "false reject rate, %")
ACCEPTS = Measure(1, " per hour", "false accepts per hour")
HEIGHT = 430
_LINES = 40


def det(
    curves: Mapping[str, Sequence[Point]],
    palette: Palette,
    *,
    chosen: str,
    threshold: float,
    weight: float,
    simulated: bool,
    synthetic: bool,
) -> Figure:
    """Return the curves of all groups, `chosen` in the accent colour, with a dot at `threshold`.

    Args:
        weight: cost of one false accept per hour, as a share of false rejects; lines of equal cost are drawn for it.
    """
    builder = LayerBuilder()
    rows = [_row(name, point) for name, points in curves.items() for point in points]
    rows = [row for row in rows if row["rejects"] is not None and row["accepts"] is not None]
    mine = [row for row in rows if row["group"] == chosen]
    others = [row for row in rows if row["group"] != chosen]
    most = max([row["accepthigh"] for row in rows] or [1.0])
    top = min(max([row["rejecthigh"] for row in rows] or [1.0]), 100.0)
    x = alt.X("accepts:Q", title=ACCEPTS.axis, scale=alt.Scale(type="sqrt", domain=[0, most], nice=False),
              axis=alt.Axis(tickCount=6, format="~g"))  # fmt: skip
    y = alt.Y("rejects:Q", title=REJECTS.axis, scale=alt.Scale(domain=[0, top]),
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=6))  # fmt: skip
    layers: list[alt.Chart] = [*builder.watermark(palette, simulated, synthetic)]
    layers += _equal_cost(builder, mine, threshold, weight, most, top, palette)
    for part, color, faint, wide in ((others, palette.muted, 0.1, 1.4), (mine, palette.accent, 0.16, 2.8)):
        base = builder.chart(part)
        here = base.transform_filter(f"abs(datum.threshold - {threshold}) < 1e-9")
        layers += [
            builder.chart(_bands(part))
            .mark_line(fill=color, fillOpacity=faint, strokeWidth=0, aria=False)
            .encode(x=alt.X("accepts:Q"), y=alt.Y("rejects:Q"), detail="group:N", order="order:Q"),
            base.mark_line(color=color, strokeWidth=wide).encode(x=x, y=y, detail="group:N", order="threshold:Q"),
            base.mark_point(filled=True, color=color, opacity=1, size=22).encode(x=x, y=y, tooltip=_tips()),
            here.mark_point(filled=True, size=130, color=color, opacity=1, stroke=palette.paper, strokeWidth=2)
            .encode(x=x, y=y, tooltip=_tips()),
        ]  # fmt: skip
    return builder.figure(layers, HEIGHT)


def _equal_cost(
    builder: LayerBuilder,
    mine: Sequence[Mapping[str, Any]],
    threshold: float,
    weight: float,
    most: float,
    top: float,
    palette: Palette,
) -> list[alt.Chart]:
    """Return the lines of equal cost: that of the chosen group at the threshold, half of it and double."""
    here = next((row for row in mine if abs(row["threshold"] - threshold) < 1e-9), None)
    if here is None or weight <= 0:
        return []
    cost = here["rejects"] + 100.0 * weight * here["accepts"]
    rows = []
    for level in (0.5, 1.0, 2.0):
        for step in range(_LINES + 1):
            accepts = most * (step / _LINES) ** 2
            rejects = level * cost - 100.0 * weight * accepts
            if 0 <= rejects <= top:
                rows.append({"level": level, "accepts": accepts, "rejects": rejects})
    return [
        builder.chart(rows).mark_line(color=palette.muted, strokeDash=[2, 4], strokeWidth=1, opacity=0.9, aria=False)
        .encode(x="accepts:Q", y="rejects:Q", detail="level:N")
    ]  # fmt: skip


def _bands(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each curve's band as a polygon: along the lower bounds of its points, and back along the upper bounds."""
    corners = []
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = sorted((row for row in rows if row["group"] == group), key=lambda row: row["threshold"])
        path = [(row["acceptlow"], row["rejectlow"]) for row in mine]
        path += [(row["accepthigh"], row["rejecthigh"]) for row in reversed(mine)]
        corners += [
            {"group": group, "order": place, "accepts": accepts, "rejects": rejects}
            for place, (accepts, rejects) in enumerate([*path, path[0]])
        ]
    return corners


def _tips() -> list[alt.Tooltip]:
    named = (
        ("group", "group"),
        ("threshold", "threshold"),
        ("rejecttext", "false reject rate"),
        ("accepttext", "false accepts"),
    )
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in named]


def _row(group: str, point: Point) -> dict[str, Any]:
    rejects, accepts = point.rejects, point.accepts

    def percent(value: float | None) -> float | None:
        return None if value is None else 100.0 * value

    return {
        "group": group,
        "threshold": point.threshold,
        "rejects": percent(rejects.estimate),
        "rejectlow": percent(rejects.simultaneous_low),
        "rejecthigh": percent(rejects.simultaneous_high),
        "accepts": accepts.estimate,
        "acceptlow": accepts.simultaneous_low,
        "accepthigh": accepts.simultaneous_high,
        "rejecttext": REJECTS.with_interval(rejects),
        "accepttext": ACCEPTS.with_interval(accepts),
    }
