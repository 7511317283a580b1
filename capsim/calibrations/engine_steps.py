"""What a whole step of an engine takes beside its kernels, by engine, as ``capsim refit --points`` fitted it."""

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from capsim.hardware import Seconds
from capsim.whole_file import write_whole

FILE = "engine_steps.yaml"
FOLDER = Path(__file__).parent
POOLED = "pooled"
HEAD = "# Written by capsim refit --points: a step beside its kernels, fitted on published points marked fit.\n"
Changed = tuple[str, dict[str, float], dict[str, float]]


class Off(BaseModel):
    """How far a published figure is from the fit: number, median and largest relative error, and the median with the
    roofline's coefficients in place of kernels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    figures: int
    median: float
    largest: float
    roofline: float


class EngineStep(BaseModel):
    """Constants of an engine's step, and what they were fitted on.

    Attributes
    ----------
    kernel_factor, layer_s, prefill_expert_layer_s
        As in ``Efficiency``; the first two for every step.
    pooled
        Those of them that no point of this engine tells, taken from all engines together.
    errors
        Errors on the points of the fit, by figure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kernel_factor: float = Field(ge=1)
    layer_s: Seconds
    prefill_expert_layer_s: Seconds
    pooled: tuple[str, ...] = ()
    source: str
    as_of: date
    errors: dict[str, Off]

    @property
    def coefficients(self) -> dict[str, float]:
        """Fields of ``Efficiency``."""
        return self.model_dump(include={"kernel_factor", "layer_s", "prefill_expert_layer_s"})


@cache
def engine_steps() -> dict[str, EngineStep]:
    """The shipped constants by engine, and those of all engines together under ``pooled``."""
    return read_engine_steps(FOLDER)


def engine_step(engine: str) -> EngineStep:
    """An engine's constants, or those of all engines together."""
    return engine_steps().get(engine) or engine_steps()[POOLED]


def read_engine_steps(folder: Path) -> dict[str, EngineStep]:
    """The constants as ``write_engine_steps`` wrote them there; none where it did not."""
    path = folder / FILE
    if not path.is_file():
        return {}
    values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {engine: EngineStep(**value) for engine, value in values.items()}


def write_engine_steps(folder: Path, steps: Mapping[str, EngineStep]) -> list[Changed]:
    """Write the constants of engines; of each that changed the engine, and them before and after.

    Raises
    ------
    ScenarioError
        The file cannot be written.
    """
    before = read_engine_steps(folder)
    values = {engine: step.model_dump(mode="json") for engine, step in steps.items()}
    text = yaml.dump(values, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=120)
    write_whole(folder / FILE, [HEAD, text])
    old = {engine: before[engine].coefficients if engine in before else {} for engine in steps}
    return [(engine, old[engine], step.coefficients) for engine, step in steps.items() if before.get(engine) != step]
