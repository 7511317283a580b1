"""Which calibration a scenario's step times rest on, and how far they may be trusted."""

from collections.abc import Callable
from dataclasses import replace

from capsim.catalog import Catalog, Fact
from capsim.hardware import Node
from capsim.scenario.resolved import Resolved
from capsim.scenario.spec import Scenario
from capsim.source import Source, load
from capsim.steptime.calibrated import Calibrated
from capsim.steptime.roofline import Roofline


def key_of(
    catalog: Catalog, source: Source, scenario: Scenario, node: Node, complain: Callable[..., None]
) -> str | None:
    """The calibration of the node's device under the engine; else of that device under another engine; else, of a file
    that the scenario names, the first with measured kernels, which are carried over in utilisation."""
    engine = scenario.engine or node.engine
    keys = list(catalog.calibrations)
    if scenario.calibration is not None:
        path = source.file(scenario.calibration, "calibration")
        keys = [str(key) for key in load(path).values.get("calibrations", {})]
    exact = f"{node.device}/{engine}"
    if exact in keys:
        return exact
    specs = {key: catalog.calibrations[key] for key in keys}
    borrowed = next((key for key, spec in specs.items() if spec.device == node.device), None)
    if borrowed is not None:
        return borrowed
    if scenario.calibration is None:
        complain(f"no calibration of {node.device} under any engine", "node", hint="give one with calibration:")
        return None
    measured = next((key for key, spec in specs.items() if spec.measured and spec.measured.kernels), None)
    if measured is None:
        found = f"is for {', '.join(keys)}" if keys else "has no calibrations"
        complain(f"{scenario.calibration.name} {found}, not {exact}", "calibration", hint="capsim calibrate writes one")
    return measured


def graded(resolved: Resolved) -> Resolved:
    """With the basis of its step times as low as the way they were come by, and warnings of what was not measured.

    Kernels measured at the very shapes on the very device keep the basis of their file; carried over to other shapes
    they are ``calibrated``; to another device, or taken from under another engine, ``assumed``.
    """
    key, fact = resolved.basis["step_time"]
    efficiency, steps = resolved.efficiency, resolved.step_time_model()
    ways, basis, warnings = [], fact.basis, []
    if isinstance(steps, Calibrated):
        if not steps.is_exact:
            ways, basis = ["carried over in utilisation to other shapes"], "calibrated"
        if steps.unmeasured:
            warnings.append(f"not measured, so by the roofline: {', '.join(steps.unmeasured)}")
        if steps.stand_ins:
            warnings.append(f"weight formats that were not measured: {', '.join(steps.stand_ins)}")
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
