"""Charts of a sweep: a figure over two knobs, and what is worth paying for."""

from typing import Any

import altair as alt
import pandas as pd

from capsim.charts.theme import BAD, GOOD, NEUTRAL, styled

FORMATS = {"monthly_usd": "$,.0f", "usd_per_million_output_tokens": "$,.3f", "goodput": ".1%"}


def heatmap(frame: pd.DataFrame, x: str, y: str, value: str, label: str) -> Any:
    """One figure over two knobs. Points without a figure are marked with a cross, and their tooltip has the reason."""
    known, other = frame[frame[value].notna()], frame[frame[value].isna()]
    axes: dict[str, Any] = {
        "x": alt.X(_field(x, "O"), title=x, sort=_as_swept(frame, x), axis=alt.Axis(labelAngle=0)),
        "y": alt.Y(_field(y, "O"), title=y, sort=_as_swept(frame, y)),
    }
    tip = [alt.Tooltip(_field(x, "N"), title=x), alt.Tooltip(_field(y, "N"), title=y)]
    form = FORMATS.get(value, ",.4~g")
    fill = alt.Color(f"{value}:Q", title=label, scale=alt.Scale(scheme="viridis"), legend=alt.Legend(format=form))
    cells = (
        alt.Chart(known)
        .mark_rect()
        .encode(**axes, color=fill, tooltip=[*tip, alt.Tooltip(f"{value}:Q", title=label, format=form)])
    )
    text = alt.Chart(known).encode(**axes, text=alt.Text(f"{value}:Q", format=form))
    behind = text.mark_text(fontSize=12, stroke="white", strokeWidth=3, strokeOpacity=0.7, strokeJoin="round")
    crosses = (
        alt.Chart(other)
        .mark_point(shape="cross", angle=45, size=180, filled=True, color=BAD)
        .encode(**axes, tooltip=[*tip, "status:N", "reason:N"])
    )
    height = 40 * len(_as_swept(frame, y))
    return styled(cells + behind + text.mark_text(fontSize=12, color="black") + crosses, label, height)


def _as_swept(frame: pd.DataFrame, knob: str) -> list[Any]:
    """A knob's values in the order of the sweep file."""
    return list(dict.fromkeys(frame[knob].tolist()))


def pareto(frame: pd.DataFrame, x: str, y: str, labels: dict[str, str], limit: float | None, paths: list[str]) -> Any:
    """Points by cost (``y``) and latency or speed (``x``): what nothing beats is filled; ``limit`` is the SLO's.

    ``frame`` needs ``best`` (nothing is both cheaper and better), as ``sweep.pareto.with_best`` tells.
    """
    selected = alt.selection_point(name="point", fields=paths, on="click")
    form = FORMATS.get(y, ",.4~g")
    tip = [alt.Tooltip(_field(path, "N"), title=path) for path in paths]
    points = (
        alt.Chart(frame)
        .mark_point(size=110, filled=True)
        .encode(
            x=alt.X(f"{x}:Q", title=labels[x], scale=alt.Scale(type="log" if x.endswith("_p95") else "linear")),
            y=alt.Y(f"{y}:Q", title=labels[y], axis=alt.Axis(format=form)),
            color=alt.Color("best:N", scale=alt.Scale(domain=["best", "beaten"], range=[GOOD, NEUTRAL])),
            shape=alt.Shape("best:N", scale=alt.Scale(domain=["best", "beaten"], range=["diamond", "circle"])),
            opacity=alt.condition(selected, alt.value(1.0), alt.value(0.4)),
            tooltip=[*tip, alt.Tooltip(f"{x}:Q", format=".3~s"), alt.Tooltip(f"{y}:Q", format=form)],
        )
        .add_params(selected)
    )
    if limit is None:
        return styled(points, "What is worth paying for")
    zone = (
        alt.Chart(pd.DataFrame({"limit": [limit], "from": [frame[x].min()]}))
        .mark_rect(color=GOOD, opacity=0.08)
        .encode(x="from:Q", x2="limit:Q")
    )
    return styled(zone + points, "What is worth paying for (inside the SLO: shaded)")


def _field(name: str, kind: str) -> str:
    """A column whose name has dots in it."""
    return f"{name.replace('.', chr(92) + '.')}:{kind}"
