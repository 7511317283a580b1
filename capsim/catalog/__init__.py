"""The catalog: every fact capsim knows, each with its basis, its source and its date.

One YAML file a kind of fact. An entry is a spec of that kind plus ``provenance``: ``{basis, source, as_of}`` for
all its values, with ``values: {field: {basis, source, as_of}}`` for those that come from elsewhere.
"""

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from capsim.efficiency import Efficiency
from capsim.engine_spec import EngineSpec
from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.hardware import Device, Node
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec, WeightFormat
from capsim.prices import Price
from capsim.workload.figures import Figures
from capsim.workload.profiles import RateProfile
from capsim.workload.spec import Workload

FOLDER = Path(__file__).parent
Basis = Literal["measured", "calibrated", "datasheet", "vendor", "assumed"]
SPECS: dict[str, type[BaseModel]] = {
    "models": ModelSpec,
    "weight_formats": WeightFormat,
    "kv_formats": KVFormat,
    "devices": Device,
    "nodes": Node,
    "engines": EngineSpec,
    "prices": Price,
    "calibrations": Efficiency,
    "workloads": Workload,
    "traffic": Figures,
    "profiles": RateProfile,
}


class Fact(BaseModel):
    """Where a value comes from and how far to trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Basis
    source: str = Field(min_length=3)
    as_of: date


class Provenance(Fact):
    """The facts behind an entry: one for all its values, others by field."""

    values: dict[str, Fact] = Field(default_factory=dict)

    def of(self, field: str) -> Fact:
        return self.values.get(field, self)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provenance: Provenance
    spec: dict[str, Any]

    @model_validator(mode="after")
    def _known_fields(self) -> "_Entry":
        unknown = set(self.provenance.values) - set(self.spec)
        if unknown:
            raise ValueError(f"provenance names values that the entry lacks: {', '.join(sorted(unknown))}")
        return self


@dataclass(frozen=True)
class Catalog:
    """Specs by kind and key, and the provenance of each under ``(kind, key)``."""

    models: dict[str, ModelSpec]
    weight_formats: dict[str, WeightFormat]
    kv_formats: dict[str, KVFormat]
    devices: dict[str, Device]
    nodes: dict[str, Node]
    engines: dict[str, EngineSpec]
    prices: dict[str, Price]
    calibrations: dict[str, Efficiency]
    workloads: dict[str, Workload]
    traffic: dict[str, Figures]
    profiles: dict[str, RateProfile]
    provenance: dict[tuple[str, str], Provenance]

    def get(self, kind: str, key: str) -> Any:
        """The spec of that kind and key.

        Raises
        ------
        ScenarioError
            No such entry; the message names the nearest.
        """
        entries = getattr(self, kind)
        if key not in entries:
            singular = kind.rstrip("s").replace("_", " ")
            raise ScenarioError.one(f"unknown {singular} '{key}'", hint=did_you_mean(key, list(entries)))
        return entries[key]


@cache
def load_catalog() -> Catalog:
    """Read and check every file of the catalog; all mistakes are reported at once."""
    problems: list[Problem] = []
    specs: dict[str, dict[str, Any]] = {}
    provenance: dict[tuple[str, str], Provenance] = {}
    for kind in SPECS:
        path = FOLDER / f"{kind}.yaml"
        specs[kind] = {}
        for key, raw in (yaml.load(path.read_text(), Loader=yaml.CSafeLoader) or {}).items():
            try:
                specs[kind][key], provenance[kind, key] = _entry(kind, raw)
            except ValidationError as error:
                problems += [
                    Problem(e["msg"], path.name, key=".".join([key, *map(str, e["loc"])])) for e in error.errors()
                ]
    if problems:
        raise ScenarioError(problems)
    return Catalog(**specs, provenance=provenance)


def load_entry(path: Path, kind: str) -> tuple[Any, Provenance]:
    """The entry of a file of the user's, in the form ``capsim catalog show`` prints it.

    Raises
    ------
    ScenarioError
        Not YAML, or not such an entry: every mistake, by key.
    """
    wanted = f"one entry of {kind}, as 'capsim catalog show' prints it"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError.one(f"not YAML; expected {wanted}", path=path) from error
    if not isinstance(entries, dict) or len(entries) != 1 or not isinstance(next(iter(entries.values())), dict):
        raise ScenarioError.one(f"expected {wanted}", path=path)
    try:
        return _entry(kind, next(iter(entries.values())))
    except ValidationError as error:
        problems = [Problem(e["msg"], path, key=".".join(map(str, e["loc"]))) for e in error.errors()]
        raise ScenarioError(problems) from error


def _entry(kind: str, raw: dict[str, Any]) -> tuple[Any, Provenance]:
    fields = {key: value for key, value in raw.items() if key != "provenance"}
    facts = {"provenance": raw["provenance"]} if "provenance" in raw else {}
    entry = _Entry.model_validate({**facts, "spec": fields})
    return SPECS[kind].model_validate(entry.spec), entry.provenance
