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

from capsim.engine_spec import EngineSpec
from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.hardware import Device, Node
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec, WeightFormat
from capsim.prices import Price
from capsim.efficiency import Efficiency

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
    for kind, spec_type in SPECS.items():
        path = FOLDER / f"{kind}.yaml"
        specs[kind] = {}
        for key, raw in (yaml.safe_load(path.read_text()) or {}).items():
            try:
                fields = {k: v for k, v in raw.items() if k != "provenance"}
                entry = _Entry(provenance=raw.get("provenance"), spec=fields)
                specs[kind][key] = spec_type.model_validate(entry.spec)
                provenance[kind, key] = entry.provenance
            except ValidationError as error:
                problems += [
                    Problem(e["msg"], path.name, key=".".join([key, *map(str, e["loc"])])) for e in error.errors()
                ]
    if problems:
        raise ScenarioError(problems)
    return Catalog(**specs, provenance=provenance)
