"""Changes of the inputs with which a model that does not fit would fit."""

from collections.abc import Iterator
from typing import Any

import streamlit as st

from capsim.catalog import Catalog, load_catalog
from capsim.errors import Infeasible, ScenarioError
from capsim.pages.parts import scenarios
from capsim.pages.parts.inputs import OF_A_NODE, Asked
from capsim.scenario import resolve, scenario_of

MOST = 4


@st.cache_data(max_entries=64, show_spinner=False)
def remedies(asked: Asked) -> dict[str, dict[str, Any]]:
    """What to set which input to, by what the button says: smaller weights, and the smallest nodes that would do."""
    found: dict[str, dict[str, Any]] = {}
    for label, overrides, changes in _tries(asked):
        if len(found) == MOST:
            break
        if _fits(asked, overrides):
            found[label] = changes
    return found


def _tries(asked: Asked) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    catalog = load_catalog()
    scenario = scenario_of(scenarios.path_of(asked.scenario), asked.overrides)
    for weights in catalog.models[scenario.model].weight_formats:
        if weights != scenario.weights:
            yield f"Take {weights} weights", (f"weights={weights}",), {"weights": weights}
    for node in sorted(catalog.nodes, key=lambda node: _memory_bytes(catalog, node)):
        if _memory_bytes(catalog, node) > _memory_bytes(catalog, scenario.node):
            yield f"Take {node}", (f"node={node}", *OF_A_NODE), {"nodes": [node]}


def _memory_bytes(catalog: Catalog, node: str) -> float:
    return catalog.nodes[node].devices * catalog.devices[catalog.nodes[node].device].memory_bytes


def _fits(asked: Asked, overrides: tuple[str, ...]) -> bool:
    try:
        resolve(scenarios.path_of(asked.scenario), (*asked.overrides, *overrides))
    except (Infeasible, ScenarioError):
        return False
    return True
