"""A calibration file: a catalog file of the user's with what was measured on a device, under each engine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capsim.calibrate.coefficients import fractions, kv_costs, link
from capsim.calibrate.device import MEMORY, described_model, key_of, known_device, measured_device
from capsim.calibrate.overhead import layer_overheads, layer_s, step_overhead_s
from capsim.calibrate.residuals import kernel_residual, layer_residual, step_residual
from capsim.calibrate.steps import domain_of, fit_steps
from capsim.calibrate.tables import CEILINGS, Rows, fastest, grouped, has_slope, kind_of, tables_of
from capsim.calibrate.thinning import thinned
from capsim.catalog import Catalog, load_catalog
from capsim.efficiency import Efficiency
from capsim.errors import ScenarioError
from capsim.hardware import Device
from capsim.kernel_tables import KernelTable
from capsim.llm import ModelSpec
from capsim.measured import Measured, MeasuredSteps, Residual
from capsim.measurements import Measurements, Model, Step, read_measurements
from capsim.parallelism import Parallelism
from capsim.steptime import StepTimeModel
from capsim.steptime.calibrated import Calibrated

NODE = "this-machine"
DEFAULT_ENGINE = "vllm"
BF16 = "bf16"
HOST = ("step_s", "sequence_s")
KEPT = (*HOST, "collective_s", "link_fraction", "expert_imbalance")  # from the catalog where nothing tells them
NO_TIMES = dict.fromkeys((*HOST, "layer_s", "expert_layer_s"), 0.0)
DIGITS = 5
MANY_SHAPES = 8  # of one operation, implementation and format: judged together


@dataclass(frozen=True)
class Calibration:
    """What ``capsim calibrate`` writes and prints: the file's content and the kernel tables in it, the errors, what was
    left out, the device's key, and the node that the file makes of a device new to the catalog."""

    document: dict[str, Any]
    tables: tuple[KernelTable, ...]
    residuals: tuple[Residual, ...]
    left_out: tuple[str, ...]
    device: str
    node: str | None


def calibrate(paths: Sequence[Path]) -> Calibration:
    """Fit everything that the measurements of one device allow.

    Raises
    ------
    ScenarioError
        Bad rows, files of different devices, nothing to fit, or a device about which too little is known.
    """
    files = [read_measurements(path) for path in paths]
    _check(files)
    catalog = load_catalog()
    name = files[0].header.device
    key = known_device(name, catalog)
    device = catalog.devices[key] if key else measured_device(files)
    fitting = _Fitting(files, catalog, key or key_of(name), device)
    engines = fitting.engines()
    document: dict[str, Any] = {}
    if key is None:
        document["devices"] = {fitting.key: {**_plain(device), "provenance": _device_facts(files)}}
        node = {"name": f"this machine: {device.name}", "device": fitting.key, "devices": 1, "engine": engines[0]}
        document["nodes"] = {NODE: {**node, "provenance": _facts(files, "measured")}}
    document["calibrations"] = {f"{fitting.key}/{engine}": fitting.entry(engine) for engine in engines}
    return Calibration(
        document, tuple(fitting.tables), fitting.residuals, fitting.left_out(), fitting.key, None if key else NODE
    )


