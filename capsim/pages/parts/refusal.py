"""What stands in the place of an answer where there is none, and what to do about it."""

import streamlit as st

from capsim.errors import Infeasible, ScenarioError
from capsim.pages.parts import scenarios
from capsim.pages.parts.inputs import Asked
from capsim.pages.parts.remedies import remedies


def mistaken(error: ScenarioError) -> None:
    """Every mistake, with its place."""
    text = "\n".join(f"- {problem}" for problem in error.problems)
    st.error(scenarios.unnamed(text), icon=":material/error:")


def infeasible(error: Infeasible, asked: Asked) -> None:
    """What is short, and changes of the inputs that would mend it as buttons."""
    st.error(error.message, icon=":material/error:")
    found = remedies(asked)
    if not found:
        st.markdown("What would help:\n" + "".join(f"\n- {remedy}" for remedy in error.remedies))
    with st.container(horizontal=True):
        for label, changes in found.items():
            st.button(label, on_click=st.session_state.update, args=(changes,), icon=":material/build:")
