"""The runs that pages choose from, and what is read of them."""

from pathlib import Path

import pandas as pd
import streamlit as st

from capsim import jobs
from capsim.errors import ScenarioError
from capsim.metrics import curves
from capsim.store import Saved, load

OVER_TIME = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
FIRST_ROWS = 2000
NONE_YET = "No run is kept yet. On the Plan page press Simulate; what it simulates appears here."


def finished() -> list[str]:
    """Jobs whose directory holds a run, the latest first."""
    return [name for name in jobs.names() if (jobs.result_directory(name) / "summary.json").is_file()]


def title(name: str) -> str:
    asked = jobs.asked(name)
    return name if asked is None else f"{asked.title} ({asked.verb} {name})"


def read(name: str) -> Saved:
    """A run that was kept.

    Raises
    ------
    ScenarioError
        There is none of that name, or it cannot be read.
    """
    directory = jobs.result_directory(name)
    summary = directory / "summary.json"
    if not summary.is_file():
        raise ScenarioError.one("no such run is kept here", key=name)
    return _read(directory, summary.stat().st_mtime_ns)


@st.cache_resource(max_entries=16, show_spinner="Reading the run")
def _read(directory: Path, changed_ns: int) -> Saved:
    return load(directory)


@st.cache_data(max_entries=32, show_spinner="Reading the run")
def latencies(name: str, names: tuple[str, ...]) -> pd.DataFrame:
    return curves.latency_curves(read(name).requests(), names)


@st.cache_data(max_entries=16, show_spinner="Reading the run")
def timeline(name: str, replication: int) -> pd.DataFrame:
    saved = read(name)
    segments = saved.segments()
    scenario = saved.summary["scenario"]
    replicas = scenario["resolved"]["parallelism"]["dp"] * scenario["scenario"].get("nodes", 1)
    one = segments[segments["replication"] == replication]
    return curves.timeline(one, scenario["resolved"]["memory"]["blocks"], replicas)


@st.cache_data(max_entries=16, show_spinner="Reading the run")
def bounds(name: str) -> pd.DataFrame:
    return curves.bound_shares(read(name).segments())


@st.cache_data(max_entries=16, show_spinner="Reading the run")
def requests(name: str, outcomes: tuple[str, ...]) -> tuple[int, pd.DataFrame]:
    """How many measured requests ended so, and the first of them."""
    table = read(name).requests()
    chosen = table[table["outcome"].isin(outcomes)] if outcomes else table
    return len(chosen), chosen.head(FIRST_ROWS)
