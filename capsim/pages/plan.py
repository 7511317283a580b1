"""How many sessions, nodes and dollars: estimated as inputs move, simulated when asked."""

from dataclasses import replace
from typing import Any

import streamlit as st

from capsim import jobs
from capsim.capacity.model_error import headline
from capsim.cli.plan_table import change_rows, estimate_rows, excluded_rows, fleet_size_rows, growth_rows, relaxed_rows
from capsim.errors import Infeasible, ScenarioError
from capsim.pages.parts import details, results
from capsim.pages.parts.answer import SHOWN, answers, by_key
from capsim.pages.parts.estimates import Estimated, estimate
from capsim.pages.parts.header import header
from capsim.pages.parts.inputs import sidebar
from capsim.pages.parts.refusal import infeasible, mistaken
from capsim.pages.parts.watch import watch


def page() -> None:
    asked = sidebar()
    try:
        found = estimate(asked)
    except ScenarioError as error:
        mistaken(error)
    except Infeasible as error:
        infeasible(error, asked[0])
    else:
        answer(found)


def answer(found: Estimated) -> None:
    job = results.plan_job(found.asked, found.name)
    status = jobs.status(job.name)
    document = results.plan_document(found.asked, job.name)
    finished = document if document and not document["interrupted"] else None
    how = "estimated" if finished is None else "simulated"
    asked, basis = found.asked, found.basis["step_time"]["basis"]
    header(found.name, job.name, how, basis, asked.command("plan"), asked.shared(asked.text))
    simulate(job, status, finished is not None)
    if document and document["interrupted"]:
        low, high = document["bracket"]
        st.info(f"Cancelled: at least {low:,} sessions a node" + (f", fewer than {high:,}" if high else ""))
    for row in found.excluded if not found.rows else []:
        st.error(f"{row['node']}: {row['reason']}. {'; '.join(row['remedies'])}.", icon=":material/error:")
    answers(found.rows, by_key(finished))
    if len(found.rows) > SHOWN:
        details.table(estimate_rows(found.rows, finished["candidates"] if finished else []), "All that can serve")
    below(found, finished)


def simulate(job: jobs.Job, status: jobs.Status | None, known: bool) -> None:
    """The button, or how far the simulation is, or why there is none."""
    if status is not None and status.alive:
        watch(job.name)
        return
    if status is not None and status.state == "failed":
        st.error(status.message, icon=":material/error:")
    with st.container(horizontal=True):
        if known:
            st.button("Simulate again", icon=":material/play_arrow:", on_click=start, args=(job,))
        else:
            st.button("Simulate", type="primary", icon=":material/play_arrow:", on_click=start, args=(job,))
        load = replace(job, verb="run")
        if st.button("Run its own load", icon=":material/timeline:", help="The scenario's arrivals, in depth on Run."):
            jobs.start(load)
            st.switch_page("capsim/pages/run.py", query_params={"run": load.name})


def start(job: jobs.Job) -> None:
    jobs.start(job)


def below(found: Estimated, document: dict[str, Any] | None) -> None:
    candidate = document["candidates"][0] if document else None
    if document and candidate:
        st.markdown(f"**{headline(candidate)}; {candidate['binds']} binds.**")
        details.curves(document)
    left, right = st.columns(2, gap="large")
    with left:
        details.memory(found.memory, candidate["kv"]["mean_utilisation"] if candidate else 0.0)
        if candidate:
            details.costs(candidate["cost"])
    if document and candidate:
        with right:
            details.table(relaxed_rows(candidate), "What binds")
            details.table(fleet_size_rows(candidate["fleet"]), "The fleet for all users")
        details.table(change_rows(document["would_change"]), "What would change it")
        details.table(growth_rows(candidate["growth"]), "As users grow")
    details.table(excluded_rows(found.excluded), "Cannot serve")
    details.notes(candidate["warnings"] if candidate else list(found.warnings))
    with st.expander("What it rests on"):
        details.rests_on(found.basis)


page()
