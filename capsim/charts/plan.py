"""Charts of a plan: latency against sessions, and where a device's memory goes."""

from typing import Any

import altair as alt

from capsim import units
from capsim.charts.theme import BAD, NEUTRAL, PALETTE, colours, styled
from capsim.glossary import METRICS

PARTS = {
    "weights": PALETTE[0], "reserve": PALETTE[3], "KV used": PALETTE[1], "KV free": PALETTE[4], "left alone": NEUTRAL,
}  # fmt: skip
BAR = 36


def capacity_curve(rows: list[dict[str, Any]], latency: str, limit_s: float | None) -> Any:
    """The 95th percentile of a latency against sessions on one node: a line a candidate with its interval over
    replications, the threshold of the SLO, and a mark at the last number of sessions that keeps the SLO.

    ``rows`` are those of the candidates' ``curve`` with their ``candidate`` and whether they are its ``knee``.
    """
    key, label = f"{latency}_p95", METRICS[latency].label
    shown = [
        {
            **{name: row[name] for name in ("candidate", "sessions", "goodput", "replications", "knee")},
            "p95": row[key], "low": (row[f"{key}_ci95"] or [None])[0], "high": (row[f"{key}_ci95"] or [None])[-1],
        }
        for row in rows
        if row[key] is not None
    ]  # fmt: skip
    scale = alt.Scale(type="log", nice=False, padding=12)
    base = alt.Chart(alt.Data(values=shown)).encode(
        x=alt.X("sessions:Q", title="sessions on one node", scale=alt.Scale(zero=False, nice=False, padding=12)),
        color=alt.Color("candidate:N", scale=colours(list(dict.fromkeys(row["candidate"] for row in rows)))),
        tooltip=[
            "candidate:N", alt.Tooltip("sessions:Q", format=","),
            alt.Tooltip("p95:Q", title=f"{label} p95, s", format=".3g"),
            alt.Tooltip("low:Q", title="95 % interval from, s", format=".3g"),
            alt.Tooltip("high:Q", title="to, s", format=".3g"), alt.Tooltip("goodput:Q", format=".1%"),
            "replications:Q",
        ],
    )  # fmt: skip
    height = alt.Y("p95:Q", title=f"{label} p95, s", scale=scale, axis=alt.Axis(format="~g"))
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=height)
    points = base.mark_point(filled=True, size=40).encode(y=height)
    knee = base.transform_filter("datum.knee").mark_point(shape="diamond", size=220, strokeWidth=2).encode(y=height)
    layers = band + line + points + knee
    if limit_s is not None:
        layers += _threshold(limit_s, scale)
    return styled(layers, f"{label} p95 against sessions", height=260).properties(padding={"top": 12})


def _threshold(limit_s: float, scale: Any) -> Any:
    rule = alt.Chart(alt.Data(values=[{"limit": limit_s, "text": f"SLO {units.seconds(limit_s)}"}])).encode(
        y=alt.Y("limit:Q", scale=scale)
    )
    named = rule.mark_text(align="left", baseline="bottom", dx=4, dy=-3, color=BAD).encode(
        x=alt.value(0), text="text:N"
    )
    return rule.mark_rule(color=BAD, strokeDash=[6, 3]) + named


def memory_bar(parts: dict[str, float]) -> Any:
    """One bar of a device's memory; ``parts`` in bytes, as ``MemoryBudget.parts`` gives them."""
    rows = [
        {"part": name, "GiB": size / 2**30, "size": units.bytes_(size), "order": place}
        for place, (name, size) in enumerate(parts.items())
        if size > 0
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=BAR)
        .encode(
            x=alt.X("GiB:Q", stack="zero", title="GiB of one device", scale=alt.Scale(nice=False)),
            color=alt.Color(
                "part:N", scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())), sort=list(PARTS)
            ),
            order="order:O",
            tooltip=["part:N", alt.Tooltip("size:N", title="size")],
        )
    )
    return styled(chart, "Memory of the fullest device", height=170)
