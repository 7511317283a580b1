"""The Python API: what the command line does, as functions. ``import capsim`` has all of it, loaded when first used."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pandas as pd

from capsim import cost, sweep
from capsim.capacity import Capacity
from capsim.capacity import find_capacity as search_capacity
from capsim.experiment import Progress, Run
from capsim.experiment import run as run_experiment
from capsim.model_error import bracketed
from capsim.scenario import Resolved, resolve
from capsim.source import assignment

__all__ = ["estimate_cost", "find_capacity", "load_scenario", "run_sweep", "simulate", "summarize"]


def load_scenario(path: Path | str, settings: Mapping[str, Any] | None = None) -> Resolved:
    """Read a scenario file, change some of its values by dotted path, and look every name up in the catalog.

    Raises
    ------
    ScenarioError
        Every mistake in the file and the settings, each with where it is.
    Infeasible
        The model, or every request, is too large for the node.

    Examples
    --------
    >>> scenario = load_scenario("scenarios/edge-llama8b-mac.yaml", {"workload.arrival.rate_per_s": 0.03})
    >>> scenario.node.name
    'Mac mini M4 Pro 64 GB'
    """
    return resolve(path, [assignment(key, value) for key, value in (settings or {}).items()])


def simulate(scenario: Resolved, on_progress: Progress | None = None) -> Run:
    """All replications of a scenario: their tables and a summary. Ctrl-C keeps what had ended by then.

    Examples
    --------
    >>> scenario = load_scenario("scenarios/edge-llama8b-mac.yaml", {"workload.requests": 100, "replications": 2})
    >>> run = simulate(scenario)
    >>> len(run.replications[0].records.requests_table())
    100
    """
    return run_experiment(scenario, on_progress)


def summarize(run: Run) -> dict[str, Any]:
    """The document that ``capsim run --format json`` prints (docs/results.md), model error included.

    Two more replications are simulated for that error.

    Examples
    --------
    >>> scenario = load_scenario("scenarios/edge-llama8b-mac.yaml", {"workload.requests": 100, "replications": 2})
    >>> summary = summarize(simulate(scenario))
    >>> summary["requests"]["offered"]
    200
    >>> low_s, high_s = summary["ttft_s"]["ci95"]
    >>> low_s < summary["ttft_s"]["mean"] < high_s
    True
    """
    return bracketed(run).summary


def find_capacity(scenario: Resolved, on_trial: Callable[[int, Run], None] = lambda sessions, run: None) -> Capacity:
    """The most sessions that the scenario's nodes carry inside its SLO: ``low`` pass, ``high`` do not.

    ``on_trial`` is told each number of sessions that is tried, and its run.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or no number of users misses it.
    Infeasible
        Not even one session is served inside the SLO.

    Examples
    --------
    >>> scenario = load_scenario("scenarios/edge-llama8b-mac.yaml", {"replications": 1})
    >>> capacity = find_capacity(scenario)
    >>> capacity.low < capacity.high
    True
    """
    return search_capacity(scenario, on_trial)


def estimate_cost(scenario: Resolved, nodes: int | None = None) -> dict[str, Any]:
    """What the scenario's nodes, or so many, cost a month by line: ``{price, monthly_usd, lines}``; None if unknown.

    Examples
    --------
    >>> scenario = load_scenario("scenarios/chat-llama70b-h100.yaml")
    >>> bill = estimate_cost(scenario, nodes=2)
    >>> bill["monthly_usd"] == sum(line["monthly_usd"] for line in bill["lines"])
    True
    """
    return cost.monthly_cost(scenario.price, scenario.scenario.nodes if nodes is None else nodes)


def run_sweep(
    file: Path | str, directory: Path | str, *, executor: Executor | None = None, jobs: int | None = None
) -> pd.DataFrame:
    """Run a sweep file (docs/sweeps.md): a row a point. What ``directory`` holds already is not run again.

    Points run on any executor of ``concurrent.futures``, or on ``jobs`` processes of this machine, as many as it has
    cores without either. A script that starts processes must do so under ``if __name__ == "__main__":``.

    Raises
    ------
    ScenarioError
        Mistakes in the file; or the directory is in use, holds something else, or cannot be written.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from tempfile import TemporaryDirectory
    >>> with ThreadPoolExecutor() as executor, TemporaryDirectory() as directory:
    ...     table = run_sweep("tests/data/small-sweep.yaml", directory, executor=executor)
    >>> table["status"].tolist()
    ['done', 'done']
    """
    return sweep.run_sweep(sweep.load_sweep(file), directory, executor, jobs)
