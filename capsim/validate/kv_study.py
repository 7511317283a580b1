"""KV formats beside what others published of them: ratios to bf16 of capacity, latency and throughput.

Seconds that a format costs a layer and for each entry read are fitted on the latencies of one model; the rest only
judges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from scipy.optimize import least_squares

from capsim.errors import ScenarioError
from capsim.scenario import Resolved
from capsim.source import load, validate
from capsim.steptime import Batch
from capsim.validate.as_run import AsRun, as_run
from capsim.validate.names import KV_FORMATS, Skip
from capsim.validate.points import Point, Published
from capsim.validate.predict import resolved_of, simulated

SCHEMA_VERSION = 1
PLAIN = "bf16"
CONTEXT_FORMATS = ("fp8", "k8v4")
FITTED = {"kv_layer_s": 1e-5, "kv_extra_s": 1e-11}
"""Fields of ``Efficiency`` that are fitted, and in which unit."""
LOADS = ("latency", "throughput", "burst")
DIGITS = 3


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Load(_Model):
    """Requests that are all there at the start; of ``latency`` as many as the batch."""

    prompt: PositiveInt
    output: PositiveInt
    requests: PositiveInt = 1


ALONE = Load(prompt=128, output=128)


class Case(_Model):
    """What was published of a model: by format, latency by batch too; ``context`` is what k8v4 loses in decode rate
    against fp8, by tokens of context."""

    model: str
    devices: int
    capacity: tuple[float, ...]
    throughput: tuple[float, ...]
    burst: tuple[float, ...]
    latency: dict[int, tuple[float, ...]] = {}
    context: dict[int, float] = {}


class Study(_Model):
    """A published comparison of KV formats, and the loads assumed for it."""

    source: str
    engine: str
    hardware: str
    weights: str
    formats: tuple[str, ...]
    fit: tuple[str, ...]
    loads: dict[str, Load]
    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _complete(self) -> "Study":
        if missing := [name for name in LOADS if name not in self.loads]:
            raise ValueError(f"loads lack {', '.join(missing)}")
        for case in self.cases:
            told = {"capacity": case.capacity, "throughput": case.throughput, "burst": case.burst}
            told |= {f"latency.{batch}": ratios for batch, ratios in case.latency.items()}
            for name, ratios in told.items():
                if len(ratios) != len(self.formats):
                    raise ValueError(f"{name} of {case.model} has {len(ratios)} ratios of {len(self.formats)} formats")
        return self


def read_study(path: Path) -> Study:
    """A study from its file.

    Raises
    ------
    ScenarioError
        The file cannot be read, or is no such study.
    """
    source = load(path)
    return validate(Study, source.values, source)


def compare(path: Path) -> dict[str, Any]:
    """Published and simulated ratios of every case of a study: the JSON document.

    Raises
    ------
    ScenarioError
        The file is no study, or one of its names is not in the catalog.
    """
    study = read_study(path)
    rows = [row for case in study.cases for row in _rows(study, case)]
    loads = {name: each.model_dump() for name, each in study.loads.items()}
    return {
        "schema_version": SCHEMA_VERSION, "file": str(path), "source": study.source, "fitted": list(study.fit),
        "loads": loads, "formats": list(study.formats), "rows": rows,
    }  # fmt: skip


def _rows(study: Study, case: Case) -> Iterator[dict[str, Any]]:
    told = {"capacity": case.capacity, "throughput": case.throughput, "burst": case.burst}
    told |= {f"latency at {batch}": ratios for batch, ratios in case.latency.items()}
    for figure, published in told.items():
        values = [_value(study, case, name, figure) for name in (PLAIN, *study.formats)]
        ratios = [value / values[0] for value in values[1:]]
        use = "fit" if figure.startswith("latency") else "judge"
        yield {
            "model": case.model, "figure": figure, "use": use, "published": list(published), "simulated": ratios,
            "bf16": values[0],
        }  # fmt: skip
    for context, lost in case.context.items():
        fp8_s, other_s = (_step_s(study, case, name, context) for name in CONTEXT_FORMATS)
        yield {
            "model": case.model, "figure": f"decode rate of k8v4 over fp8 at {context:,}", "use": "judge",
            "published": [lost], "simulated": [fp8_s / other_s - 1], "bf16": None,
        }  # fmt: skip


def _value(study: Study, case: Case, name: str, figure: str) -> float:
    """Tokens of the KV pool, seconds of TPOT, or tokens out a second."""
    if figure == "capacity":
        return float(_prepared(study, case, name, ALONE)[2].memory.capacity_tokens)
    if figure.startswith("latency"):
        return _simulated(_prepared(study, case, name, _latency_load(study, int(figure.split()[-1]))))["median_tpot"]
    return _simulated(_prepared(study, case, name, study.loads[figure]))["output_tok_s"]


def _latency_load(study: Study, batch: int) -> Load:
    return study.loads["latency"].model_copy(update={"requests": batch})


def fit_format(study: Study, name: str) -> dict[str, float]:
    """Seconds a layer and seconds an entry read of a format, by least squares of the logarithms of its latencies."""
    case = next(case for case in study.cases if case.latency)
    place = study.formats.index(name)
    loads = {batch: _latency_load(study, batch) for batch in case.latency}
    plain = {batch: _simulated(_prepared(study, case, PLAIN, load))["median_tpot"] for batch, load in loads.items()}
    runs = {batch: _prepared(study, case, name, load) for batch, load in loads.items()}

    def coefficients(values: np.ndarray) -> dict[str, dict[str, float]]:
        units = zip(FITTED.items(), values, strict=True)
        return {field: {KV_FORMATS[name]: unit * float(value)} for (field, unit), value in units}

    def errors(values: np.ndarray) -> list[float]:
        told = coefficients(values)
        return [
            float(np.log(_simulated(runs[batch], told)["median_tpot"] / plain[batch] / ratios[place]))
            for batch, ratios in case.latency.items()
        ]

    found = least_squares(errors, [3.0, 5.0], bounds=([0, 0], [50, 100]), diff_step=np.array([0.02, 0.02]))
    return {field: float(f"{each[KV_FORMATS[name]]:.{DIGITS}g}") for field, each in coefficients(found.x).items()}


def _step_s(study: Study, case: Case, name: str, context: int) -> float:
    """A decode step of one sequence."""
    resolved = _prepared(study, case, name, ALONE)[2]
    reads = tuple(stream.read(context) for stream in resolved.model.streams)
    return resolved.step_time_model().step_time(Batch(1, reads)).total_s


def _simulated(
    prepared: tuple[Point, AsRun, Resolved], coefficients: Mapping[str, dict[str, float]] | None = None
) -> dict[str, float]:
    """Figures of a run, with other ``coefficients`` of ``Efficiency`` if some are given."""
    point, run, resolved = prepared
    efficiency = resolved.efficiency.model_copy(update=coefficients)
    return {
        each.metric: each.simulated for each in simulated(point, run, replace(resolved, efficiency=efficiency)).figures
    }


def _prepared(study: Study, case: Case, name: str, load: Load) -> tuple[Point, AsRun, Resolved]:
    """All requests at once on one replica of the case's model."""
    figures = (Published("median_tpot", 1.0, "s", "judge"), Published("output_tok_s", 1.0, "tok/s", "judge"))
    point = Point(
        id=f"{case.model} {name}", source=study.source, date="", hardware=study.hardware,
        n_accelerators=str(case.devices), model=case.model, weight_precision=study.weights, kv_precision=name,
        engine=study.engine, parallelism=f"tp{case.devices}", isl=str(load.prompt), osl=str(load.output), load="closed",
        concurrency_or_rate=f"{load.requests} ({load.requests} requests)", notes="", figures=figures,
    )  # fmt: skip
    try:
        run = as_run(point)
    except Skip as reason:
        raise ScenarioError.one(f"{case.model}, {name}: {reason}") from reason
    return point, run, resolved_of(run)
