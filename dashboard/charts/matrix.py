"""A confusion matrix: the share of each actual label that was predicted as each other, intervals in tooltips."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder, when_wide
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure, half_width
from fa_core.values import Cell

ROW = 30


def matrix(
    cells: Sequence[Cell], of: Measure, palette: Palette, *, simulated: bool, synthetic: bool
) -> Figure:
    """Return the matrix of a confusion's cells, rows and columns in the order of the plan.

    Cells whose corrected interval is above 0 are outlined and have their number; others may be noise alone.
    """
    builder = LayerBuilder()
    rows = [_cell(cell, of) for cell in cells]
    names = list(dict.fromkeys(row["actual"] for row in rows))
    columns = list(dict.fromkeys(row["predicted"] for row in rows))
    x = alt.X("predicted:N", sort=columns, title="predicted",
              axis=alt.Axis(orient="top", labelAngle=-50, grid=False, labelFontSize=12, labelLimit=110))  # fmt: skip
    y = alt.Y("actual:N", sort=names, title=None, axis=alt.Axis(grid=False, labelFontSize=12, labelLimit=110))
    tips = [
        alt.Tooltip("actual:N", title="actual"),
        alt.Tooltip("predicted:N", title="predicted"),
        alt.Tooltip("text:N", title="share"),
        alt.Tooltip("corrected:N", title="95%, corrected"),
        alt.Tooltip("reason:N", title="not shown"),
    ]
    shown, hidden = (
        builder.chart([r for r in rows if (r["share"] is None) == none]) for none in (False, True)
    )
    scale = alt.Scale(type="sqrt", domain=[0, 100], range=[palette.paper, palette.ramp[1]], interpolate="rgb")
    pale = palette.paper == "#ffffff"
    ink = alt.condition(
        "datum.share > 45", alt.value("#ffffff" if pale else palette.paper), alt.value(palette.ink)
    )
    layers = [
        shown.mark_rect(stroke=palette.line, strokeWidth=1).encode(
            x=x, y=y, tooltip=tips, color=alt.Color("share:Q", scale=scale, legend=None), description="text:N",
        ),
        shown.mark_rect(fillOpacity=0, stroke=palette.ink, strokeWidth=1.2, aria=False).encode(
            x=x, y=y, tooltip=tips
        ).transform_filter("datum.significant"),
        hidden.mark_rect(fill=palette.sunken, stroke=palette.line).encode(x=x, y=y, tooltip=tips, description="reason:N"),
        hidden.mark_text(fontSize=13, color=palette.muted).encode(x=x, y=y, text=alt.value("×"), tooltip=tips),
        shown.mark_text(fontSize=12).encode(
            x=x, y=y, text="number:N", color=ink, tooltip=tips, opacity=alt.value(when_wide("1", "0"))
        ).transform_filter("datum.significant"),
        *builder.watermark(palette, simulated, synthetic),
    ]  # fmt: skip
    return builder.figure(layers, ROW * len(names))


def _cell(cell: Cell, of: Measure) -> dict[str, Any]:
    labels = dict(cell.labels)
    significant = cell.simultaneous_low is not None and cell.simultaneous_low > 0
    return {
        "actual": labels["actual"],
        "predicted": labels["predicted"],
        "share": None if cell.estimate is None else cell.estimate * of.factor,
        "significant": significant,
        "number": "" if cell.estimate is None else of.bare(cell.estimate, half_width(cell)),
        "text": of.with_interval(cell),
        "corrected": of.interval(cell.simultaneous_low, cell.simultaneous_high),
        "reason": cell.reason,
    }
