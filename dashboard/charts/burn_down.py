"""What is left of a population's yearly budget, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, Sheet
from dashboard.style.theme import Palette

HEIGHT = 240


def burn_down(rows: Sequence[Mapping[str, Any]], limit: float, unit: str, palette: Palette) -> Figure:
    """Return what is left over time: rows of `at` (ISO time), `left`, and `what` for the pointer."""
    sheet = Sheet()
    base = sheet.chart(rows)
    x = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(grid=False, format="%-d %b", tickCount=6),
    )
    y = alt.Y("left:Q", title=f"left of the year's budget, {unit}", scale=alt.Scale(domain=[0, limit]), stack=None,
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=5))  # fmt: skip
    tips = [alt.Tooltip("what:N", title="charge"), alt.Tooltip("left:Q", title="left", format=".3f")]
    layers = [
        base.mark_area(interpolate="step-after", color=palette.accent, opacity=0.14, aria=False).encode(
            x=x, y=y
        ),
        base.mark_line(interpolate="step-after", color=palette.accent, strokeWidth=2.2).encode(x=x, y=y),
        base.mark_point(filled=True, size=26, color=palette.accent, opacity=0.9).encode(
            x=x, y=y, tooltip=tips
        ),
    ]
    return sheet.figure(layers, HEIGHT)
