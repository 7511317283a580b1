"""One published point through the simulator, and its figures as the source defines them."""

from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml

from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import cluster_of
from capsim.metrics.steps import COMPONENTS
from capsim.scenario import Resolved, resolve
from capsim.sim.cluster import simulate
from capsim.steptime import Batch
from capsim.validate.as_run import AsRun, as_run, contexts
from capsim.validate.names import Skip
from capsim.validate.points import Point
from capsim.workload.requests import traffic

SI = {"ms": 1e-3, "s": 1.0, "GiB/GPU": 2.0**30, "tok/s/GPU": 1.0, "tok/s total": 1.0, "tok/s": 1.0, "tokens": 1.0,
      "ms/token": 1e-3}  # fmt: skip
"""Published units as multiples of the simulator's."""
METRICS = {
    "total_tok_s_per_gpu": "throughput", "output_tok_s_per_gpu": "throughput", "output_tok_s": "throughput",
    "median_tpot": "TPOT", "p99_tpot": "TPOT p99", "median_itl": "ITL",
    "itl_intercept": "ITL intercept", "itl_slope_per_context_token": "ITL slope", "median_ttft": "TTFT",
    "p99_ttft": "TTFT p99", "median_e2e": "E2E", "mean_e2e": "E2E", "duration": "duration",
    "decode_tok_s": "decode rate", "decode_tok_s_tg128": "decode rate", "prefill_tok_s": "prefill rate",
    "prefill_tok_s_pp512": "prefill rate", "prefill_time": "prefill rate", "weights_gib": "weights",
    "kv_cache_gib": "KV pool", "kv_tokens": "KV pool",
}  # fmt: skip
"""Published figures that are predicted, by the metric they are summed up under."""


@dataclass(frozen=True)
class Judged:
    """A published figure beside the simulated one; ``error`` is (simulated / published) - 1."""

    metric: str
    kind: str
    use: str
    published: float
    simulated: float

    @property
    def error(self) -> float:
        return self.simulated / self.published - 1


@dataclass(frozen=True)
class Predicted:
    """What became of a point: its figures, or the reason why it was not run.

    ``shares`` are of the time of all steps, by component; ``seconds_a_step`` their mean, ``batch`` the mean number of
    sequences in them, ``pool_used`` the most of the KV pool that was filled, ``step_time`` the calibration.
    """

    point: Point
    device: str = ""
    devices: int = 1
    engine: str = ""
    figures: tuple[Judged, ...] = ()
    left_out: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    skipped: str = ""
    step_time: str = ""
    shares: dict[str, float] | None = None
    seconds_a_step: float = 0.0
    batch: float = 0.0
    pool_used: float = 0.0
    preemptions: int = 0


def predict(point: Point) -> Predicted:
    """Simulate a point as it was run, if it is modelled."""
    try:
        run = as_run(point)
        return simulated(point, run, resolved_of(run))
    except Skip as reason:
        return Predicted(point, skipped=str(reason))
    except Infeasible as reason:
        return Predicted(point, skipped=f"does not fit by the memory model: {str(reason).splitlines()[0]}")
    except ScenarioError as reason:
        first = reason.problems[0]
        return Predicted(point, skipped=f"{first.key}: {first.message}" if first.key else first.message)


def simulated(point: Point, run: AsRun, resolved: Resolved) -> Predicted:
    """Simulate a point with its scenario already resolved.

    Raises
    ------
    Skip, Infeasible
        Not every request is completed, or the model does not fit.
    """
    return {"memory": _memory, "contexts": _contexts, "requests": _requests}[run.probe](point, run, resolved)


def resolved_of(run: AsRun) -> Resolved:
    """The scenario of a point, resolved."""
    with TemporaryDirectory(prefix="capsim-") as folder:
        for name, values in (("scenario", run.scenario), ("catalog", run.catalog)):
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return resolve(Path(folder) / "scenario.yaml")


def _memory(point: Point, run: AsRun, resolved: Resolved) -> Predicted:
    memory = resolved.memory
    values = {
        "weights_gib": memory.weights_bytes, "kv_cache_gib": memory.kv_pool_bytes, "kv_tokens": memory.capacity_tokens
    }  # fmt: skip
    return _beside(point, run, resolved, values)


