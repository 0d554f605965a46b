"""DET curves: false reject rate against false accepts per hour, one curve a group, each with its band and name."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder, named_ends, spread
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure
from fa_core.estimate.thresholds import Point, Side, monotone

REJECTS = Measure(100, "%", "false reject rate, %")
ACCEPTS = Measure(1, " per hour", "false accepts per hour")
HEIGHT = 430
LABEL = 19
"""Pixels between the names of two curves, of a chart that is `HEIGHT` high with its axes."""

_LINES = 40
_COSTS = {0.5: "half the cost", 1.0: "equal cost", 2.0: "twice the cost"}


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

    A line is the monotone fit of a group's points, so that it never runs backwards; dots are the estimates.

    Args:
        weight: cost of one false accept per hour, as a share of false rejects; lines of equal cost are drawn for it.
    """
    builder = LayerBuilder()
    fits = [_fit(name, *each) for name, points in curves.items() for each in monotone(points)]
    dots = [_dot(name, point) for name, points in curves.items() for point in points]
    dots = [row for row in dots if row["rejects"] is not None and row["accepts"] is not None]
    most = max([row["accepthigh"] for row in fits] or [1.0])
    top = min(max([row["rejecthigh"] for row in fits] or [1.0]), 100.0)
    x = alt.X("accepts:Q", title=f"{ACCEPTS.axis} (square-root scale)", scale=alt.Scale(type="sqrt", domain=[0, most], nice=False),
              axis=alt.Axis(tickCount=6, format="~g"))  # fmt: skip
    y = alt.Y("rejects:Q", title=REJECTS.axis, scale=alt.Scale(domain=[0, top]),
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=6))  # fmt: skip
    layers: list[alt.Chart] = [*builder.watermark(palette, simulated, synthetic)]
    mine = [row for row in dots if row["group"] == chosen]
    layers += _equal_cost(builder, mine, threshold, weight, most, top, palette)
    for own, color, faint, wide in ((False, palette.muted, 0.1, 1.4), (True, palette.accent, 0.16, 2.8)):
        part = [row for row in fits if (row["group"] == chosen) == own]
        estimates = [row for row in dots if (row["group"] == chosen) == own]
        here = [row for row in estimates if abs(row["threshold"] - threshold) < 1e-9]
        layers += [
            builder.chart(_bands(part))
            .mark_line(fill=color, fillOpacity=faint, strokeWidth=0, aria=False)
            .encode(x=alt.X("accepts:Q"), y=alt.Y("rejects:Q"), detail="group:N", order="order:Q"),
            builder.chart(part).mark_line(color=color, strokeWidth=wide).encode(
                x=x, y=y, detail="group:N", order="threshold:Q"
            ),
            builder.chart(estimates).mark_point(filled=True, color=color, opacity=0.75, size=18).encode(
                x=x, y=y, tooltip=_tips()
            ),
            builder.chart(here).mark_point(
                filled=True, size=130, color=color, opacity=1, stroke=palette.paper, strokeWidth=2
            ).encode(x=x, y=y, tooltip=_tips()),
        ]  # fmt: skip
    layers += named_ends(builder, _ends(fits, chosen, top, palette), x, y, palette)
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
    rows, names = [], []
    for level, name in _COSTS.items():
        line = []
        for step in range(_LINES + 1):
            accepts = most * (step / _LINES) ** 2
            rejects = level * cost - 100.0 * weight * accepts
            if 0 <= rejects <= top:
                line.append({"level": level, "accepts": accepts, "rejects": rejects, "name": name})
        rows += line
        names += [row for row in line if row["rejects"] > top / 8][-1:]  # above the names of the axis
    return [
        builder.chart(rows).mark_line(color=palette.muted, strokeDash=[2, 4], strokeWidth=1, opacity=0.9, aria=False)
        .encode(x="accepts:Q", y="rejects:Q", detail="level:N"),
        builder.chart(names).mark_text(align="right", baseline="top", dy=5, fontSize=11, color=palette.muted, aria=False)
        .encode(x="accepts:Q", y="rejects:Q", text="name:N"),
    ]  # fmt: skip


def _ends(
    fits: Sequence[Mapping[str, Any]], chosen: str, top: float, palette: Palette
) -> list[dict[str, Any]]:
    """Return the right end of each curve, at its lowest threshold, and where its name stands."""
    ends: dict[str, Mapping[str, Any]] = {}
    for row in fits:
        ends.setdefault(row["group"], row)
    labels = spread([row["rejects"] for row in ends.values()], top * LABEL / HEIGHT, 0.0, top)
    return [
        {
            "accepts": row["accepts"], "rejects": row["rejects"], "label": label, "name": name,
            "color": palette.accent if name == chosen else palette.muted,
        }
        for (name, row), label in zip(ends.items(), labels, strict=True)
    ]  # fmt: skip


def _bands(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each curve's band as a polygon: along the lower bounds of its points, and back along the upper bounds."""
    corners = []
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
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


def _fit(group: str, threshold: float, rejects: Side, accepts: Side) -> dict[str, Any]:
    return {
        "group": group,
        "threshold": threshold,
        "rejects": 100.0 * rejects.value,
        "rejectlow": 100.0 * rejects.low,
        "rejecthigh": 100.0 * rejects.high,
        "accepts": accepts.value,
        "acceptlow": accepts.low,
        "accepthigh": accepts.high,
    }


def _dot(group: str, point: Point) -> dict[str, Any]:
    rejects, accepts = point.rejects, point.accepts
    return {
        "group": group,
        "threshold": point.threshold,
        "rejects": None if rejects.estimate is None else 100.0 * rejects.estimate,
        "accepts": accepts.estimate,
        "rejecttext": REJECTS.with_interval(rejects),
        "accepttext": ACCEPTS.with_interval(accepts),
    }
