"""A workload preset made of a file: a trace fitted, a profile or a set of clients carried over."""

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError
from capsim.source import Source, validate
from capsim.workload.fit import Fit, fit
from capsim.workload.inference_perf import is_profile, mixed_shares, read_profile
from capsim.workload.servegen import is_clients, read_clients
from capsim.workload.spec import WorkloadPreset
from capsim.workload.traces import read_trace

BLOCK = 1 << 20


@dataclass(frozen=True)
class Preset:
    """``entry`` is what a catalog of workloads holds under ``name``; ``fit`` is there where a trace was fitted."""

    name: str
    entry: dict[str, Any]
    fit: Fit | None = None
    notes: tuple[str, ...] = ()

    @property
    def workload(self) -> WorkloadPreset:
        return WorkloadPreset.model_validate({key: value for key, value in self.entry.items() if key != "provenance"})


def preset_of(path: Path, columns: dict[str, str] | None, today: date) -> Preset:
    """The preset of a trace, of an inference-perf profile, or of a folder of ServeGen's chunk files.

    Raises
    ------
    ScenarioError
        The file cannot be read, or its requests all come at once.
    """
    if is_clients(path):
        source = f"{path.name} ({digest(path)}): ServeGen's windows of each client, lengths as 28 quantiles"
        return Preset(path.name, _entry("measured", source, today, _valid(read_clients(path), path)))
    if is_profile(path):
        source = f"{path.name} ({digest(path)}): inference-perf profile; rate assumed"
        entry = _entry("assumed", source, today, _valid(read_profile(path), path))
        return Preset(path.stem, entry, notes=tuple(mixed_shares(path)))
    trace = read_trace(path, columns)
    try:
        fitted = fit(trace)
    except ValueError as error:
        raise ScenarioError.one(str(error), path=path) from error
    return Preset(path.stem, _entry("measured", _source(path, fitted), today, fitted.values), fitted, trace.warnings)


def _valid(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values, if a workload can have them."""
    validate(WorkloadPreset, values, Source(path, values))
    return values


def _entry(basis: str, source: str, today: date, values: dict[str, Any]) -> dict[str, Any]:
    return {"provenance": {"basis": basis, "source": source, "as_of": today}, **values}


def _source(path: Path, fitted: Fit) -> str:
    def dispersions(values: tuple[float | None, ...]) -> str:
        return "/".join("-" if value is None else f"{value:.3g}" for value in values)

    return (
        f"{path.name} ({digest(path)}): KS {fitted.prompt_distance:.3f} of prompts, {fitted.output_distance:.3f} of "
        f"outputs; IDC at 1/10/60 s {dispersions(fitted.generated.idc)} against {dispersions(fitted.trace.idc)}"
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files in order of their names."""
    found = hashlib.sha256()
    for one in sorted(path.iterdir()) if path.is_dir() else [path]:
        with one.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
    return f"sha256 {found.hexdigest()}"
