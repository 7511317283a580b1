"""Sweeps that visitors start: the file they make, and the points that are finished by now."""

from typing import Any

import pandas as pd
import streamlit as st
import yaml

from capsim import jobs
from capsim.errors import ScenarioError
from capsim.sweep import keys_of, load_sweep, read_points

MOST_POINTS = 200
KNOBS = {
    "kv_format": "bf16, fp8", "weights": "bf16, fp8", "node": "h100x8, h200x8", "nodes": "1, 2, 3",
    "scheduler.max_num_seqs": "64, 128, 256", "scheduler.max_num_batched_tokens": "2048, 8192",
    "scheduler.enable_prefix_caching": "true, false", "slo.ttft_s": "0.5, 1, 2", "slo.tpot_s": "0.03, 0.05, 0.1",
    "workload.arrival.rate_per_s": "1, 2, 4", "seed": "1, 2, 3",
}  # fmt: skip
"""What may be varied, with values to begin with."""


def values(path: str, text: str) -> list[Any]:
    """Values separated by commas.

    Raises
    ------
    ScenarioError
        None, or not plain values.
    """
    try:
        read = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ScenarioError.one(f"expected values with commas between them, got '{text}'", key=path) from error
    if not read or any(isinstance(value, (dict, list)) for value in read):
        raise ScenarioError.one(f"expected plain values with commas between them, got '{text}'", key=path)
    return list(read)


def job(task: str, scenario: str, grid: dict[str, list[Any]], title: str) -> jobs.Job:
    """A sweep of a scenario's text.

    Raises
    ------
    ScenarioError
        More points than a page can wait for.
    """
    points = 1
    for column in grid.values():
        points *= len(column)
    if points > MOST_POINTS:
        message = f"{points:,} points are more than the {MOST_POINTS} that the app runs"
        raise ScenarioError.one(message, key="grid", hint="shorten a list, or give the file to capsim sweep")
    text = yaml.safe_dump({"scenario": "scenario.yaml", "task": task, "grid": grid}, sort_keys=False)
    return jobs.Job("sweep", {"sweep.yaml": text, "scenario.yaml": scenario}, title)


def points(name: str) -> tuple[list[str], pd.DataFrame]:
    """What varies in a sweep, and a row a point, those that are missing too."""
    sweep = load_sweep(jobs.input_file(name, "sweep.yaml"))
    return sweep.paths, read_points(sweep, jobs.result_directory(name), _keys(name))


@st.cache_data(max_entries=64, show_spinner="Looking for the points of the sweep")
def _keys(name: str) -> list[str]:
    """A job's file stays as it is, and its points are looked for once a second."""
    return keys_of(load_sweep(jobs.input_file(name, "sweep.yaml")))
