"""What all charts share: fonts, axes, the watermark of a simulation, display on a page and export to a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import altair as alt
import streamlit as st

from dashboard.style.theme import LIGHT, Palette

FONT: Final = "Source Sans, Liberation Sans, sans-serif"
NARROW: Final = 520
"""Plots narrower than this, in pixels, leave out what is also in the table under them."""
AXIS_HEIGHT: Final = 68
"""Pixels of a chart's height that the axis below its plot takes, with its labels and title."""

Rows = Sequence[Mapping[str, Any]]

# Charts are built by the functions of this package alone and shown in tests: checking each against the schema of
# Vega-Lite, again and again while it is put together, would take most of the time that a click may take.
alt.utils.schemapi.DEBUG_MODE = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart and its data, by name: apart, because Altair copies a chart whenever a part is added."""

    chart: alt.LayerChart
    data: Mapping[str, Rows]

    def spec(self, palette: Palette, **more: Any) -> dict[str, Any]:
        """Return the chart as Vega-Lite in the dashboard's fonts and colours, with more of its top-level keys."""
        data = {name: [dict(row) for row in rows] for name, rows in self.data.items()}
        drawn: dict[str, Any] = self.chart.to_dict(validate=False)
        return drawn | {"datasets": data, "config": config(palette)} | more


class LayerBuilder:
    """Collects the data of a chart's layers while they are built."""

    def __init__(self) -> None:
        self._data: dict[str, Rows] = {}

    def chart(self, rows: Rows) -> alt.Chart:
        """Return an empty layer over rows that are embedded in the chart."""
        name = f"rows{len(self._data)}"
        self._data[name] = rows
        return alt.Chart(alt.NamedData(name=name))

    def figure(self, layers: Sequence[alt.Chart], height: int) -> Figure:
        """Return the layers stacked in order, without those that have no rows: an empty one has no scale."""
        kept = [layer for layer in layers if self._data[layer.data.name]]
        apart = alt.Resolve(scale=alt.ScaleResolveMap(color="independent"))
        return Figure(
            alt.layer(*kept, height=height, resolve=apart),
            {name: rows for name, rows in self._data.items() if rows},
        )

    def watermark(self, palette: Palette, simulated: bool, synthetic: bool) -> list[alt.Chart]:
        """Return the layers that mark a chart of a simulation, none for a real fleet."""
        if not (simulated or synthetic):
            return []
        words = " · ".join(
            word for word, on in (("SIMULATION", simulated), ("SYNTHETIC VOICES", synthetic)) if on
        )
        mark = self.chart([{"words": words}]).mark_text(
            fontSize=alt.ExprRef("max(13, min(34, width / 17, height / 5))"), fontWeight=700, color=palette.ink, opacity=0.075,
            angle=344, align="center", baseline="middle", aria=False, tooltip=None, clip=True,
        )  # fmt: skip
        middle = {"x": alt.value(alt.expr("width / 2")), "y": alt.value(alt.expr("height / 2"))}
        return [mark.encode(**middle, text="words:N")]


def when_wide(value: str, otherwise: str) -> alt.ExprRef:
    """Return an expression that depends on the width of the plot."""
    return alt.ExprRef(f"width >= {NARROW} ? {value} : {otherwise}")


def beside(chart: alt.Chart, field: str, palette: Palette) -> alt.Chart:
    """Return the layer that writes a field to the right of the plot; empty on narrow plots."""
    labelled = chart.transform_calculate(beside=f"width >= {NARROW} ? datum.{field} : ''")
    return labelled.mark_text(align="left", dx=10, fontSize=13, color=palette.ink).encode(
        x=alt.value(alt.expr("width")), text="beside:N"
    )


def config(palette: Palette) -> dict[str, Any]:
    """Return the Vega-Lite config of every chart: no frames, muted axes, the dashboard's fonts."""
    axis = {
        "domain": False, "gridColor": palette.line, "gridWidth": 1, "labelColor": palette.muted, "labelFontSize": 13,
        "labelPadding": 8, "ticks": False, "titleColor": palette.muted, "titleFontSize": 13, "titleFontWeight": 400,
        "titlePadding": 12, "labelLimit": 190,
    }  # fmt: skip
    title = {
        "color": palette.ink,
        "subtitleColor": palette.muted,
        "anchor": "start",
        "fontSize": 16,
        "subtitleFontSize": 13,
    }
    return {
        "background": "transparent", "font": FONT, "padding": 4, "axis": axis, "axisX": {"titleAnchor": "start"},
        "axisY": {"titleAlign": "left"}, "view": {"stroke": None}, "title": title,
    }  # fmt: skip


def show(figure: Figure, palette: Palette, description: str, key: str) -> None:
    """Put a chart on the page; `description` is its text for screen readers."""
    spec = figure.spec(palette, usermeta={"embedOptions": {"renderer": "svg", "actions": False}})
    st.vega_lite_chart(spec, width="stretch", theme=None, key=key, alt=description)


def picture(figure: Figure, form: Literal["png", "svg"], title: str, subtitle: str) -> bytes:
    """Return a chart as a file: on white, with its title, what it is of, and the watermark it has."""
    import vl_convert

    words = {"text": title, "subtitle": subtitle, "offset": 18}
    spec = figure.spec(LIGHT, background=LIGHT.paper, width=760, autosize="pad", title=words)
    if form == "svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, scale=2.0))
