"""The web app: ``capsim app`` opens it."""

import streamlit as st

st.set_page_config(page_title="capsim", page_icon=":material/speed:", layout="wide")
st.navigation(
    [st.Page("capsim/pages/plan.py", title="Plan", icon=":material/calculate:", default=True)], position="top"
).run()
