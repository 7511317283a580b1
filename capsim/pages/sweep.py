"""Many scenarios of one: a figure over two knobs, what is worth paying for, and every point in depth."""

from typing import Any

import pandas as pd
import streamlit as st

from capsim import jobs
from capsim.charts.sweep import heatmap, pareto
from capsim.cli.sweep import COLUMNS
from capsim.errors import ScenarioError
from capsim.pages.parts import scenarios, sweeps
from capsim.pages.parts.details import chart
from capsim.pages.parts.refusal import mistaken
from capsim.pages.parts.watch import watch
from capsim.scenario import scenario_of
from capsim.sweep.pareto import with_best
from capsim.sweep.spec import assignments

LABELS = {name: label for name, (label, _) in COLUMNS.items()}
SPEEDS = ("ttft_s_p95", "tpot_s_p95")
TASKS = {"run": "its own load", "plan": "the sessions a node carries"}
FIRST = {"run": ["scheduler.max_num_seqs"], "plan": ["kv_format"]}


def page() -> None:
    with st.sidebar:
        try:
            ask()
        except ScenarioError as error:
            mistaken(error)
    names = jobs.names("sweep")
    asked = st.query_params.get("sweep", names[0] if names else None)
    if asked is None:
        st.info("No sweep is kept yet. Choose knobs and values at the left, and press Sweep.", icon=":material/info:")
        return
    chosen = st.selectbox("Sweep", names, names.index(asked) if asked in names else None, title, placeholder="Choose")
    st.query_params["sweep"] = chosen or asked
    try:
        show(chosen or asked)
    except ScenarioError as error:
        mistaken(error)


def title(name: str) -> str:
    asked = jobs.asked(name)
    return name if asked is None else f"{asked.title} ({name})"


def ask() -> None:
    """A scenario, what to ask of it, and up to three knobs with their values."""
    key = st.selectbox("Scenario", scenarios.keys(), key="scenario", bind="query-params")
    task = st.radio("Simulate", list(TASKS), format_func=TASKS.__getitem__, key="task", horizontal=True)
    knobs = st.multiselect("Knobs", list(sweeps.KNOBS), FIRST[task], key=f"knobs-{task}", max_selections=3)
    grid = {
        path: sweeps.values(path, st.text_input(path, sweeps.KNOBS[path], 2000, f"values-{path}")) for path in knobs
    }
    if not grid:
        st.caption("Choose what to vary.")
        return
    job = sweeps.job(task, scenarios.text(key, ()), grid, f"{', '.join(grid)} of {key}")
    st.caption(f"{job_points(grid):,} points; each takes from a second to a minute, two at a time.")
    st.button("Sweep", type="primary", icon=":material/play_arrow:", on_click=start, args=(job,))


def job_points(grid: dict[str, list[Any]]) -> int:
    return len(pd.MultiIndex.from_product(list(grid.values())))


def start(job: jobs.Job) -> None:
    st.query_params["sweep"] = jobs.start(job)


def show(name: str) -> None:
    status = jobs.status(name)
    if status is None:
        raise ScenarioError.one("no such sweep is kept here", key=name)
    if status.state == "failed":
        st.error(status.message, icon=":material/error:")
    if status.alive:
        watch(name, lambda: drawn(name))
    else:
        drawn(name)


def drawn(name: str) -> None:
    """What is finished by now."""
    paths, frame = sweeps.points(name)
    known = [figure for figure in COLUMNS if figure in frame and frame[figure].notna().any()]
    figures = [figure for figure in known if pd.api.types.is_numeric_dtype(frame[figure])]
    if figures:
        figures_of(name, frame, paths, figures)
    elif (frame["status"] == "failed").all():
        st.error("No point can be simulated; the reasons are in the table.", icon=":material/error:")
    else:
        st.info("No point is finished yet.", icon=":material/hourglass_top:")
    st.dataframe(frame[[*paths, "status", "reason", *known]].rename(columns=LABELS), hide_index=True)
    st.download_button("points.csv", frame.to_csv(index=False), "points.csv", on_click="ignore")


def figures_of(name: str, frame: pd.DataFrame, paths: list[str], figures: list[str]) -> None:
    """A figure over two knobs, and what is worth paying for."""
    place = st.columns(2)
    with place[0]:
        value = st.selectbox("Figure", figures, format_func=LABELS.__getitem__, key="figure")
        x, y = (paths * 2)[:2]
        chart(heatmap(frame, x, y, value, LABELS[value]), "heatmap", 420)
    with place[1]:
        worth(name, frame, paths, figures)


def worth(name: str, frame: pd.DataFrame, paths: list[str], figures: list[str]) -> None:
    """Cost against speed; a point that is clicked can be opened."""
    costs = [figure for figure in ("usd_per_million_output_tokens", "monthly_usd") if figure in figures]
    speeds = [speed for speed in SPEEDS if speed in figures]
    if not costs or not speeds:
        st.caption("Without a price there is no cost to set against speed: price unknown.")
        return
    cost = st.segmented_control("Cost", costs, default=costs[0], format_func=LABELS.__getitem__, key="cost") or costs[0]
    speed = speeds[0]
    slo = scenario_of(jobs.input_file(name, "scenario.yaml")).slo
    limit = None if slo is None or f"slo.{speed[:6]}" in paths else slo.thresholds.get(speed.removesuffix("_p95"))
    plain = {path: path.replace(".", " ") for path in paths}  # a selection takes dots for levels
    points = with_best(frame, speed, cost).sort_values("best").rename(columns=plain)  # the best are drawn on top
    drawn = pareto(points, speed, cost, LABELS, limit, list(plain.values()))
    picked = st.altair_chart(drawn, key="pareto", on_select="rerun", height=380)
    chosen = picked.selection.get("point") or []
    if chosen:
        point = {path: chosen[0][plain[path]] for path in paths}
        st.markdown(", ".join(f"`{path}` {value}" for path, value in point.items()))
        st.button("Open this point in Run", on_click=open_point, args=(name, point), icon=":material/timeline:")


def open_point(name: str, point: dict[str, Any]) -> None:
    """Simulate the point alone, so that all of it is kept."""
    scenario = scenarios.merged(jobs.input_file(name, "scenario.yaml"), tuple(assignments(point)))
    words = ", ".join(f"{path} {value}" for path, value in point.items())
    st.session_state["opened"] = jobs.start(jobs.Job("run", {"scenario.yaml": scenario}, words))


if (opened := st.session_state.pop("opened", None)) is not None:
    st.switch_page("capsim/pages/run.py", query_params={"run": opened})
page()
