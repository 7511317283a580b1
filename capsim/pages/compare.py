"""Runs beside each other: what differs, whether chance or the model's error explains it, and what it costs."""

import pandas as pd
import streamlit as st

from capsim.charts.compare import latencies
from capsim.cli.compare import comparison_blocks, comparison_notes
from capsim.compare import compare
from capsim.errors import ScenarioError
from capsim.glossary import METRICS
from capsim.json_text import to_json
from capsim.pages.parts import runs
from capsim.pages.parts.details import chart, table
from capsim.pages.parts.refusal import mistaken

MOST = 4
DRAWN = ("ttft_s", "tpot_s", "e2e_s")


def page() -> None:
    names = runs.finished()
    if len(names) < 2:
        st.info(f"It takes two runs to compare. {runs.NONE_YET}", icon=":material/info:")
        st.page_link("capsim/pages/plan.py", label="Go to Plan", icon=":material/calculate:")
        return
    asked = [name for name in st.query_params.get_all("runs") if name in names][:MOST]
    chosen = st.multiselect("Runs, the base first", names, asked, runs.title, max_selections=MOST)
    st.query_params["runs"] = chosen
    if len(chosen) < 2:
        st.info("Choose two runs or more; the first is what the others are held against.", icon=":material/info:")
        return
    try:
        show(chosen)
    except ScenarioError as error:
        mistaken(error)


def show(names: list[str]) -> None:
    base, *others = [runs.read(name) for name in names]
    document = compare(base, others)
    curves = pd.concat([runs.latencies(name, DRAWN).assign(run=runs.title(name)) for name in names])
    latency = st.segmented_control("Latency", DRAWN, default=DRAWN[0], format_func=lambda name: METRICS[name].label)
    drawn = curves[curves["latency"] == (latency or DRAWN[0])]
    chart(latencies(drawn, latency or DRAWN[0]), "curves")
    for other in document["others"]:
        with st.container(border=True):
            for note in comparison_notes(document["base"], other):
                st.warning(note, icon=":material/warning:")
            head, figures, costs, settings = comparison_blocks(document["base"], other)
            st.markdown("  \n".join(f"**{what}** {which}" for what, which in head))
            for rows in (figures, costs, settings):
                table(rows)
    st.download_button("comparison.json", to_json(document), "comparison.json", on_click="ignore")


page()
