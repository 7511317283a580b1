"""One run in depth: how long requests took, how full the fleet was, where time goes, and what it rests on."""

import streamlit as st
import yaml

from capsim import jobs
from capsim.charts import run as charts
from capsim.cli.tables import latency_rows, notes, render_run, run_blocks
from capsim.errors import ScenarioError
from capsim.metrics.curves import component_shares
from capsim.metrics.requests import OUTCOMES
from capsim.pages.parts import runs
from capsim.pages.parts.details import chart, table
from capsim.pages.parts.details import notes as shown_notes
from capsim.pages.parts.header import header
from capsim.pages.parts.refusal import mistaken
from capsim.pages.parts.watch import watch
from capsim.report import page as report_page
from capsim.store import Saved


def page() -> None:
    names = runs.finished()
    asked = st.query_params.get("run", names[0] if names else None)
    if asked is None:
        st.info(runs.NONE_YET, icon=":material/info:")
        st.page_link("capsim/pages/plan.py", label="Go to Plan", icon=":material/calculate:")
        return
    if names:
        chosen = st.selectbox("Run", names, names.index(asked) if asked in names else None, runs.title,
                              placeholder="Choose a run")  # fmt: skip
        asked = chosen or asked
    st.query_params["run"] = asked
    try:
        status = jobs.status(asked)
        if status is not None and status.alive:
            watch(asked)
            return
        if status is not None and status.state == "failed":
            st.error(status.message, icon=":material/error:")
            return
        show(asked, runs.read(asked))
    except ScenarioError as error:
        mistaken(error)


def show(name: str, saved: Saved) -> None:
    summary = saved.summary
    scenario = summary["scenario"]["scenario"]
    title = scenario.get("name") or f"{scenario['model']} on {scenario['node']}"
    text = yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True)
    basis = summary["basis"]["step_time"]["basis"]
    header(title, summary["run"]["id"], "simulated", basis, "capsim run scenario.yaml", text)
    shown_notes(summary["warnings"])
    latency, timeline, steps, requests, rests = st.tabs(
        ["Latency", "Timeline", "Step time", "Requests", "Assumptions"], on_change="rerun", key="tab"
    )
    for tab, draw in ((latency, _latency), (timeline, _timeline), (steps, _steps), (requests, _requests),
                      (rests, _assumptions)):  # fmt: skip
        if tab.open:
            with tab:
                draw(name, saved)
    _export(name, saved)


def _latency(name: str, saved: Saved) -> None:
    curves = runs.latencies(name, runs.OVER_TIME)
    if curves.empty or saved.summary["saturated"]:
        st.warning("No steady state: the backlog grows, and percentiles would only tell how long the run was.")
    else:
        chart(charts.latencies(curves), "latencies")
        table(latency_rows(saved.summary))


def _timeline(name: str, saved: Saved) -> None:
    replications = [int(number) for number in saved.replications["replication"]]
    one = st.segmented_control("Replication", replications, default=replications[0], key="replication")
    over_time = runs.timeline(name, replications[0] if one is None else one)
    warmup_s = float(saved.replications["start_s"].iloc[0])
    chart(charts.occupancy(over_time, warmup_s), "occupancy")
    chart(charts.batch(over_time, warmup_s), "batch")


def _steps(name: str, saved: Saved) -> None:
    chart(charts.step_time(component_shares(saved.summary["step_time_share"])), "components")
    bounds = runs.bounds(name)
    table([[f"bound by {row.bound}", f"{row.share:.1%} of busy time"] for row in bounds.itertuples()])


def _requests(name: str, saved: Saved) -> None:
    outcomes = st.pills("Outcome", list(OUTCOMES), selection_mode="multi", key="outcome")
    count, first = runs.requests(name, tuple(outcomes))
    st.caption(f"{count:,} requests after warm-up, the first {len(first):,} of them here; all are in requests.parquet")
    st.dataframe(first, hide_index=True)


def _assumptions(name: str, saved: Saved) -> None:
    facts = saved.summary["basis"].items()
    body = [[part, *(fact[key] for key in ("key", "basis", "as_of", "source"))] for part, fact in facts]
    table([["Rests on", "entry", "basis", "as of", "source"], *body])
    with st.expander("Every value that was used"):
        st.code(yaml.safe_dump(saved.summary["scenario"], sort_keys=False), language="yaml")


def _export(name: str, saved: Saved) -> None:
    directory = jobs.result_directory(name)
    summary = saved.summary
    with st.container(horizontal=True):
        st.download_button("summary.json", render_run(summary, "json"), "summary.json", on_click="ignore")
        st.download_button("summary.csv", render_run(summary, "csv"), "summary.csv", on_click="ignore")
        for file in ("requests.parquet", "segments.parquet"):
            st.download_button(file, (directory / file).read_bytes, file, on_click="ignore")
        st.download_button(
            "report.html", lambda: report_page(saved, run_blocks(summary), notes(summary["warnings"])), "report.html",
            "text/html", on_click="ignore", help="One page that opens offline.",
        )  # fmt: skip


page()
