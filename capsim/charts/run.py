"""Charts of one run: how long users waited, how full the fleet was, and where a step's time goes."""

from typing import Any

import altair as alt
import pandas as pd

from capsim.charts.theme import PALETTE, colours, styled
from capsim.glossary import METRICS

LATENCY_COLOURS = {"TTFT": PALETTE[0], "TPOT": PALETTE[1], "E2E": PALETTE[2], "Queue": PALETTE[3]}


def latencies(curves: pd.DataFrame) -> Any:
    """Empirical distributions of latencies (``metrics.curves.latency_curves``), on a logarithmic axis of seconds."""
    named = curves[curves["seconds"] > 0].assign(label=lambda rows: rows["latency"].map(lambda n: METRICS[n].label))
    labels = [label for label in LATENCY_COLOURS if label in set(named["label"])]
    chart = (
        alt.Chart(named)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("seconds:Q", scale=alt.Scale(type="log"), title="seconds"),
            y=alt.Y("share:Q", axis=alt.Axis(format="%"), title="requests no slower"),
            color=alt.Color("label:N", scale=alt.Scale(domain=labels, range=[LATENCY_COLOURS[n] for n in labels])),
            strokeDash=alt.StrokeDash("label:N", scale=alt.Scale(domain=labels)),
            tooltip=[
                alt.Tooltip("label:N", title="latency"),
                alt.Tooltip("seconds:Q", format=".3s"),
                alt.Tooltip("share:Q", format=".1%", title="requests no slower"),
            ],
        )
    )
    return styled(chart, "How long requests took")


def occupancy(timeline: pd.DataFrame, warmup_s: float) -> Any:
    """KV in use over time (``metrics.curves.timeline``); what was left out as warm-up is shaded."""
    line = (
        alt.Chart(timeline)
        .mark_area(line={"color": PALETTE[0]}, color=PALETTE[0], opacity=0.25)
        .encode(
            x=alt.X("time_s:Q", title="simulated seconds"),
            y=alt.Y("kv_share:Q", axis=alt.Axis(format="%"), title="KV blocks in use", scale=alt.Scale(zero=True)),
            tooltip=[alt.Tooltip("time_s:Q", format=",.0f"), alt.Tooltip("kv_share:Q", format=".1%")],
        )
    )
    return styled(_warmup(warmup_s) + line, "KV cache in use (warm-up shaded)")


def batch(timeline: pd.DataFrame, warmup_s: float) -> Any:
    """Running and waiting requests over time."""
    long = timeline.melt("time_s", ["running", "waiting"], "state", "requests")
    lines = (
        alt.Chart(long)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("time_s:Q", title="simulated seconds"),
            y=alt.Y("requests:Q", title="requests, all replicas"),
            color=alt.Color("state:N", scale=colours(["running", "waiting"])),
            strokeDash=alt.StrokeDash("state:N", scale=alt.Scale(domain=["running", "waiting"])),
            tooltip=["state:N", alt.Tooltip("time_s:Q", format=",.0f"), alt.Tooltip("requests:Q", format=",.1f")],
        )
    )
    return styled(_warmup(warmup_s) + lines, "Requests running and waiting (warm-up shaded)")


def step_time(shares: pd.DataFrame) -> Any:
    """Where the time of steps goes (``metrics.curves.component_shares``)."""
    chart = (
        alt.Chart(shares[shares["share"] > 0])
        .mark_bar(color=PALETTE[0])
        .encode(
            x=alt.X("share:Q", axis=alt.Axis(format="%"), title="share of busy time"),
            y=alt.Y("component:N", sort="-x", title=None),
            tooltip=["component:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return styled(chart, "Where a step's time goes", height=160)


def _warmup(warmup_s: float) -> Any:
    return (
        alt.Chart(pd.DataFrame({"from": [0.0], "to": [warmup_s]}))
        .mark_rect(color=PALETTE[6], opacity=0.15)
        .encode(x="from:Q", x2="to:Q")
    )
