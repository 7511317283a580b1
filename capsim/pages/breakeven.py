"""From which load on nodes of one's own are cheaper than a hosted model."""

from typing import Any

import streamlit as st

from capsim.breakeven import breakeven
from capsim.charts.breakeven import monthly_cost
from capsim.cli.breakeven import blocks, lines
from capsim.errors import Infeasible, ScenarioError
from capsim.pages.parts import scenarios
from capsim.pages.parts.details import chart, table
from capsim.pages.parts.header import header
from capsim.pages.parts.refusal import mistaken
from capsim.scenario import resolve


def page() -> None:
    with st.sidebar:
        key = st.selectbox("Scenario", scenarios.keys(), key="scenario", bind="query-params")
        spares = st.number_input("Spare nodes", 0, 100, 1, key="spares", bind="query-params")
        hits = st.number_input(
            "Cached share of input, at the API", 0.0, 1.0, None, 0.05, key="hits", bind="query-params",
            placeholder="as here", help="Share of input tokens that the API's cache holds. Empty: as the nodes' own.",
        )  # fmt: skip
    try:
        document = answer(key, spares, hits)
    except ScenarioError as error:
        mistaken(error)
    except Infeasible as error:
        st.error(str(error), icon=":material/error:")
    else:
        show(key, spares, hits, document)


@st.cache_resource(max_entries=64, show_spinner="Setting nodes beside price lists")
def answer(key: str, spares: int, hits: float | None) -> dict[str, Any]:
    return breakeven(resolve(scenarios.path_of(key)), estimate=True, spare_nodes=spares, hit_rate=hits)


def show(key: str, spares: int, hits: float | None, document: dict[str, Any]) -> None:
    options = ("--estimate", f"--spare-nodes {spares}", *([] if hits is None else [f"--hit-rate {hits:g}"]))
    scenario = document["scenario"]["scenario"]
    command = f"{scenarios.command('breakeven', key, ())} {' '.join(options)}"
    basis = resolve(scenarios.path_of(key)).basis["step_time"][1].basis
    header(scenario.get("name", key), key, "estimated", basis, command, scenarios.text(key, ()))
    names = {tier["key"]: tier["name"] for tier in document["tiers"]}
    tiers = st.multiselect("Price lists in the chart", list(names), format_func=names.__getitem__, placeholder="a few")
    chart(monthly_cost(document, tiers or None), "cost", 440)
    for rows in blocks(document):
        table(rows)
    for line in lines(document):
        st.caption(line.replace("$", "\\$"))


page()