class _Fitting:
    """The rows of one device, and what is fitted to them."""

    def __init__(self, files: list[Measurements], catalog: Catalog, key: str, device: Device) -> None:
        self.files, self.catalog, self.key, self.device = files, catalog, key, device
        self.groups = grouped(row for file in files for row in file.kernels)
        self.steps = [row for file in files for row in file.steps]
        self.models = {(row.engine, row.name): row for file in files for row in file.models}
        kernels = [group for group in self.groups if group[0].op not in CEILINGS and has_slope(group)]
        measured = fastest(tables_of(kernels, catalog))
        self.tables = thinned(measured, device)
        reached = fractions(self.tables, device)
        self.values: dict[str, Any] = {**NO_TIMES, **reached, **kv_costs(self.tables, device, reached)}
        layers = [row for file in files for row in file.kernels if row.op == "layer"]
        self.layers_by_kernels: list[Residual] = []
        if layers and self.tables:
            kernels_s = np.array([layer_s(row, self._calibrated) for row in layers])
            self.layers_by_kernels = [layer_residual(layers, kernels_s)]
            self.values |= layer_overheads(layers, kernels_s)

    def engines(self) -> list[str]:
        """Engines whose steps were measured, the most measured first; else the one whose kernels were, by the header;
        else the one that usually runs on the device."""
        counts = Counter(row.engine for row in self.steps)
        named = [str(file.header.environment.get("engine")) for file in self.files]
        usual = next((n.engine for n in self.catalog.nodes.values() if n.device == self.key), DEFAULT_ENGINE)
        return [name for name, _ in counts.most_common() if name in self.catalog.engines] or [
            next((name for name in named if name in self.catalog.engines), usual)
        ]

    def left_out(self) -> tuple[str, ...]:
        """Measured steps that no calibration can hold, as the catalog does not know their engine."""
        unknown = sorted({row.engine for row in self.steps} - set(self.catalog.engines))
        return tuple(
            f"steps under {name} are judged but not written: the catalog has no such engine" for name in unknown
        )

    @cached_property
    def residuals(self) -> tuple[Residual, ...]:
        kernels = [kernel_residual(groups, self.catalog) for groups in self._judged_together()]
        kernels.sort(key=lambda residual: (residual.what, residual.by, residual.shape))
        steps = [step_residual(rows, self._from_kernels(*key)) for key, rows in self._step_groups(self.steps)]
        return (*kernels, *self.layers_by_kernels, *steps)

    def _judged_together(self) -> list[list[Rows]]:
        """Each shape alone, or all shapes of an operation, implementation and format where there are many."""
        alike: dict[tuple[Any, ...], list[Rows]] = {}
        for group in self.groups:
            alike.setdefault(kind_of(group[0]), []).append(group)
        return [
            part
            for groups in alike.values()
            for part in ([groups] if len(groups) > MANY_SHAPES else [[group] for group in groups])
        ]

    def entry(self, engine: str) -> dict[str, Any]:
        """The calibration of the device under one engine, with its provenance."""
        links = link(self.tables, self.device)
        shipped = self.catalog.calibrations.get(f"{self.key}/{engine}")
        kept = {name: getattr(shipped, name) for name in KEPT} if shipped else {}
        rows = [row for row in self.steps if row.engine == engine]
        host = self._host_time(rows)
        measured = Measured(
            kernels=tuple(self.tables), whole_steps=self._whole_steps(rows), residuals=self.residuals,
            environment=self.files[0].header.environment,
        )  # fmt: skip
        values = {**self.values, **kept, **links, **host}
        entry = _plain(Efficiency(device=self.key, engine=engine, measured=measured, **values))
        facts = _facts(self.files, "measured")
        unknown = [name for name in KEPT if name in entry and name not in links and name not in host]
        if unknown:
            facts["values"] = {name: self._fact_of_kept(engine, name, facts["as_of"]) for name in unknown}
        return {**entry, "provenance": facts}

    def _fact_of_kept(self, engine: str, name: str, as_of: str) -> dict[str, Any]:
        """What stands behind a value that these measurements do not tell."""
        shipped = self.catalog.provenance.get(("calibrations", f"{self.key}/{engine}"))
        if shipped is None:
            return {"basis": "assumed", "source": "no whole steps were measured: host time is left out", "as_of": as_of}
        fact = shipped.of(name)
        return {"basis": fact.basis, "source": f"as in the catalog: {fact.source}", "as_of": str(fact.as_of)}

    def _host_time(self, rows: list[Step]) -> dict[str, float]:
        """Seconds a step and a sequence; nothing where no steps were measured, or only of models not described."""
        for key, group in self._step_groups(rows):
            kernels = self._from_kernels(*key)
            if kernels is not None:
                return dict(zip(HOST, step_overhead_s(group, kernels), strict=True))
        return {}

    def _from_kernels(self, engine: str, name: str) -> StepTimeModel | None:
        """Step times of a model by kernels and layers alone; None where either is not known.

        A measured step says Σ context, which is what it reads only where every layer reads all of it.
        """
        model = self.models.get((engine, name))
        if model is None or not self.tables:
            return None
        spec = described_model(model, self.files)
        return self._calibrated(spec, model) if len(spec.streams) == 1 and not spec.streams[0].has_kinks else None

    def _whole_steps(self, rows: list[Step]) -> tuple[MeasuredSteps, ...]:
        found = []
        for (engine, name), group in self._step_groups(rows):
            try:
                fitted = fit_steps(group)
            except ValueError as error:
                raise ScenarioError.one(f"steps of {name} under {engine}: {error}", path=self.files[0].path) from error
            weights, kv_format = self._formats(self.models.get((engine, name)))
            formats = {"weights": weights, "kv_format": kv_format}
            found.append(MeasuredSteps(model=name, **formats, coefficients=fitted, domain=domain_of(group)))
        return tuple(found)

    def _formats(self, model: Model | None) -> tuple[str, str]:
        """The catalog's names of the formats that an engine kept weights and KV in; 16 bits where it does not say."""
        arguments = {} if model is None else model.engine_args
        weights = _format(arguments.get("weights_dtype"), self.catalog.weight_formats)
        return weights, _format(arguments.get("kv_dtype"), self.catalog.kv_formats)

    def _calibrated(self, spec: ModelSpec, model: Model | None = None) -> StepTimeModel:
        """Step times by kernels, and by what layers take beside them once that is known."""
        weights, kv_format = self._formats(model)
        measured = Measured(kernels=tuple(self.tables))
        efficiency = Efficiency(device=self.key, engine=DEFAULT_ENGINE, measured=measured, **self.values)
        return Calibrated(
            spec, self.catalog.weight_formats[weights], self.catalog.kv_formats[kv_format], self.device,
            Parallelism(1), efficiency, self.device,
        )  # fmt: skip

    @staticmethod
    def _step_groups(rows: Sequence[Step]) -> list[tuple[tuple[str, str], list[Step]]]:
        """Steps by engine and model, the most measured first."""
        groups: dict[tuple[str, str], list[Step]] = {}
        for row in rows:
            groups.setdefault((row.engine, row.model), []).append(row)
        return sorted(groups.items(), key=lambda item: -len(item[1]))


