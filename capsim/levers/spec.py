"""The stack file: a baseline scenario, and the levers to pull in it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from capsim.errors import Infeasible, Problem, ScenarioError
from capsim.scenario import resolve
from capsim.source import Source, load, validate
from capsim.sweep.spec import assignments

MOST_LEVERS = 7


class Lever(BaseModel):
    """What one lever sets in the baseline: values by dotted path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, pattern="^[^,]+$")
    set: dict[str, Any] = Field(min_length=1)


class Stack(BaseModel):
    """A baseline and its levers, in the order in which they are pulled unless told otherwise.

    Attributes
    ----------
    scenario
        The baseline's file, relative to the stack's.
    claimed_gain
        By how much somebody says that all levers together make a token cheaper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    description: str = ""
    scenario: Path
    claimed_gain: float | None = Field(None, gt=0)
    levers: tuple[Lever, ...] = Field(min_length=1, max_length=MOST_LEVERS)

    @field_validator("levers")
    @classmethod
    def _named_once(cls, levers: tuple[Lever, ...]) -> tuple[Lever, ...]:
        names = [lever.name for lever in levers]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two levers are called '{twice}'")
        return levers

    @model_validator(mode="after")
    def _same_load(self) -> "Stack":
        """All steps carry the same users in the same time: a lever may change the fleet, not what is asked of it."""
        for lever in self.levers:
            for path in lever.set:
                if path.split(".")[0] in ("workload", "slo", "plan"):
                    raise ValueError(f"{lever.name} sets {path}: levers are compared at the same load and SLO")
        return self


def load_stack(path: Path | str) -> Stack:
    """Read a stack file; the scenario's place becomes absolute, and every lever is tried alone.

    Raises
    ------
    ScenarioError
        Mistakes in the file or in what a lever sets, each with its line.
    """
    source = load(Path(path))
    stack = validate(Stack, source.values, source)
    scenario = source.file(stack.scenario, "scenario").resolve()
    if not scenario.is_file():
        raise ScenarioError([source.problem(("scenario",), f"file not found: {scenario}")])
    resolve(scenario)
    problems = [p for index, lever in enumerate(stack.levers) for p in _mistakes(source, scenario, index, lever)]
    if problems:
        raise ScenarioError(problems)
    return stack.model_copy(update={"scenario": scenario})


def _mistakes(source: Source, scenario: Path, index: int, lever: Lever) -> list[Problem]:
    """What is wrong with a lever; that its model does not fit is no mistake."""
    try:
        resolve(scenario, assignments(lever.set))
    except ScenarioError as error:
        return [source.problem(("levers", index, "set", p.key), p.message, p.hint) for p in error.problems]
    except Infeasible:
        pass
    return []
