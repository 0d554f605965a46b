"""Export of numbers and charts: each file names its release, and each export is in the audit trail."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import streamlit as st

from dashboard.auth import session
from dashboard.charts import base
from dashboard.data.numbers import grouping_text, short, span, words
from dashboard.data.reading import Body, open_catalogue
from dashboard.settings import active


def offer(body: Body, metric: str, grouping: tuple[str, ...], chart: base.Figure | None) -> None:
    """Show buttons that download the numbers as CSV or Parquet and the chart as PNG or SVG."""
    name = f"{body.entry.plan}-{short(body.entry.id)}-{metric}-{'-'.join(grouping) or 'everyone'}"[:120]
    files: dict[str, tuple[str, Callable[[], bytes]]] = {
        "CSV": ("text/csv", lambda: _rows(body, metric, grouping, "csv")),
        "Parquet": ("application/vnd.apache.parquet", lambda: _rows(body, metric, grouping, "parquet")),
    }
    if chart is not None:
        title = f"{words(metric)} by {grouping_text(grouping)}" if grouping else f"{words(metric)}, everyone"
        entry = body.entry
        subtitle = (
            f"{entry.plan} · {span(entry.window_start, entry.window_end)} · {entry.counted:,} devices counted"
        )
        files["PNG"] = ("image/png", lambda: base.picture(chart, "png", title, subtitle))
        files["SVG"] = ("image/svg+xml", lambda: base.picture(chart, "svg", title, subtitle))
    details = {"release": body.entry.id, "metric": metric, "by": ",".join(grouping)}
    with st.container(horizontal=True, gap="small", key="downloads"):
        for form, (mime, make) in files.items():
            button(form, f"{name}.{form.lower()}", mime, make, details)


def button(
    form: str,
    name: str,
    mime: str,
    make: Callable[[], bytes],
    details: Mapping[str, Any],
    label: str | None = None,
) -> None:
    """Show a download button; pressing it makes the file and writes the export to the audit trail."""
    st.download_button(
        label or form, data=make, file_name=name, mime=mime, icon=":material/download:", key=f"get-{name}",
        on_click=lambda: session.record("export", **{key: str(value) for key, value in details.items()}, form=form),
    )  # fmt: skip


def _rows(body: Body, metric: str, grouping: tuple[str, ...], form: str) -> bytes:
    """Return a metric's numbers in one grouping, cells included, each row with the release that it is from."""
    wanted = (pc.field("metric") == metric) & (pc.field("grouping") == ",".join(grouping))
    table = open_catalogue(active().store).results([body.entry], where=wanted)
    facts = {
        "plan": body.entry.plan,
        "window_start": body.entry.window_start.isoformat(),
        "window_end": body.entry.window_end.isoformat(),
        "simulated": body.entry.simulated,
        "synthetic_voice": body.entry.synthetic,
    }
    for place, (name, value) in enumerate(facts.items(), start=1):
        table = table.add_column(place, name, pa.array([value] * len(table)))
    plain = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    table, sink = table.cast(pa.schema(plain)), io.BytesIO()
    if form == "csv":
        pa.csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
