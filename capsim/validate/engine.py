"""Predicted against measured: the runs of a real engine, and the simulation of the same requests beside them.

Steps of random composition that were measured between the runs are fitted, the fit serves the step times, and each
run's requests go through the simulator. Nothing of a run is used to predict it but who asked when, and for how much.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from capsim.calibrate.device import described_model
from capsim.calibrate.steps import fit_steps, predict_steps
from capsim.engine_spec import Reserve
from capsim.errors import ScenarioError
from capsim.llm import ModelSpec
from capsim.measurements import Measurements, Model, Run, Step
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.sim.spec import ClusterSpec, Policy
from capsim.steptime import StepTimeModel
from capsim.steptime.one_product import OneProduct
from capsim.steptime.whole_step import WholeStep
from capsim.workload.requests import OpenArrivals, Request

SCHEMA_VERSION = 1
LIMITS = {"ttft_mean_s": (0.10, 1.0), "tpot_mean_s": (0.07, 1.5), "e2e_p50_s": (0.07, 1.5), "requests_per_s": (0.03, 0)}
"""For each figure the mean error that passes, or how many times the engine's own repeat error where that is more."""
MOST_LOAD = 0.8
MOST_REPEAT = 0.15
"""An engine that differs from itself by more than this when a load is repeated is no measure of anything."""
ENOUGH_RUNS = 6
ENGINE_ARGS = ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "block_tokens")


class Mirror(NamedTuple):
    """How capsim schedules as an engine does, and how that one's step time reads a batch."""

    reserve: Reserve | Literal["chunk"]
    step_time: Callable[[StepTimeModel], StepTimeModel]


ENGINES = {"vllm": Mirror("prompt", lambda model: model), "transformers": Mirror("chunk", OneProduct)}


def validate(measurements: Measurements) -> dict[str, Any]:
    """Simulated and measured figures of every run, mean errors beside the engine's repeat error: the JSON document.

    Raises
    ------
    ScenarioError
        No run in the file, an engine or a model that is not known, or too few steps to fit.
    """
    if not measurements.runs:
        hint = "python -m kernels_bench engine transformers|vllm drives an engine and writes such a file"
        raise ScenarioError.one("no engine runs in this file", path=measurements.path, hint=hint)
    kinds = dict.fromkeys((run.engine, run.model) for run in measurements.runs)
    return {
        "schema_version": SCHEMA_VERSION, "file": str(measurements.path), "device": measurements.header.device,
        "engines": [_validate(measurements, engine, model) for engine, model in kinds],
    }  # fmt: skip


def _validate(measurements: Measurements, engine: str, name: str) -> dict[str, Any]:
    """One engine with one model in it."""
    described = next((m for m in measurements.models if (m.engine, m.name) == (engine, name)), None)
    if described is None or engine not in ENGINES:
        what = f"no line describes model {name} of {engine}" if engine in ENGINES else f"unknown engine {engine}"
        raise ScenarioError.one(what, path=measurements.path, hint=f"engines: {', '.join(ENGINES)}")
    steps = [step for step in measurements.steps if (step.engine, step.model) == (engine, name)]
    try:
        cluster = _cluster(described, described_model(described, [measurements]), steps)
        fit = held_out(steps)
    except ValueError as error:
        raise ScenarioError.one(f"{engine}, {name}: {error}", path=measurements.path) from error
    asked = defaultdict(list)
    for request in measurements.requests:
        asked[request.run].append(request.model_dump())
    runs = []
    for run in measurements.runs:
        if (run.engine, run.model) == (engine, name):
            if not asked[run.run]:
                raise ScenarioError.one(f"run {run.run} has no requests", path=measurements.path)
            if run.steps is None or run.preemptions is None:
                what = f"run {run.run} tells no steps and preemptions: only its client saw it"
                raise ScenarioError.one(what, path=measurements.path, hint="see python -m kernels_bench engine --help")
            counted = run.steps, run.preemptions
            served = pd.DataFrame(asked[run.run]).sort_values("request", ignore_index=True)
            try:
                runs.append(_beside(cluster, run, counted, served))
            except ValueError as error:
                raise ScenarioError.one(f"run {run.run}: {error}", path=measurements.path) from error
    _judge_loads(runs)
    return {"engine": engine, "model": name, "steps": fit, "runs": runs, "errors": _errors(runs)}


def _cluster(described: Model, model: ModelSpec, steps: Sequence[Step]) -> ClusterSpec:
    """The engine as it was measured: one replica whose steps take what the fit says."""
    limits = {name: _count(described, name) for name in ENGINE_ARGS}
    mirror = ENGINES[described.engine]
    step_time = mirror.step_time(WholeStep(model, fit_steps(steps)))
    policy = Policy(limits["max_num_seqs"], limits["max_num_batched_tokens"], reserve=mirror.reserve)
    return ClusterSpec(
        1, Parallelism(1), limits["kv_blocks"], BlockRule(limits["block_tokens"]), policy,
        model.max_context_tokens, "least-loaded", step_time, model.streams,
    )  # fmt: skip


