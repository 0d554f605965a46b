"""A metric over releases: one group in colour with its intervals, the others in grey, each with its name."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import altair as alt

from dashboard.charts.base import Figure, LayerBuilder, named_ends, spread
from dashboard.style.theme import Palette
from fa_core.estimate.measure import Measure
from fa_core.store import Annotation

HEIGHT = 340
LABEL = 19
"""Pixels between the names of two lines, of a chart that is `HEIGHT` high with its axes."""

MOST_TICKS = 8


def trend(
    rows: Sequence[Mapping[str, Any]],
    of: Measure,
    palette: Palette,
    *,
    chosen: str,
    limit: float | None,
    annotations: Sequence[Annotation],
    simulated: bool,
    synthetic: bool,
) -> Figure:
    """Return the chart of a metric over time.

    Args:
        rows: `group`, `at` (ISO time of the window's end), `estimate`, `low`, `high`, `text`, `release`; numbers in
            the metric's unit, None where not shown; newest first.
        annotations: drawn as vertical lines with their numbers, from 1.
    """
    builder = LayerBuilder()
    shown = [_scaled(row, of) for row in rows if row["estimate"] is not None]
    mine = [row for row in shown if row["group"] == chosen]
    others = [row for row in shown if row["group"] != chosen]
    least, most = _domain(mine, others, None if limit is None else limit * of.factor, of)
    x = alt.X("at:T", title="end of the window (UTC)", axis=alt.Axis(grid=False, values=_ticks(shown), format="%-d %b", labelAngle=0),
              scale=alt.Scale(type="utc", padding=14))  # fmt: skip
    y = alt.Y("estimate:Q", title=of.axis, scale=alt.Scale(domain=[least, most], nice=False, zero=False),
              axis=alt.Axis(titleAngle=0, titleY=-14, titleX=0, titleAnchor="start", tickCount=6))  # fmt: skip
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS]
    own = builder.chart(mine)
    layers: list[alt.Chart] = [*builder.watermark(palette, simulated, synthetic)]
    if limit is not None:
        layers.append(
            builder.chart([{"limit": limit * of.factor}]).mark_rule(
                color=palette.alert, strokeDash=[6, 4], strokeWidth=1.6
            ).encode(y="limit:Q")
        )  # fmt: skip
    layers += _annotated(builder, annotations, palette)
    layers += [
        builder.chart(others).mark_line(color=palette.muted, strokeWidth=1.2, opacity=0.45).encode(
            x=x, y=y, detail="group:N"
        ),
        builder.chart(others).mark_point(filled=True, color=palette.muted, size=22, opacity=0.55).encode(
            x=x, y=y, tooltip=tips
        ),
        builder.chart(others).mark_rule(color=palette.muted, strokeWidth=1, opacity=0.22, aria=False).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q"
        ),
        own.mark_area(color=palette.accent, opacity=0.15, aria=False).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        own.mark_rule(color=palette.accent, strokeWidth=2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", tooltip=tips),
        own.mark_line(color=palette.accent, strokeWidth=2.4).encode(x=x, y=y),
        own.mark_point(filled=True, color=palette.accent, size=75, opacity=1).encode(x=x, y=y, tooltip=tips),
        *named_ends(builder, _ends(shown, chosen, least, most, palette), x, y, palette),
    ]  # fmt: skip
    return builder.figure(layers, HEIGHT)


_TIPS = (("group", "group"), ("window", "window"), ("text", "estimate"), ("release", "release"))


def _annotated(builder: LayerBuilder, annotations: Sequence[Annotation], palette: Palette) -> list[alt.Chart]:
    base = builder.chart(
        [
            {"at": each.day.isoformat() + "T00:00:00Z", "number": number, "text": each.text}
            for number, each in enumerate(annotations, start=1)
        ]
    )
    tips = [alt.Tooltip("number:N", title="annotation"), alt.Tooltip("text:N", title="what happened")]
    return [
        base.mark_rule(color=palette.ink, strokeDash=[1, 3], strokeWidth=1.4).encode(x="at:T", tooltip=tips),
        base.mark_text(baseline="bottom", dy=-3, fontSize=12, fontWeight=700, color=palette.ink).encode(
            x="at:T", y=alt.value(0), text="number:N", tooltip=tips
        ),
    ]


def _domain(
    mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], limit: float | None, of: Measure
) -> tuple[float, float]:
    """Return the ends of the vertical axis: it has 0, unless the numbers are differences."""
    places = [row[name] for row in (*mine, *others) for name in ("estimate", "low", "high")]
    places += [] if limit is None else [limit]
    least, most = min(places, default=0.0), max(places, default=1.0)
    if not of.signed:
        least = min(least, 0.0)
    room = 0.05 * (most - least or 1.0)
    return least - (room if of.signed else 0.0), most + room


def _ticks(rows: Sequence[Mapping[str, Any]]) -> list[alt.DateTime]:
    """Return at most `MOST_TICKS` ends of windows, the newest among them, ascending."""
    ends = sorted({datetime.fromisoformat(row["at"]) for row in rows}, reverse=True)
    step = -(-len(ends) // MOST_TICKS) or 1
    return [_vega_time(end.astimezone(UTC)) for end in reversed(ends[::step])]


def _vega_time(at: datetime) -> alt.DateTime:
    return alt.DateTime(
        year=at.year, month=at.month, date=at.day, hours=at.hour, minutes=at.minute, seconds=at.second, utc=True
    )  # fmt: skip


def _ends(
    rows: Sequence[Mapping[str, Any]], chosen: str, least: float, most: float, palette: Palette
) -> list[dict[str, Any]]:
    """Return the newest point of each group's line, and where its name stands. Rows are newest first."""
    ends: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        ends.setdefault(row["group"], row)
    gap = (most - least) * LABEL / HEIGHT
    labels = spread([row["estimate"] for row in ends.values()], gap, least, most)
    return [
        {
            "at": row["at"], "estimate": row["estimate"], "label": label, "name": name,
            "color": palette.accent if name == chosen else palette.muted,
        }
        for (name, row), label in zip(ends.items(), labels, strict=True)
    ]  # fmt: skip


def _scaled(row: Mapping[str, Any], of: Measure) -> dict[str, Any]:
    numbers = {name: row[name] * of.factor for name in ("estimate", "low", "high")}
    return {**row, **numbers}
