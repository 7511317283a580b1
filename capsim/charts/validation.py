"""Predicted against measured: every published figure, on logarithmic axes, with what a fifth is."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from capsim.charts.theme import NEUTRAL, colours, side_by_side

PANELS = {
    "throughput": ("throughput", "tokens/s", 1.0), "TPOT": ("TPOT", "ms", 1e3), "TTFT": ("TTFT, median", "ms", 1e3),
}  # fmt: skip
"""Metrics that are drawn: title, unit, and how many of it are one in SI."""
BAND = 0.2
SIDE = 260
TICKS = 4


def predicted_against_measured(figures: Sequence[dict[str, Any]]) -> Any:
    """A panel a metric: published on x, simulated on y, the line of equality and a band of a fifth around it.

    ``figures`` are those of ``validate_points``; metrics that none of them has are left out.
    """
    frame = pd.DataFrame(figures)
    devices = sorted(frame.loc[frame["metric"].isin(PANELS), "device"].unique())
    panels = [_panel(frame[frame["metric"] == metric], metric, devices) for metric in PANELS]
    return side_by_side([panel for panel in panels if panel is not None], "Simulated against published")


def _panel(frame: pd.DataFrame, metric: str, devices: list[str]) -> Any:
    if frame.empty:
        return None
    title, unit, factor = PANELS[metric]
    scaled = frame.assign(published=frame["published"] * factor, simulated=frame["simulated"] * factor)
    both = scaled[["published", "simulated"]]
    low, high = float(both.min().min()) / 1.3, float(both.max().max()) * 1.3
    line = pd.DataFrame({"published": [low, high]}).assign(
        simulated=lambda at: at["published"], least=lambda at: at["published"] * (1 - BAND),
        most=lambda at: at["published"] * (1 + BAND),
    )  # fmt: skip
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    x = alt.X(
        "published:Q", title=f"{title}, published ({unit})", scale=scale, axis=alt.Axis(format="~s", tickCount=TICKS)
    )

    def y(field: str) -> Any:
        axis = alt.Axis(format="~s", tickCount=TICKS)
        return alt.Y(f"{field}:Q", title=f"simulated ({unit})", scale=scale, axis=axis)

    band = alt.Chart(line).mark_area(color=NEUTRAL, opacity=0.15, clip=True).encode(x=x, y=y("least"), y2="most:Q")
    equal = alt.Chart(line).mark_line(color=NEUTRAL, strokeDash=[4, 3]).encode(x=x, y=y("simulated"))
    marks = alt.Chart(scaled).mark_point(filled=True, size=36, opacity=0.65)
    points = marks.encode(
        x=x, y=y("simulated"), color=alt.Color("device:N", scale=colours(devices)),
        shape=alt.Shape("use:N", scale=alt.Scale(domain=["judge", "fit"], range=["circle", "triangle-up"])),
        tooltip=["point:N", "source:N", "device:N", "engine:N", "model:N", "published:Q", "simulated:Q"],
    )  # fmt: skip
    return (band + equal + points).properties(width=SIDE, height=SIDE)
