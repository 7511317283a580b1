"""Charts of a calibration: how far predictions lie from what was measured, and where anything was measured."""

from math import ceil, floor, log10
from typing import Any

import altair as alt
import pandas as pd

from capsim.charts.theme import NEUTRAL, PALETTE, colours, styled

BAND = 0.2
"""Share by which the outer lines differ from the measured time."""


def measured_and_predicted(points: pd.DataFrame) -> Any:
    """A mark a point held out, from ``capsim.calibrate.evidence.points`` of one file or of several: colour by
    operation, shape by device where there are several; the diagonal, and 20 % on both sides of it."""
    scale = alt.Scale(type="log", nice=False, padding=12)
    low, high = (float(bound) for bound in (points["measured_s"].min(), points["measured_s"].max()))
    lines = pd.DataFrame([
        {"measured_s": x, "predicted_s": x * factor, "line": name}
        for name, factor in (("exact", 1.0), ("20 % longer", 1 + BAND), ("20 % shorter", 1 - BAND)) for x in (low, high)
    ])  # fmt: skip
    decades = [10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1)]
    axis = alt.Axis(values=decades, labelExpr="replace(format(datum.value, '~s'), regexp('([µmn]?)$'), ' $1s')")
    x = alt.X("measured_s:Q", scale=scale, axis=axis, title="measured")
    y = alt.Y("predicted_s:Q", scale=scale, axis=axis, title="predicted, held out")
    guides = (
        alt.Chart(lines)
        .mark_line(color=NEUTRAL, strokeWidth=1)
        .encode(x=x, y=y, detail="line:N", strokeDash=alt.condition("datum.line == 'exact'", _dash(), _dash(4, 3)))
    )
    kinds, devices = sorted(set(points["what"])), sorted(set(points["device"]))
    shown = points.assign(error=points["predicted_s"] / points["measured_s"] - 1)
    marks = (
        alt.Chart(shown)
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(
            x=x, y=y, color=alt.Color("what:N", scale=colours(kinds), legend=alt.Legend(columns=5)),
            tooltip=[
                "device:N", "what:N", "by:N", "format:N", "shape:N", alt.Tooltip("measured_s:Q", format=".3s"),
                alt.Tooltip("predicted_s:Q", format=".3s"), alt.Tooltip("error:Q", format="+.1%"),
            ],
        )
    )  # fmt: skip
    told_by, names = ("device:N", devices) if len(devices) > 1 else ("what:N", kinds)
    marks = marks.encode(shape=alt.Shape(told_by, scale=alt.Scale(domain=names)))
    return styled(guides + marks, "Predicted against measured seconds; dashed: 20 % off", height=380)


def coverage(cells: pd.DataFrame, visited: pd.DataFrame | None = None) -> Any:
    """Cells of sequences x context in which attention was measured, from ``capsim.calibrate.evidence.coverage``, and,
    as rings, those in which the decode steps of a run fell (``visited``)."""
    order = sorted({*cells["sequences"], *(() if visited is None else visited["sequences"])}, reverse=True)
    contexts = sorted({*cells["context_tokens"], *(() if visited is None else visited["context_tokens"])})
    x = alt.X("context_tokens:O", sort=contexts, title="mean context, tokens", axis=alt.Axis(labelAngle=0))
    y = alt.Y("sequences:O", sort=order, title="sequences")
    summed = cells.groupby(["sequences", "context_tokens"], as_index=False)["points"].sum()
    shades = alt.Scale(type="log", domainMin=1, range=["#cfe3f1", PALETTE[0]])
    measured = (
        alt.Chart(summed)
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=x, y=y, tooltip=["sequences:O", "context_tokens:O", "points:Q"],
            color=alt.Color("points:Q", title="points measured", scale=shades),
        )
    )  # fmt: skip
    title = "Where decode attention was measured"
    if visited is None or visited.empty:
        return styled(measured, title)
    rings = (
        alt.Chart(visited)
        .mark_point(color=PALETTE[5], strokeWidth=2, opacity=1)
        .encode(
            x=x, y=y, tooltip=["sequences:O", "context_tokens:O", alt.Tooltip("steps:Q", format=",")],
            size=alt.Size("steps:Q", title="steps of the run", scale=alt.Scale(range=[20, 500])),
        )
    )  # fmt: skip
    return styled(measured + rings, f"{title} (blue), and where the run decodes (rings)")


def _dash(*lengths: int) -> Any:
    return alt.value(list(lengths) or [1, 0])
