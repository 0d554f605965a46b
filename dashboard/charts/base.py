"""What all charts share: fonts, axes, the watermark of a simulation, and how one is shown or written to a file."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import altair as alt
import streamlit as st

from dashboard.look import LIGHT, Palette

FONT: Final = "Source Sans, Source Sans 3, Source Sans Pro, Liberation Sans, sans-serif"
NARROW: Final = 520
"""Plots narrower than this, in pixels, leave out what is also in the table under them."""

Rows = Sequence[Mapping[str, Any]]
Chart = alt.LayerChart | alt.Chart | alt.VConcatChart | alt.HConcatChart


def data(rows: Rows) -> alt.InlineData:
    """Return rows as a chart's own data; nothing is loaded from elsewhere."""
    return alt.InlineData(values=[dict(row) for row in rows])


def layered(*layers: alt.Chart) -> alt.LayerChart:
    """Return layers on top of each other, without those that have no rows: an empty one has no scale."""
    return alt.layer(*(layer for layer in layers if _has_rows(layer)))


def _has_rows(layer: alt.Chart) -> bool:
    return not isinstance(layer.data, alt.InlineData) or bool(layer.data.values)


def when_wide(value: str, otherwise: str) -> alt.ExprRef:
    """Return an expression that depends on the width of the plot."""
    return alt.ExprRef(f"width >= {NARROW} ? {value} : {otherwise}")


def beside(chart: alt.Chart, field: str, palette: Palette) -> alt.Chart:
    """Return the layer that writes a field to the right of the plot; narrow plots, which have no room, go without."""
    told = chart.transform_calculate(beside=f"width >= {NARROW} ? datum.{field} : ''")
    return told.mark_text(align="left", dx=10, fontSize=13, color=palette.ink).encode(
        x=alt.value(alt.expr("width")), text="beside:N"
    )


def watermark(palette: Palette, simulated: bool, synthetic: bool) -> list[alt.Chart]:
    """Return the layers that mark a chart of a simulation, none for a real fleet."""
    if not (simulated or synthetic):
        return []
    words = " · ".join(
        word for word, on in (("SIMULATION", simulated), ("SYNTHETIC VOICES", synthetic)) if on
    )
    mark = alt.Chart(data([{"words": words}])).mark_text(
        fontSize=alt.ExprRef("max(13, min(34, width / 17))"), fontWeight=700, color=palette.ink, opacity=0.075,
        angle=344, align="center", baseline="middle", aria=False, tooltip=None,
    )  # fmt: skip
    return [
        mark.encode(x=alt.value(alt.expr("width / 2")), y=alt.value(alt.expr("height / 2")), text="words:N")
    ]


def dressed(chart: Chart, palette: Palette, background: str | None = None) -> Chart:
    """Return a chart with the dashboard's fonts, colours and axes."""
    axis = {
        "domain": False, "gridColor": palette.line, "gridWidth": 1, "labelColor": palette.muted, "labelFontSize": 13,
        "labelPadding": 8, "ticks": False, "titleColor": palette.muted, "titleFontSize": 13, "titleFontWeight": 400,
        "titlePadding": 12, "labelLimit": 190,
    }  # fmt: skip
    return (
        chart.configure(background=background or "transparent", font=FONT, padding=4)
        .configure_axis(**axis)
        .configure_axisX(titleAnchor="start")
        .configure_axisY(titleAlign="left")
        .configure_view(stroke=None)
        .configure_legend(
            labelColor=palette.ink, titleColor=palette.muted, labelFontSize=13, titleFontSize=13,
            titleFontWeight=400, symbolStrokeWidth=2, orient="bottom", columns=alt.ExprRef("width > 500 ? 4 : 2"),
        )
        .configure_header(labelColor=palette.ink, labelFontSize=13, titleColor=palette.muted)
        .configure_title(color=palette.ink, subtitleColor=palette.muted, anchor="start", fontSize=16, subtitleFontSize=13)
    )  # fmt: skip


def show(chart: Chart, palette: Palette, told: str, key: str) -> None:
    """Put a chart on the page; `told` says to a screen reader what it shows."""
    drawn = dressed(chart, palette).properties(
        usermeta={"embedOptions": {"renderer": "svg", "actions": False}}
    )
    st.altair_chart(drawn, width="stretch", theme=None, key=key, alt=told)


def picture(chart: Chart, form: Literal["png", "svg"], title: str, subtitle: str) -> bytes:
    """Return a chart as a file: on white, with its title, what it is of, and the watermark it has."""
    import vl_convert

    drawn = dressed(chart, LIGHT, LIGHT.paper).properties(
        title=alt.TitleParams(title, subtitle=subtitle, offset=18),
        width=760,
        autosize=alt.AutoSizeParams("pad"),
    )
    spec = drawn.to_dict()
    if form == "svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    return bytes(vl_convert.vegalite_to_png(spec, scale=2.0))