def _contexts(point: Point, run: AsRun, resolved: Resolved) -> Predicted:
    """The line through the decode steps of one sequence over context, at sizes a factor of two apart."""
    least, most = contexts(point) or (1, 1)
    sizes = [least * 2**i for i in range(int(log2(most / least)) + 1)]
    model, streams = resolved.step_time_model(), resolved.model.streams
    seconds = [model.step_time(Batch(1, tuple(s.read(size) for s in streams))).total_s for size in sizes]
    slope, intercept = np.polyfit(sizes, seconds, 1)
    values = {"itl_intercept": float(intercept), "itl_slope_per_context_token": float(slope)}
    return _beside(point, run, resolved, values)


def _requests(point: Point, run: AsRun, resolved: Resolved) -> Predicted:
    load = traffic(resolved.workload, None, resolved.scenario.seed, 0, resolved.longest, resolved.response)
    records = simulate(cluster_of(resolved), load)
    requests = records.requests_table()
    if (requests["outcome"] != "completed").any():
        raise Skip("not every request is completed in the simulation")
    segments = records.segments_table()
    done = _beside(point, run, resolved, _figures(requests, segments, resolved.layout.devices))
    seconds = {name: float(segments[name].sum()) for name in COMPONENTS}
    weight = segments["duration_s"] / segments["duration_s"].sum()
    running = segments["decode_sequences"] + (segments["prefill_tokens"] > 0)
    return replace(
        done,
        shares={name.removesuffix("_s"): part / sum(seconds.values()) for name, part in seconds.items()},
        seconds_a_step=float(segments["duration_s"].sum() / segments["steps"].sum()),
        batch=float((running * weight).sum()),
        pool_used=float(segments["kv_blocks_end"].max() / resolved.memory.blocks),
        preemptions=int(requests["preemptions"].sum()),
    )


def _figures(requests: pd.DataFrame, segments: pd.DataFrame, devices: int) -> dict[str, float]:
    """Of all requests, from the first arrival to the last answer, as the benchmark clients count."""
    ttft, e2e = (requests[name] - requests["arrival_s"] for name in ("first_token_s", "finished_s"))
    tpot = (e2e - ttft) / (requests["output_tokens"] - 1).clip(lower=1)
    span_s = float(requests["finished_s"].max() - requests["arrival_s"].min())
    prompt, output = float(requests["prompt_tokens"].sum()), float(requests["output_tokens"].sum())
    prefill_s, decode_s = float(ttft.mean()), float(tpot.mean())
    rates = {"prefill": prompt / len(requests) / prefill_s, "decode": 1 / decode_s if decode_s else 0.0}
    return {
        "total_tok_s_per_gpu": (prompt + output) / span_s / devices, "output_tok_s_per_gpu": output / span_s / devices,
        "output_tok_s": output / span_s, "duration": span_s,
        "median_ttft": float(ttft.median()), "p99_ttft": float(ttft.quantile(0.99)),
        "median_tpot": float(tpot.median()), "p99_tpot": float(tpot.quantile(0.99)),
        "median_e2e": float(e2e.median()), "mean_e2e": float(e2e.mean()), "median_itl": _median_gap_s(segments),
        "decode_tok_s": rates["decode"], "decode_tok_s_tg128": rates["decode"],
        "prefill_tok_s": rates["prefill"], "prefill_tok_s_pp512": rates["prefill"], "prefill_time": prefill_s,
    }  # fmt: skip


def _median_gap_s(segments: pd.DataFrame) -> float:
    """The median time between two tokens: steps weighted by the sequences that decode in them."""
    decoding = segments[segments["decode_sequences"] > 0]
    if decoding.empty:
        return 0.0
    gap_s = (decoding["duration_s"] / decoding["steps"]).to_numpy()
    weight = (decoding["decode_sequences"] * decoding["steps"]).to_numpy(float)
    order = gap_s.argsort()
    return float(gap_s[order][weight[order].cumsum().searchsorted(weight.sum() / 2)])


def _beside(point: Point, run: AsRun, resolved: Resolved, values: dict[str, float]) -> Predicted:
    """The published figures that have a simulated one; units that repeat another figure are left out."""
    figures, left_out = [], []
    for published in point.figures:
        if published.metric not in METRICS or published.metric not in values:
            left_out.append(f"{published.metric} is not predicted")
        elif published.value < 0:
            left_out.append(f"{published.metric} below zero")
        elif published.unit not in SI:
            left_out.append(f"{published.metric} in {published.unit}")
        else:
            figures.append(
                Judged(
                    published.metric, METRICS[published.metric], published.use,
                    published.value * SI[published.unit], values[published.metric],
                )
            )  # fmt: skip
    return Predicted(
        point, resolved.node.device, resolved.layout.devices, resolved.engine_key, tuple(figures), tuple(left_out),
        run.assumed, step_time=resolved.basis["step_time"][0],
    )  # fmt: skip
