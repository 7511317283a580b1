"""Charts of several runs beside each other."""

from typing import Any

import altair as alt
import pandas as pd

from capsim.charts.theme import colours, styled
from capsim.glossary import METRICS


def latencies(curves: pd.DataFrame, latency: str) -> Any:
    """Empirical distributions of one latency, a line a run: ``run``, ``seconds``, ``share``."""
    runs = list(dict.fromkeys(curves["run"]))
    chart = (
        alt.Chart(curves[curves["seconds"] > 0])
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("seconds:Q", scale=alt.Scale(type="log"), title="seconds"),
            y=alt.Y("share:Q", axis=alt.Axis(format="%"), title="requests no slower"),
            color=alt.Color("run:N", scale=colours(runs)),
            strokeDash=alt.StrokeDash("run:N", scale=alt.Scale(domain=runs)),
            tooltip=["run:N", alt.Tooltip("seconds:Q", format=".3s"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return styled(chart, f"{METRICS[latency].label}: {METRICS[latency].definition}")
