"""The web app: ``capsim app`` opens it."""

import streamlit as st

st.set_page_config(page_title="capsim", page_icon=":material/speed:", layout="wide")
PAGES = {
    "plan": ("Plan", ":material/calculate:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "sweep": ("Sweep", ":material/grid_on:"),
    "stack": ("Stack", ":material/stacked_bar_chart:"),
    "breakeven": ("Break-even", ":material/balance:"),
    "run": ("Run", ":material/timeline:"),
    "calibration": ("Calibration", ":material/straighten:"),
    "catalog": ("Catalog", ":material/menu_book:"),
}
st.navigation(
    [st.Page(f"capsim/pages/{file}.py", title=title, icon=icon, default=file == "plan")
     for file, (title, icon) in PAGES.items()],
    position="top",
).run()  # fmt: skip