def _count(described: Model, name: str) -> int:
    found = described.engine_args.get(name)
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"engine_args.{name} must be a whole number > 0 (got {found!r})")
    return found


def held_out(steps: Sequence[Step]) -> dict[str, Any]:
    """Errors of the fit on steps it has not seen: every other episode, by the fit of the rest."""
    relative = []
    for parity in (0, 1):
        unseen = [step for step in steps if step.episode % 2 == parity]
        if unseen:
            seconds = np.array([step.step_s for step in unseen])
            seen = [step for step in steps if step.episode % 2 != parity]
            relative.append((predict_steps(fit_steps(seen), unseen) - seconds, seconds))
    error, seconds = (np.concatenate(parts) for parts in zip(*relative, strict=True))
    return {
        "measured": len(steps), "mape": float(np.mean(np.abs(error / seconds))),
        "bias": float(error.sum() / seconds.sum()),
    }  # fmt: skip


def _beside(cluster: ClusterSpec, run: Run, counted: tuple[int, int], served: pd.DataFrame) -> dict[str, Any]:
    """What a run measured, and what the simulation of its requests says.

    Raises
    ------
    ValueError
        A figure is zero, or the engine as it is described would turn a request away.
    """
    columns = (served["prompt_tokens"], served["output_tokens"])
    asked = [Request(prompt, output, output, 0.0) for prompt, output in zip(*columns, strict=True)]
    records = simulate(cluster, OpenArrivals(served["arrival_s"].to_numpy(float), asked, None))
    simulated = records.requests_table()
    if refused := int((simulated["outcome"] != "completed").sum()):
        raise ValueError(f"{refused} requests are longer than the model's context or the KV pool of its engine_args")
    steps = int(records.segments_table()["steps"].sum())
    measured = figures(served, *counted)
    if nothing := [key for key in LIMITS if not measured[key] > 0]:
        raise ValueError(f"{', '.join(nothing)} cannot be told from its requests")
    predicted = figures(simulated, steps, int(simulated["preemptions"].sum()))
    exact = all(measured[key] == predicted[key] for key in ("steps", "preemptions"))
    return {
        "run": run.run, "load": run.load, "rate_per_s": run.rate_per_s, "seed": run.seed, "repeat": run.repeat,
        "measured": measured, "simulated": predicted, "exact": exact,
        "error": {key: predicted[key] / measured[key] - 1 for key in LIMITS},
    }  # fmt: skip


def figures(requests: pd.DataFrame, steps: int, preemptions: int) -> dict[str, Any]:
    """TTFT, TPOT, E2E and throughput of a run's requests, warm-up and drain included."""
    ttft = requests["first_token_s"] - requests["arrival_s"]
    e2e = requests["finished_s"] - requests["arrival_s"]
    several = requests["output_tokens"] > 1
    tpot = ((e2e - ttft) / (requests["output_tokens"] - 1))[several]
    span_s = requests["finished_s"].max() - requests["arrival_s"].min()
    return {
        "ttft_mean_s": float(ttft.mean()), "tpot_mean_s": float(tpot.mean()), "e2e_p50_s": float(e2e.median()),
        "requests_per_s": len(requests) / float(span_s) if span_s else 0.0, "steps": steps, "preemptions": preemptions,
    }  # fmt: skip


def _judge_loads(runs: list[dict[str, Any]]) -> None:
    """Mark the runs whose latencies are to be judged: a burst, or arrivals below most of what a burst gets through.

    Without a burst nobody knows how loaded the others are, and none of them is judged.
    """
    best = max((run["measured"]["requests_per_s"] for run in runs if run["load"] == "burst"), default=0.0)
    for run in runs:
        below = run["rate_per_s"] is not None and run["rate_per_s"] <= MOST_LOAD * best
        run["judged"] = below or run["load"] == "burst"


def _errors(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean absolute errors over the judged runs, what the engine differs from itself, and what passes."""
    judged = [run for run in runs if run["judged"]]
    repeats = _repeat_errors(judged)
    result = {}
    for key, (most, times) in LIMITS.items():
        error = float(np.mean([abs(run["error"][key]) for run in judged])) if judged else None
        bias = float(np.mean([run["error"][key] for run in judged])) if judged else None
        limit = max(most, times * (repeats[key] or 0.0))
        decided = error is not None and len(judged) >= ENOUGH_RUNS and (repeats[key] or 0.0) <= MOST_REPEAT
        passed = error <= limit if decided and error is not None else None
        result[key] = {"error": error, "bias": bias, "repeat_error": repeats[key], "limit": limit, "passed": passed}
    return {"runs": len(judged), "figures": result}


def _repeat_errors(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """By how much two runs of the same load differ, as a share of their mean; None where nothing was repeated."""
    alike = defaultdict(list)
    for run in runs:
        alike[run["load"], run["rate_per_s"], run["seed"]].append(run["measured"])
    pairs = [pair for same in alike.values() for pair in combinations(same, 2)]
    return {
        key: float(np.mean([2 * abs(a[key] - b[key]) / (a[key] + b[key]) for a, b in pairs])) if pairs else None
        for key in LIMITS
    }
