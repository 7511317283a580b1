"""What a workload takes from elsewhere: what its preset fills in, and the rates of its profiles."""

from pathlib import Path
from typing import Any

from capsim import units
from capsim.catalog import Catalog, Fact, Provenance, load_entry
from capsim.errors import ScenarioError, did_you_mean
from capsim.source import Location, Source
from capsim.workload.profiles import read_rates
from capsim.workload.spec import WorkloadPreset
from capsim.workload.traces import PATHS

DRAWN_BY_PRESET = ("arrival", "prompt_tokens", "output_tokens")
REPLACED_BY_TRACE = (*DRAWN_BY_PRESET, "session", "prefix")


def apply_preset(source: Source, catalog: Catalog) -> dict[str, tuple[str, Fact]]:
    """Fill in what the scenario leaves to its preset; a trace replaces all that the preset would draw but pauses.

    A preset is an entry of the catalog or a file with one, as ``capsim trace fit`` writes it. Its target is the
    scenario's where that has no ``slo`` of its own. Returns its name and the fact behind each part that it gave.
    """
    given = source.values.get("workload")
    if not isinstance(given, dict) or not isinstance(given.get("preset"), str):
        return {}
    name = given["preset"]
    if name in catalog.workloads:
        preset, facts = catalog.workloads[name], catalog.provenance["workloads", name]
    else:
        preset, facts = _preset_of_file(name, source, catalog)
        given = {key: value for key, value in given.items() if key != "preset"}
    hidden = REPLACED_BY_TRACE if given.get("trace") is not None else ()
    filled = preset.model_dump(exclude_unset=True, exclude={"slo", *hidden})
    source.values["workload"] = {**filled, **given}
    found: dict[str, tuple[str, Fact]] = {"workload": (name, facts)}
    if preset.slo is not None and "slo" not in source.values:
        source.values["slo"] = preset.slo.model_dump(exclude_none=True)
        found["slo"] = name, facts.of("slo")
    return found


def _preset_of_file(name: str, source: Source, catalog: Catalog) -> tuple[WorkloadPreset, Provenance]:
    place = ("workload", "preset")
    if not name.endswith((".yaml", ".yml")):
        hint = did_you_mean(name, list(catalog.workloads))
        raise ScenarioError([source.problem(place, f"unknown preset '{name}'", hint)])
    path = source.file(Path(name), "workload.preset")
    if not path.is_file():
        raise ScenarioError([source.problem(place, f"no file {path}", PATHS)])
    return load_entry(path, "workloads")


def inline_profiles(source: Source, catalog: Catalog) -> None:
    """Put the rates in the place of a profile's catalog key or file, so that the scenario stands alone."""
    workload = source.values.get("workload")
    arrival = workload.get("arrival") if isinstance(workload, dict) else None
    if not isinstance(arrival, dict):
        return
    place: Location = ("workload", "arrival")
    _inline(arrival, place, source, catalog)
    classes = arrival.get("classes")
    for index, one in enumerate(classes if isinstance(classes, (list, tuple)) else ()):
        if isinstance(one, dict) and isinstance(one.get("arrival"), dict):
            _inline(one["arrival"], (*place, "classes", index, "arrival"), source, catalog)


def _seconds(value: Any) -> float | None:
    try:
        return units.parse(value, "s")
    except (TypeError, ValueError):
        return None


def _inline(arrival: dict[str, Any], place: Location, source: Source, catalog: Catalog) -> None:
    """Look up one profile. What does not fit its schema is left for the schema to refuse."""
    name, file = arrival.get("profile"), arrival.get("file")
    kind = arrival.get("kind")
    if kind not in ("profile", "users") or arrival.get("rates") is not None or (name is None) == (file is None):
        return
    if isinstance(name, str):
        profile = catalog.profiles.get(name)
        if profile is None:
            hint = did_you_mean(name, list(catalog.profiles))
            raise ScenarioError([source.problem((*place, "profile"), f"unknown profile '{name}'", hint)])
        if arrival.get("period_s") is not None and _seconds(arrival["period_s"]) != profile.period_s:
            message = f"the profile '{name}' has a period of its own, {profile.period_s:g} s"
            raise ScenarioError([source.problem((*place, "period_s"), message, "leave period_s out")])
        shape = {"rates", "period_s"}
        found = profile.model_dump(include=shape if kind == "users" else {*shape, "mean_rate_per_s"})
        arrival.update({key: value for key, value in found.items() if arrival.get(key) is None})
        del arrival["profile"]
    elif isinstance(file, (str, Path)):
        path = source.file(Path(file), ".".join(map(str, (*place, "file"))))
        arrival["rates"] = read_rates(path, str(arrival.pop("column", "rate_per_s")))
        del arrival["file"]
