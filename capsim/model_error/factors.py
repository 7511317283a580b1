"""By what factors step times, and figures that were judged themselves, may be off for one scenario."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

from capsim.calibrations import is_shipped
from capsim.catalog import load_catalog
from capsim.measured import Measured, Residual
from capsim.model_error.spread import Spread, judged_of, of_residual, pooled
from capsim.scenario import Resolved
from capsim.steptime.whole_step import WholeStep

ENOUGH = 8
"""Judged figures that tell an error: fewer are a single model in a single study."""
DATASHEET = 2.0
"""The least by which the step times of a device that nobody calibrated may be longer or shorter."""
STEP = ("TPOT", "ITL", "decode rate", "throughput")
"""Published metrics that tell how far step times are off."""
OWN = {"ttft_s": ("TTFT", "prefill rate"), "tpot_s": ("TPOT", "decode rate"), "itl_s": ("ITL",), "e2e_s": ("E2E",)}
"""Published metrics that a figure of a run was itself judged by."""
RATES = ("decode rate", "throughput", "prefill rate")
Keep = Callable[[str, str], bool]
"""Whether the figures of a device under an engine tell."""


@dataclass(frozen=True)
class ModelError:
    """Factors [low, high] of real over simulated: of step times, and of the figures that were judged themselves.

    ``basis`` is ``judged`` (published figures of this device under this engine), ``pooled`` (of this engine, or of all,
    on devices that kernels were measured on), ``residuals`` (held out of a calibration of one's own) or ``assumed``
    (the spread of devices); ``source`` says it in words and ``figures`` how many there are.
    """

    step_time: tuple[float, float]
    basis: str
    source: str
    figures: int = 0
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)


def model_error(resolved: Resolved) -> ModelError:
    """The narrowest error that the evidence for a scenario's step times allows.

    A calibration of one's own is told by its residuals. What the catalog says of a device, and the kernels that ship
    for it, is told by published figures: at least eight of the device under the engine, else, where kernels were
    measured, of the engine on all such devices, else of all engines on them. Everything else is told by the spread of
    devices.
    """
    device, engine, measured = resolved.node.device, resolved.engine_key, resolved.efficiency.measured
    carried = resolved.efficiency.device != device or resolved.efficiency.engine != engine
    if _is_own(resolved):
        return _spread_of_devices() if measured is None or carried else _by_residuals(resolved, measured)
    if measured is None and any(is_shipped(device, name) for name in load_catalog().engines):
        return _spread_of_devices()  # the figures of this device judge the kernels that ship, not what was asked for
    found = _judged("judged", f"of {engine} on {device}", lambda *where: where == (device, engine))
    if found is None and measured is not None and not carried:
        where = f"of {engine} on devices with kernel tables"
        found = _judged("pooled", where, lambda d, e: e == engine and is_shipped(d, e)) or _of_all_engines(engine)
    return found or _spread_of_devices()


def separable(one: tuple[float, float] | list[float], other: tuple[float, float] | list[float]) -> bool:
    """Whether two brackets lie apart; where they overlap nobody can say which figure is the larger."""
    return one[1] < other[0] or other[1] < one[0]


def _is_own(resolved: Resolved) -> bool:
    """Whether step times rest on a file of the user's, about which published figures say nothing."""
    if isinstance(resolved.scenario.calibration, Path):
        return True
    if resolved.efficiency.measured is not None:
        return bool(resolved.efficiency.measured.environment)
    return resolved.efficiency not in load_catalog().calibrations.values()


def _judged(basis: str, where: str, keep: Keep) -> ModelError | None:
    """The errors of published figures; None where too few tell how far step times are off."""
    step = _times(STEP, keep)
    if step is None:
        return None
    metrics = {name: own.factors for name, names in OWN.items() if (own := _times(names, keep))}
    return ModelError(step.factors, basis, f"{step.figures} published figures {where}", step.figures, metrics)


def _of_all_engines(engine: str) -> ModelError | None:
    """How far step times are off under whatever engine: how requests wait for the first token is each engine's own."""
    step = _times(STEP, is_shipped)
    if step is None:
        return None
    source = f"{step.figures} published figures on devices with kernel tables, too few of them of {engine}"
    return ModelError(step.factors, "pooled", source, step.figures)


def _times(metrics: tuple[str, ...], keep: Keep) -> Spread | None:
    """The spread of times by all figures of some metrics; None where there are too few."""
    found = [(metric, spread) for metric in metrics if (spread := judged_of(metric, keep))]
    spread = pooled(spread.inverted if metric in RATES else spread for metric, spread in found)
    return spread if spread is not None and spread.figures >= ENOUGH else None


def _by_residuals(resolved: Resolved, measured: Measured) -> ModelError:
    """Of whole steps at episodes held out: of this very model, else of the others and of the kernels on top, as those
    are carried over to other shapes. Where only kernels were measured, of these or of all judged figures, whichever is
    wider: what an engine takes beside its kernels is then not known.
    """
    how = "fit" if isinstance(resolved.step_time_model(), WholeStep) else "table"
    steps = [row for row in measured.residuals if row.what == "step" and row.by == resolved.engine_key]
    same = _pooled_residuals([row for row in steps if row.shape == resolved.model.name], how)
    if same is not None:
        return ModelError(same.factors, "residuals", f"{same.figures} steps of this model held out", same.figures)
    kernels = _pooled_residuals([row for row in measured.residuals if row.what != "step"], "table")
    others = _pooled_residuals(steps, "table")
    if kernels is not None and others is not None:
        told = Spread(others.mean, hypot(others.sd, kernels.sd), others.figures)
        source = f"{told.figures} steps of other models held out, and kernels carried over to this one"
        return ModelError(told.factors, "residuals", source, told.figures)
    anywhere = _times(STEP, is_shipped)
    if kernels is None or anywhere is None:
        return _spread_of_devices()
    widest = max(kernels.factors, anywhere.factors, key=lambda ends: ends[1] / ends[0])
    source = f"{kernels.figures} points of kernels held out, and engines elsewhere: no steps were measured"
    return ModelError(widest, "residuals", source, kernels.figures)


def _pooled_residuals(rows: list[Residual], how: str) -> Spread | None:
    known = [(error, row.held_out) for row in rows if (error := getattr(row, how)) is not None]
    return pooled(of_residual(*pair) for pair in known)


def _spread_of_devices() -> ModelError:
    """The shares of bandwidth and arithmetic that calibrated devices reach differ by so much; at least by two."""
    catalog = load_catalog()
    calibrated = [
        entry for key, entry in catalog.calibrations.items()
        if catalog.provenance["calibrations", key].basis in ("measured", "calibrated")
    ]  # fmt: skip
    reached = [[getattr(e, name) for e in calibrated] for name in ("memory_fraction", "flops_fraction")]
    factor = max(DATASHEET, *(max(shares) / min(shares) for shares in reached))
    source = f"not judged on this device: the spread of {len(calibrated)} calibrated ones, at least x/÷ {DATASHEET:g}"
    return ModelError((1 / factor, factor), "assumed", source)