def _check(files: Sequence[Measurements]) -> None:
    first = files[0]
    for i, file in enumerate(files[1:], 1):
        if file.path.resolve() in [other.path.resolve() for other in files[:i]]:
            raise ScenarioError.one("is given twice: its rows would count twice", path=file.path)
        if file.header.device != first.header.device:
            message = f"measured on '{file.header.device}', but {first.path} on '{first.header.device}'"
            raise ScenarioError.one(message, path=file.path, line=1, key="device", hint="calibrate each device alone")
    if not any(file.kernels or file.steps for file in files):
        raise ScenarioError.one("holds neither kernels nor steps: nothing to fit", path=first.path)


def _format(dtype: Any, known: dict[str, Any]) -> str:
    """A format of the catalog by an engine's name of it; its own default is 16 bits."""
    name = str(dtype).removeprefix("torch.")
    if name in known:
        return name
    return "fp8" if name.startswith(("fp8", "float8")) else BF16


def _facts(files: Sequence[Measurements], basis: str) -> dict[str, Any]:
    """Who measured, on what, when."""
    header = files[0].header
    sources = ", ".join(sorted({f"{file.path.name}: {file.header.source}" for file in files}))
    as_of = max(file.header.created[:10] for file in files)
    return {"basis": basis, "source": f"{sources} on {header.device}", "as_of": as_of}


def _device_facts(files: Sequence[Measurements]) -> dict[str, Any]:
    facts = _facts(files, "measured")
    assumed = {"power_w": "not measured: set it where power is paid for"}
    ops = {row.op for file in files for row in file.kernels}
    reached = "the most that any kernel reached" if ops else "what whole steps at least reached"
    if not ops.intersection(MEMORY):
        assumed["memory_bytes_per_s"] = f"memory was not measured: {reached}"
    if "gemm" not in ops:
        assumed["bf16_flops"] = f"no GEMM was measured: {reached}"
    values = {
        name: {"basis": "assumed", "source": why, "as_of": facts["as_of"]} for name, why in assumed.items()
    }  # fmt: skip
    return {**facts, "values": values}


def _plain(spec: Any) -> dict[str, Any]:
    """A spec as YAML takes it: what was left at its default is left out, and numbers have a few digits."""
    plain: dict[str, Any] = _rounded(spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
    return plain


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
