"""Reading a measurements file: JSON Lines, a header and then one row a line."""

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.measurements.rows import KINDS, SCHEMA, Header, Kernel, Model, Request, Run, Step
from capsim.source import MAX_PROBLEMS, Source, validate


@dataclass
class Measurements:
    """The rows of one file by kind, in its order."""

    path: Path
    header: Header
    kernels: list[Kernel] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


def read_measurements(path: Path) -> Measurements:
    """Read a measurements file.

    Raises
    ------
    ScenarioError
        No such file, no header, or bad rows: each with its line.
    """
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    lines = _lines(path)
    number, raw = next(lines, (1, None))
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        hint = "python -m kernels_bench writes such files"
        raise ScenarioError.one(f'expected a header with "schema": "{SCHEMA}"', path=path, line=number, hint=hint)
    found = Measurements(path, _row(Header, raw, path, number))
    problems: list[Problem] = []
    seen: dict[Hashable, int] = {}
    for number, raw in lines:
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem("not checked any more: mend the others first", path, number))
            break
        try:
            _add(found, raw, number, seen)
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line, a cut last one left out; None where a line is not JSON."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line, parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                if line.endswith("\n"):
                    yield number, None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _add(found: Measurements, raw: Any, number: int, seen: dict[Hashable, int]) -> None:
    """Take up one line; ``seen`` has the lines of the rows so far."""

    def refuse(message: str, key: str = "", hint: str = "") -> ScenarioError:
        return ScenarioError.one(message, path=found.path, line=number, key=key, hint=hint)

    if not isinstance(raw, dict):
        raise refuse("not a JSON object", hint="one object a line, without NaN; delete the line if it was cut off")
    if raw.get("schema") == SCHEMA:
        raise refuse("a second header", hint="split the file: several may be calibrated together")
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise refuse(f"unknown kind '{kind}'", "kind", did_you_mean(str(kind), list(KINDS)))
    row = _row(KINDS[kind], raw, found.path, number)
    name = _name(row, raw)
    if name in seen:
        what = "row" if isinstance(row, (Kernel, Step)) else kind
        raise refuse(f"the same {what} as in line {seen[name]}", hint="leave one of the two out")
    if isinstance(row, Kernel) and found.kernels and row.backend != found.kernels[0].backend:
        others = f"measured on '{row.backend}', but the kernels before on '{found.kernels[0].backend}'"
        raise refuse(others, "backend", "a file is of one device: split it")
    if isinstance(row, Request) and ("run", row.run) not in seen:
        raise refuse(f"no earlier line describes run '{row.run}'", "run", "put the line of the run before its requests")
    seen[name] = number
    getattr(found, f"{kind}s").append(row)


def _name(row: Any, raw: dict[str, Any]) -> Hashable:
    """What no two rows may share: a name, or everything."""
    if isinstance(row, Model):
        return "model", row.engine, row.name
    if isinstance(row, Run):
        return "run", row.run
    if isinstance(row, Request):
        return "request", row.run, row.request
    return json.dumps(raw, sort_keys=True)


def _row(spec: type[Any], raw: dict[str, Any], path: Path, number: int) -> Any:
    try:
        return validate(spec, raw, Source(path, raw))
    except ScenarioError as error:
        raise ScenarioError([replace(problem, line=number) for problem in error.problems]) from error
