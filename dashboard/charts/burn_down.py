"""Burn-down: the remaining yearly budget of a population after each charge."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder
from dashboard.style.theme import Palette

HEIGHT = 240


def burn_down(rows: Sequence[Mapping[str, Any]], limit: float, unit: str, palette: Palette) -> Figure:
    """Return the burn-down chart; rows have `at` (ISO time), `left` (in `unit`), and `what`, the tooltip."""
    builder = LayerBuilder()
    base = builder.chart(rows)
    x = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(grid=False, format="%-d %b", tickCount=6),
    )
    y = alt.Y("left:Q", title=f"remaining yearly budget, {unit}", scale=alt.Scale(domain=[0, limit]), stack=None,
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=5))  # fmt: skip
    tips = [alt.Tooltip("what:N", title="charge"), alt.Tooltip("left:Q", title="remaining", format=".3f")]
    layers = [
        base.mark_area(interpolate="step-after", color=palette.accent, opacity=0.14, aria=False).encode(
            x=x, y=y
        ),
        base.mark_line(interpolate="step-after", color=palette.accent, strokeWidth=2.2).encode(x=x, y=y),
        base.mark_point(filled=True, size=26, color=palette.accent, opacity=0.9).encode(
            x=x, y=y, tooltip=tips
        ),
    ]
    return builder.figure(layers, HEIGHT)
