"""The sweep file: one scenario, and what to vary in it."""

import itertools
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.errors import ScenarioError
from capsim.scenario import Scenario
from capsim.source import Location, Source, assignment, load, unknown_key, validate

MOST_POINTS = 100_000
Point = dict[str, Any]


class Sweep(BaseModel):
    """One scenario and its points.

    Attributes
    ----------
    scenario
        Its file, relative to the sweep's.
    task
        ``run`` simulates the scenario's own load, ``plan`` seeks the sessions a node carries.
    grid
        Values by dotted path: every combination is a point, the last path varying fastest.
    points
        Points written out, each as values by dotted path; instead of a grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: Path
    task: Literal["run", "plan"] = "run"
    grid: dict[str, list[Any]] = Field(default={}, min_length=1)
    points: list[Point] = Field(default=[], min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> "Sweep":
        if bool(self.grid) == bool(self.points):
            raise ValueError("give a grid ({path: [values]}) or points (a list of {path: value}), one of them")
        empty = [path for path, values in self.grid.items() if not values]
        if empty:
            raise ValueError(f"grid: {empty[0]} has no values")
        count = 1
        for values in self.grid.values():
            count *= len(values)
        if count > MOST_POINTS:
            raise ValueError(f"{count:,} points are more than {MOST_POINTS:,}: make the grid smaller")
        try:
            json.dumps([self.grid, self.points], sort_keys=True, default=str)
        except TypeError as error:
            raise ValueError("keys inside a value must be words: what is a number belongs in quotes") from error
        return self

    @property
    def all_points(self) -> list[Point]:
        """Every point once, in the file's order."""
        if self.points:
            every = self.points
        else:
            every = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return list({json.dumps(point, sort_keys=True, default=str): point for point in every}.values())

    @property
    def paths(self) -> list[str]:
        """What varies."""
        return list(dict.fromkeys(path for point in self.all_points for path in point))


def load_sweep(path: Path | str) -> Sweep:
    """Read a sweep file; the scenario's place becomes absolute.

    Raises
    ------
    ScenarioError
        Mistakes in the file, each with its line.
    """
    source = load(Path(path))
    sweep = validate(Sweep, source.values, source)
    scenario = source.file(sweep.scenario, "scenario").resolve()
    if not scenario.is_file():
        raise ScenarioError([source.problem(("scenario",), f"file not found: {scenario}")])
    _check_paths(sweep, source)
    return sweep.model_copy(update={"scenario": scenario})


def _check_paths(sweep: Sweep, source: Source) -> None:
    """Refuse what no scenario has: every point would fail by it."""
    places: list[tuple[Location, str]] = [(("grid", path), path) for path in sweep.grid]
    places += [(("points", index, path), path) for index, point in enumerate(sweep.points) for path in point]
    found = [(place, unknown_key(Scenario, path)) for place, path in places]
    problems = [source.problem(place, wrong.message, wrong.hint) for place, wrong in found if wrong is not None]
    if problems:
        raise ScenarioError(problems)


def assignments(point: Point) -> list[str]:
    """The point as overrides of the scenario."""
    return [assignment(path, value) for path, value in point.items()]
