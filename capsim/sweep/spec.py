"""The sweep file: a scenario, what is asked of it, and the settings to try."""

from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.errors import Problem, ScenarioError
from capsim.scenario.spec import Scenario
from capsim.source import Location, Source, assignment, load, unknown_key, validate

MOST_POINTS = 100_000
Task = Literal["run", "plan"]


class SweepSpec(BaseModel):
    """``grid`` tries every combination of its values, the last path changing fastest; ``list`` names the points."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scenario: Path
    task: Task = "run"
    grid: dict[str, list[Any]] | None = None
    points: list[dict[str, Any]] | None = Field(None, alias="list")

    @model_validator(mode="after")
    def _one_way(self) -> "SweepSpec":
        if (self.grid is None) == (self.points is None):
            raise ValueError("give one of grid: {path: [values]} and list: [{path: value}]")
        if not all((self.grid or {"": [0]}).values()) or self.points == [] or self.grid == {}:
            raise ValueError("needs at least one value to try of each path")
        count = len(self.points or ()) if self.grid is None else prod(map(len, self.grid.values()))
        if count > MOST_POINTS:
            raise ValueError(f"is {count:,} points, more than {MOST_POINTS:,}: try fewer values")
        return self


@dataclass(frozen=True)
class Point:
    """One scenario of a sweep: its place, the swept values, and the overrides that set them."""

    index: int
    values: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        return [assignment(path, value) for path, value in self.values.items()]


@dataclass(frozen=True)
class Sweep:
    """Points of one scenario file and what is asked of each; files that a value names are sought from ``folder`` on."""

    scenario: Path
    task: Task
    points: tuple[Point, ...]
    folder: Path = Path()

    @property
    def paths(self) -> list[str]:
        """Every path that some point sets, in the order in which they appear."""
        return list(dict.fromkeys(path for point in self.points for path in point.values))


def load_sweep(path: Path | str) -> Sweep:
    """Read a sweep file.

    Raises
    ------
    ScenarioError
        Mistakes in the file: unknown keys or paths, no values, no such scenario.
    """
    source = load(Path(path))
    spec = validate(SweepSpec, source.values, source)
    scenario = source.file(spec.scenario, "scenario")
    problems = _unknown_paths(spec, source)
    if not scenario.is_file():
        problems.append(source.problem(("scenario",), f"file not found: {scenario}"))
    if problems:
        raise ScenarioError(problems)
    chosen = spec.points or [
        dict(zip(spec.grid or {}, values, strict=True)) for values in product(*(spec.grid or {}).values())
    ]
    points = tuple(Point(index, values) for index, values in enumerate(chosen))
    return Sweep(scenario, spec.task, points, source.path.parent)


def _unknown_paths(spec: SweepSpec, source: Source) -> list[Problem]:
    places: list[tuple[Location, str]] = [(("grid", path), path) for path in spec.grid or ()]
    places += [(("list", index, path), path) for index, point in enumerate(spec.points or ()) for path in point]
    found = [(place, unknown_key(Scenario, path)) for place, path in places]
    return [source.problem(place, problem.message, problem.hint) for place, problem in found if problem is not None]
