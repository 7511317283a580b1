"""Levers on the cost of a token: each alone, one after the other, all together, and what was claimed."""

from typing import Any

import streamlit as st
import yaml

from capsim import jobs
from capsim.charts.stack import waterfall
from capsim.cli.stack import blocks, lines
from capsim.errors import ScenarioError
from capsim.levers import load_stack
from capsim.pages.parts import results, scenarios
from capsim.pages.parts.details import chart, table
from capsim.pages.parts.header import header
from capsim.pages.parts.refusal import mistaken
from capsim.pages.parts.watch import watch
from capsim.scenario import resolve

HOW = {"closed form": ("--estimate",), "simulated": ()}


def page() -> None:
    with st.sidebar:
        key = st.selectbox("Stack", scenarios.shipped_with("levers"), key="stack", bind="query-params")
        spec = load_stack(scenarios.path_of(key))
        st.caption(spec.description)
        names = [lever.name for lever in spec.levers]
        chosen = st.multiselect("Levers, in the order in which they are pulled", names, names, key=f"levers-{key}")
        how = st.radio("By", list(HOW), key="how", bind="query-params", help="Simulated, it takes minutes.")
    if not chosen:
        st.info("Choose a lever at the left.", icon=":material/info:")
        return
    levers = [lever.model_dump() for name in chosen for lever in spec.levers if lever.name == name]
    head = spec.model_dump(mode="json", exclude={"levers", "scenario"}, exclude_none=True)
    files = {
        "stack.yaml": yaml.safe_dump(head | {"scenario": "scenario.yaml", "levers": levers}, sort_keys=False),
        "scenario.yaml": spec.scenario.read_text(),
    }
    basis = resolve(spec.scenario).basis["step_time"][1].basis
    show(jobs.Job("stack", files, spec.name or key, HOW[how]), key, how, basis)


def show(job: jobs.Job, key: str, how: str, basis: str) -> None:
    status, document = jobs.status(job.name), results.document(job.name, jobs.STACK)
    command = " ".join(["capsim stack", f"scenarios/{key}.yaml", *job.options])
    badge = "simulated" if document and how == "simulated" else "estimated"
    header(job.title, job.name, badge, basis, command, job.files["stack.yaml"], "stack.yaml")
    if status is not None and status.alive:
        watch(job.name)
        return
    if status is not None and status.state == "failed":
        mistaken(ScenarioError.one(status.message))
    if document is None:
        st.info("Press Pull: the closed form answers every set of levers in a minute or less.", icon=":material/info:")
        st.button("Pull", type="primary", icon=":material/play_arrow:", on_click=pull, args=(job,))
        return
    drawn(document)


def pull(job: jobs.Job) -> None:
    jobs.start(job)


def drawn(document: dict[str, Any]) -> None:
    chart(waterfall(document), "waterfall", 420)
    for rows in blocks(document):
        table(rows)
    for line in lines(document):
        st.caption(line.replace("$", "\\$"))


page()
