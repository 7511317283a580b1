"""The row above an answer: what it is of, what it rests on, and how to take it along."""

from typing import Literal

import streamlit as st

Colour = Literal["green", "orange", "red"]
BASIS_COLOUR: dict[str, Colour] = {
    "measured": "green", "calibrated": "green", "vendor": "orange", "datasheet": "orange", "assumed": "red",
}  # fmt: skip


def header(title: str, run: str, how: str, basis: str, command: str, text: str, file: str = "scenario.yaml") -> None:
    """``how`` the figures were come by, and on which ``basis`` step times rest."""
    name, copy, download = st.columns([5, 2, 2], vertical_alignment="center")
    name.subheader(title, anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(how, color="blue" if how == "simulated" else "gray", icon=":material/query_stats:")
        st.badge(f"step times {basis}", color=BASIS_COLOUR[basis], icon=":material/speed:")
        st.caption(f"run {run}", width="content")
    with copy.popover("Copy CLI command", icon=":material/terminal:", width="stretch"):
        st.code(command, language="bash", wrap_lines=True)
    download.download_button(
        file, text, file, "application/yaml", icon=":material/download:",
        on_click="ignore", width="stretch", help="Download it with all that was changed.",
    )  # fmt: skip
