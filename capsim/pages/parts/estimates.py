"""The answer before it is asked for: the closed form, looked up once for each question."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from capsim.capacity import answers
from capsim.errors import Infeasible
from capsim.memory import MemoryBudget
from capsim.pages.parts import scenarios
from capsim.pages.parts.inputs import Asked
from capsim.scenario import resolve
from capsim.scenario.lock import basis_of


@dataclass(frozen=True)
class Estimated:
    """What ``capsim.capacity.answers`` says of a question, and of the node that it was asked of: its memory and what a
    reader should know."""

    asked: Asked
    name: str
    rows: list[dict[str, Any]]
    excluded: list[dict[str, Any]]
    memory: MemoryBudget
    slo: dict[str, float]
    basis: dict[str, dict[str, str]]
    warnings: tuple[str, ...]


def estimate(questions: list[Asked]) -> Estimated:
    """The answer to the first question that has one: a plan is asked of a node that the model fits.

    Raises
    ------
    ScenarioError
        Mistakes in what was asked.
    Infeasible
        The model fits none of the nodes.
    """
    failure: Infeasible | None = None
    for asked in questions:
        try:
            return _estimate(asked)
        except Infeasible as error:
            failure = failure or error
    assert failure is not None
    raise failure


@st.cache_resource(max_entries=256, show_spinner=False)
def _estimate(asked: Asked) -> Estimated:
    resolved = resolve(scenarios.path_of(asked.scenario), asked.overrides)
    found = answers(resolved)
    slo = resolved.scenario.slo
    assert slo is not None
    return Estimated(
        asked, resolved.name, found["estimates"], found["excluded"], resolved.memory, slo.thresholds,
        basis_of(resolved), resolved.warnings,
    )  # fmt: skip
