"""The catalog: every fact capsim knows, each with its basis, its source and its date.

One YAML file a kind of fact. An entry is a spec of that kind plus ``provenance``: ``{basis, source, as_of}`` for
all its values, with ``values: {field: {basis, source, as_of}}`` for those that come from elsewhere. A user's file has
entries of several kinds, under the name of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema

from capsim.api_tiers import ApiTier
from capsim.efficiency import Efficiency
from capsim.engine_spec import EngineSpec
from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.hardware import Device, Node
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec, WeightFormat
from capsim.prices import Price
from capsim.source import MAX_PROBLEMS, Location, Source, load, validate
from capsim.workload.figures import Figures
from capsim.workload.profiles import RateProfile
from capsim.workload.spec import WorkloadPreset

FOLDER = Path(__file__).parent
PUBLISHED = "published.yaml"
"""Entries of ``calibrations`` that ``capsim refit --points`` wrote."""
# A file must give a date; only what is read from a file without one is undated.
AsOf = Annotated[date | Literal["undated"], GetPydanticSchema(lambda _, handler: handler(date))]
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
    "workloads": WorkloadPreset,
    "traffic": Figures,
    "profiles": RateProfile,
    "api_tiers": ApiTier,
}
REFERENCES = {
    "models": {"weight_formats": "weight_formats"},
    "kv_formats": {"engines": "engines"},
    "nodes": {"device": "devices", "engine": "engines"},
    "prices": {"node": "nodes"},
    "calibrations": {"device": "devices", "engine": "engines"},
    "api_tiers": {"model": "models"},
}
FORM = "such as {basis: measured, source: our benchmark, as_of: 2026-11-23}"


class Fact(BaseModel):
    """Where a value comes from and how far to trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Basis
    source: str = Field(min_length=3)
    as_of: AsOf


class Provenance(Fact):
    """The facts behind an entry: one for all its values, others by field."""

    values: dict[str, Fact] = Field(default_factory=dict)

    @classmethod
    def undated(cls, basis: Basis, source: str) -> "Provenance":
        """Of a file that tells no date."""
        return cls.model_construct(basis=basis, source=source, as_of="undated", values={})

    def of(self, field: str) -> Fact:
        return self.values.get(field, self)


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
    workloads: dict[str, WorkloadPreset]
    traffic: dict[str, Figures]
    profiles: dict[str, RateProfile]
    api_tiers: dict[str, ApiTier]
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


def load_catalog(files: Sequence[Path] = ()) -> Catalog:
    """The shipped catalog; entries of ``files`` add to it or stand in place of its own.

    Raises
    ------
    ScenarioError
        Every mistake of every file, with its line.
    """
    catalog = _shipped()
    problems: list[Problem] = []
    for path in files:
        try:
            source = load(path)
            catalog = with_entries(catalog, _entries(source))
            _check_references(source, catalog)
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return catalog


def with_entries(catalog: Catalog, entries: dict[tuple[str, str], tuple[Any, Provenance]]) -> Catalog:
    """A catalog with more entries, or other ones, by (kind, key)."""
    specs = {kind: dict(getattr(catalog, kind)) for kind in SPECS}
    for (kind, key), (spec, _) in entries.items():
        specs[kind][key] = spec
    facts = {place: provenance for place, (_, provenance) in entries.items()}
    return replace(catalog, **specs, provenance={**catalog.provenance, **facts})


def load_entry(path: Path, kind: str) -> tuple[Any, Provenance]:
    """The one entry of a file of the user's, in the form ``capsim catalog show`` prints it.

    Raises
    ------
    ScenarioError
        Not YAML, or not such an entry: every mistake, by key.
    """
    source = load(path)
    if len(source.values) != 1 or not isinstance(next(iter(source.values.values())), dict):
        raise ScenarioError.one(f"expected one entry of {kind}, as 'capsim catalog show' prints it", path=path)
    ((key, raw),) = source.values.items()
    return _entry(source, kind, (key,), raw)


@cache
def _shipped() -> Catalog:
    files = {kind: FOLDER / f"{kind}.yaml" for kind in SPECS}
    texts = {kind: yaml.load(path.read_text(), Loader=yaml.CSafeLoader) or {} for kind, path in files.items()}
    texts["calibrations"] |= yaml.load((FOLDER / PUBLISHED).read_text(), Loader=yaml.CSafeLoader)
    entries = _entries(Source(FOLDER, texts))
    specs: dict[str, dict[str, Any]] = {kind: {} for kind in SPECS}
    for (kind, key), (spec, _) in entries.items():
        specs[kind][key] = spec
    return Catalog(**specs, provenance={place: facts for place, (_, facts) in entries.items()})


def _entries(source: Source) -> dict[tuple[str, str], tuple[Any, Provenance]]:
    """Everything in a mapping of kinds, each a mapping of keys to entries."""
    entries: dict[tuple[str, str], tuple[Any, Provenance]] = {}
    problems: list[Problem] = []
    for kind, of_kind in source.values.items():
        if kind not in SPECS:
            problems.append(source.problem((kind,), f"unknown kind '{kind}'", did_you_mean(str(kind), list(SPECS))))
            continue
        if not isinstance(of_kind, dict):
            problems.append(source.problem((kind,), "expected entries by their keys"))
            continue
        for key, raw in of_kind.items():
            if len(problems) >= MAX_PROBLEMS:
                last = source.problem((kind, str(key)), "not checked any more: mend the others first")
                raise ScenarioError([*problems, last])
            try:
                entries[kind, str(key)] = _entry(source, kind, (kind, str(key)), raw)
            except ScenarioError as error:
                problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return entries


def _entry(source: Source, kind: str, place: Location, raw: Any) -> tuple[Any, Provenance]:
    if not isinstance(raw, dict):
        raise ScenarioError([source.problem(place, f"expected an entry of {kind}, with its provenance")])
    fields = {key: value for key, value in raw.items() if key != "provenance"}
    parts: list[Any] = []
    problems: list[Problem] = []
    for spec, values, at in ((SPECS[kind], fields, place), (Provenance, raw.get("provenance"), (*place, "provenance"))):
        if values is None:
            problems.append(source.problem(at, "is required", FORM))
            continue
        try:
            parts.append(validate(spec, values, source, at))
        except ScenarioError as error:
            problems += error.problems
    if not problems:
        unknown = sorted(set(parts[1].values) - set(fields))
        problems = [
            source.problem((*place, "provenance", "values", name), "not a value of the entry") for name in unknown
        ]
    if problems:
        raise ScenarioError(problems)
    return parts[0], parts[1]


def _check_references(source: Source, catalog: Catalog) -> None:
    """The keys that a file's entries name are in the catalog, or in the file itself."""
    problems: list[Problem] = []
    for kind, fields in REFERENCES.items():
        for key in source.values.get(kind, {}):
            for name, named_kind in fields.items():
                named = getattr(getattr(catalog, kind)[str(key)], name)
                for one in named if isinstance(named, tuple) else [named]:
                    if one is not None and one not in getattr(catalog, named_kind):
                        hint = did_you_mean(one, list(getattr(catalog, named_kind)))
                        problems.append(source.problem((kind, str(key), name), f"unknown {one!r}", hint))
    if problems:
        raise ScenarioError(problems)
