"""Which calibration a scenario's step times rest on, and how far they may be trusted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from capsim.calibrations import Shipped, is_shipped, shipped
from capsim.calibrations.engine_steps import EngineStep, engine_step
from capsim.catalog import Catalog, Fact, Provenance, load_catalog
from capsim.efficiency import Efficiency
from capsim.hardware import Node
from capsim.measured import Measured
from capsim.scenario.resolved import Resolved
from capsim.scenario.spec import Scenario
from capsim.source import Source, load
from capsim.steptime.calibrated import Calibrated
from capsim.steptime.roofline import Roofline

Found = tuple[Efficiency, tuple[str, Provenance]]
"""A calibration, and its name with the facts behind it."""


def calibration_of(
    catalog: Catalog, source: Source, scenario: Scenario, node: Node, complain: Callable[..., None]
) -> Found | None:
    """The calibration of the file that a scenario names; else the one that ships for the node's device and the engine;
    else the catalog's, whose step times are the roofline's. None where there is none, which is complained of.

    Of each the exact pair of device and engine comes first, then that device under another engine; of a file at last
    the first with measured kernels, which are carried over in utilisation.
    """
    engine = scenario.engine or node.engine
    if isinstance(scenario.calibration, Path):
        return _of_file(catalog, source, scenario.calibration, (node.device, engine), complain)
    key = _key_of(catalog.calibrations, node.device, engine)
    if scenario.calibration == "auto" and (key is None or _is_shipped_entry(catalog, key)):
        served = next((name for name in (engine, *catalog.engines) if is_shipped(node.device, name)), None)
        if served is not None and key is not None:
            return _with_kernels(catalog, key, shipped(node.device, served), engine_step(engine))
    if key is None:
        complain(f"no calibration of {node.device} under any engine", "node", hint="give one with calibration:")
        return None
    return catalog.calibrations[key], (key, catalog.provenance["calibrations", key])


def _of_file(
    catalog: Catalog, source: Source, path: Path, wanted: tuple[str, str], complain: Callable[..., None]
) -> Found | None:
    keys = [str(key) for key in load(source.file(path, "calibration")).values.get("calibrations", {})]
    specs = {key: catalog.calibrations[key] for key in keys}
    measured = (key for key, spec in specs.items() if spec.measured and spec.measured.kernels)
    key = _key_of(specs, *wanted) or next(measured, None)
    if key is None:
        found = f"is for {', '.join(keys)}" if keys else "has no calibrations"
        complain(f"{path.name} {found}, not {'/'.join(wanted)}", "calibration", hint="capsim calibrate writes one")
        return None
    return specs[key], (path.name, catalog.provenance["calibrations", key])


def _key_of(specs: Mapping[str, Efficiency], device: str, engine: str) -> str | None:
    """The pair itself, else the device under another engine."""
    if (exact := f"{device}/{engine}") in specs:
        return exact
    return next((key for key, spec in specs.items() if spec.device == device), None)


def _is_shipped_entry(catalog: Catalog, key: str) -> bool:
    """Whether an entry is the catalog's own: one that the user brought along stands as it is."""
    return catalog.calibrations[key] is load_catalog().calibrations.get(key)


def _with_kernels(catalog: Catalog, key: str, kernels: Shipped, step: EngineStep) -> Found:
    """The catalog's entry with the kernels that ship, and what a step of the engine takes beside them."""
    entry, facts = catalog.calibrations[key], catalog.provenance["calibrations", key]
    measured = Measured(kernels=kernels.tables, residuals=kernels.residuals)
    update = {"engine": kernels.engine, "measured": measured, "expert_layer_s": 0.0, **step.coefficients}
    source = (
        f"{kernels.source}; from kernels to a step by {step.source}; host time, and what was not measured, "
        f"as {key}: {facts.source}"
    )
    told = Provenance(basis="calibrated", source=source, as_of=kernels.as_of)
    return entry.model_copy(update=update | kernels.coefficients), (f"{kernels.device}/{kernels.engine}", told)


def graded(resolved: Resolved) -> Resolved:
    """With the basis of its step times as low as the way they were come by, and warnings of what was not measured.

    Kernels measured at the very shapes on the very device keep the basis of their file; carried over to other shapes
    they are ``calibrated``; to another device, or taken from under another engine, ``assumed``.
    """
    key, fact = resolved.basis["step_time"]
    efficiency, steps = resolved.efficiency, resolved.step_time_model()
    ways, basis, warnings = [], fact.basis, []
    if isinstance(steps, Calibrated):
        if not steps.kernels.is_exact:
            ways, basis = ["carried over in utilisation to other shapes"], "calibrated"
        if steps.kernels.unmeasured:
            warnings.append(f"not measured, so by the roofline: {', '.join(steps.kernels.unmeasured)}")
        if steps.kernels.stand_ins:
            warnings.append(f"weight formats that were not measured: {', '.join(steps.kernels.stand_ins)}")
        if resolved.device != resolved.measured_on:
            warnings.append(f"step times are carried over from {resolved.measured_on.name}: no more than a guess")
    elif not isinstance(steps, Roofline):
        ways, basis = ["whole steps of this very model"], "calibrated"
    if efficiency.device != resolved.node.device:
        ways, basis = [f"carried over in utilisation from {efficiency.device}"], "assumed"
    if efficiency.engine != resolved.engine_key:
        ways, basis = ["as under another engine", *ways], "assumed"
    if not ways:
        return replace(resolved, warnings=(*resolved.warnings, *warnings))
    graded_fact = Fact(basis=basis, source=f"{', '.join(ways)}: {fact.source}", as_of=fact.as_of)
    step_time = {"step_time": (key, graded_fact)}
    return replace(resolved, basis=resolved.basis | step_time, warnings=(*resolved.warnings, *warnings))
