"""From kernels to a whole engine step: constants of an engine, fitted on published points marked ``fit`` alone.

Three constants an engine: a factor on the time of kernels, seconds a layer, and the least that a mixture's layer takes
in a step that prefills. Every figure counts alike, by the logarithm of simulated over published, and beyond a tenth
linearly instead of squared. All of that was settled before the first fit. That an engine's constants are drawn to those
of all engines came later, when new tables moved them along a valley in which every point fits as well.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from capsim.calibrate.published import last_day
from capsim.calibrations import is_shipped
from capsim.calibrations.engine_steps import POOLED, EngineStep, Off
from capsim.errors import Infeasible, ScenarioError
from capsim.scenario import Resolved
from capsim.validate.as_run import AsRun, as_run
from capsim.validate.names import Skip
from capsim.validate.points import Point
from capsim.validate.predict import Judged, resolved_of, simulated

STEPS = ("median_tpot", "median_itl", "itl_intercept", "itl_slope_per_context_token")
FIRST_TOKEN = "median_ttft"
CONSTANTS = ("kernel_factor", "layer_s", "prefill_expert_layer_s")
UNITS = np.array([1.0, 1e-5, 1e-4])
START = np.array([1.1, 1.0, 15.0])
MOST = np.array([2.0, 20.0, 50.0])
LEAST = np.array([1.0, 0.0, 0.0])
LINEAR_BEYOND = 0.1
CHANGE = np.full(3, 0.02)
"""Of a constant, to see what it does: large enough that one request more or less in a step does not decide."""
DIGITS = 3


@dataclass(frozen=True)
class _Fitted:
    """A point to fit on, ready to run with kernels and with the roofline."""

    point: Point
    day: str
    run: AsRun
    kernels: Resolved
    roofline: Resolved

    def figures(self, coefficients: dict[str, float]) -> list[Judged]:
        """The figures to fit on as they are simulated with these coefficients."""
        efficiency = self.kernels.efficiency.model_copy(update=coefficients)
        return self._figures(replace(self.kernels, efficiency=efficiency))

    def by_roofline(self) -> list[Judged]:
        return self._figures(self.roofline)

    def _figures(self, resolved: Resolved) -> list[Judged]:
        found = simulated(self.point, self.run, resolved).figures
        return [figure for figure in found if figure.use == "fit" and figure.metric in (*STEPS, FIRST_TOKEN)]


def fit_engine_steps(points: Sequence[Point], path: Path) -> dict[str, EngineStep]:
    """Constants by engine, and those of all engines together.

    Raises
    ------
    ScenarioError
        No point can be fitted on, or the date of one is none.
    """
    by_engine: dict[str, list[_Fitted]] = defaultdict(list)
    for point in points:
        if ready := _ready(point, path):
            by_engine[ready.kernels.engine_key].append(ready)
    if not by_engine:
        raise ScenarioError.one("has no point to fit a step of an engine on", path=path)
    pooled = _fit([each for group in by_engine.values() for each in group])
    with ProcessPoolExecutor() as pool:
        steps = list(pool.map(_fit, by_engine.values(), repeat(pooled)))
    own = {engine: _completed(step, pooled) for engine, step in zip(by_engine, steps, strict=True)}
    return {**dict(sorted(own.items())), POOLED: pooled}


def _ready(point: Point, path: Path) -> _Fitted | None:
    """A point with a figure to fit on, on a device and engine with kernel tables."""
    if not any(figure.use == "fit" and figure.metric in (*STEPS, FIRST_TOKEN) for figure in point.figures):
        return None
    try:
        run = as_run(point)
        kernels = resolved_of(run)
        roofline = resolved_of(replace(run, scenario={**run.scenario, "calibration": "none"}))
    except (Skip, Infeasible, ScenarioError):
        return None
    known = is_shipped(kernels.node.device, kernels.engine_key)
    return _Fitted(point, last_day(point.date, path), run, kernels, roofline) if known else None


def _fit(points: Sequence[_Fitted], pooled: EngineStep | None = None) -> EngineStep:
    """The constants that bring the figures of these points nearest; a time that no figure tells stays out.

    Few points of one model hardly tell a factor from seconds a layer. So each constant is drawn to the pooled one: off
    by as much as that is, it counts like a figure that is off by a tenth.
    """
    first_tokens = any(figure.metric == FIRST_TOKEN for each in points for figure in each.by_roofline())
    count = 3 if first_tokens else 2

    near = np.array([getattr(pooled, name) for name in CONSTANTS[:count]]) / UNITS[:count] if pooled else None

    def errors(values: np.ndarray) -> np.ndarray:
        figures = [figure for each in points for figure in each.figures(_coefficients(values))]
        off = np.log([figure.simulated / figure.published for figure in figures])
        return off if near is None else np.append(off, LINEAR_BEYOND * (values / near - 1))

    found = least_squares(
        errors, START[:count], bounds=(LEAST[:count], MOST[:count]), loss="soft_l1", f_scale=LINEAR_BEYOND,
        diff_step=CHANGE[:count],
    )  # fmt: skip
    coefficients = {name: _few(value) for name, value in _coefficients(found.x).items()}
    return EngineStep(
        **coefficients, pooled=() if first_tokens else CONSTANTS[2:], source=_source(points),
        as_of=max(each.day for each in points), errors=_off(points, coefficients),
    )  # fmt: skip


def _coefficients(values: np.ndarray) -> dict[str, float]:
    return dict(zip(CONSTANTS, [*map(float, values * UNITS[: len(values)]), 0.0][:3], strict=True))


def _completed(step: EngineStep, pooled: EngineStep) -> EngineStep:
    return step.model_copy(update={name: getattr(pooled, name) for name in step.pooled})


def _source(points: Sequence[_Fitted]) -> str:
    """Where the points are from: sources, devices, models."""
    told = dict.fromkeys(
        f"{each.point.source}, {each.point.model} on {each.kernels.node.device} under {each.kernels.engine_key}"
        for each in points
    )
    return f"{len(points)} points marked fit: {'; '.join(told)}"


def _off(points: Sequence[_Fitted], coefficients: dict[str, float]) -> dict[str, Off]:
    """Errors on the points of the fit by figure, with kernels and with the roofline."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in points:
        for kernels, roofline in zip(each.figures(coefficients), each.by_roofline(), strict=True):
            found[kernels.metric].append((abs(kernels.error), abs(roofline.error)))
    return {
        metric: Off(
            figures=len(errors), median=_few(np.median(errors, axis=0)[0]), largest=_few(np.max(errors, axis=0)[0]),
            roofline=_few(np.median(errors, axis=0)[1]),
        ) for metric, errors in sorted(found.items())
    }  # fmt: skip


def _few(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
